"""Balancing methods beside tuned static weights, at equal compute:  python benchmarks/compare_balancing.py digits|river

`groupwise.balance.compare` on the two jobs of `jobs.py`, whoever wins. Static weights are chosen on tuning data from a
grid; for the two digits the grid has the sum's loss turned down in steps, for the river the first losses to a power.
A method whose update takes twice the time gets half the updates. Errors are on data that neither training nor tuning
saw; all of them are better when lower.
"""

from __future__ import annotations

import argparse

import jobs
import torch
from rich.console import Console

from groupwise.balance import FAMO, IMTL_L, MGDA, CAGrad, NashMTL, Uncertainty, UPGrad, compare

DIGITS = [{"left": 1.0, "right": 1.0, "sum": weight} for weight in (0.2, 0.05, 0.01)]
METHODS = [Uncertainty(), IMTL_L(), FAMO(), MGDA(), CAGrad(), NashMTL(), UPGrad()]


def main() -> None:
    """Read the arguments, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["digits", "river"])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    build, grid = (jobs.two_digits, DIGITS) if given.job == "digits" else (jobs.river, None)
    found = compare(build, METHODS, updates=given.updates, seeds=range(given.seeds), static=grid)
    Console(width=200, highlight=False).print(str(found))


if __name__ == "__main__":
    main()
