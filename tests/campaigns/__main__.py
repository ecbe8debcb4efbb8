"""Faults by the ten thousand, and what came of them.

python -m tests.campaigns                                  every campaign, 1,000 inputs each
python -m tests.campaigns bits kill --count 10000 --seed 1
python -m tests.campaigns plans --first 4711 --count 1     one input again, by its number
"""

import argparse
import sys
import time
from collections import Counter

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.campaigns.campaign import outcomes
from tests.campaigns.campaigns import CAMPAIGNS
from tests.campaigns.outcome import Kind, Outcome

console = Console(width=110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns", description="Faults by the ten thousand, and what came of them."
    )
    parser.add_argument("campaigns", nargs="*", metavar="campaign", help=f"of {', '.join(CAMPAIGNS)}; default: all")
    parser.add_argument("--count", type=int, default=1000, help="inputs of each campaign")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end each campaign after that long")
    parser.add_argument("--seed", type=int, default=0)
    found = parser.parse_args()
    if unknown := [name for name in found.campaigns if name not in CAMPAIGNS]:
        parser.error(f"there is no campaign {', '.join(unknown)}; there is {', '.join(CAMPAIGNS)}")
    return found


def main() -> int:
    given = arguments()
    table = Table("campaign", "inputs", *(kind.value for kind in Kind), "seconds", caption=f"seed {given.seed}")
    failed = False
    for name in given.campaigns or CAMPAIGNS:
        began, found, numbers = time.monotonic(), Counter[Outcome](), range(given.first, given.first + given.count)
        made = outcomes(name, CAMPAIGNS[name].campaign(), numbers, given.seed)
        for i, outcome in zip(numbers, track(made, name, len(numbers), console=console), strict=False):
            found[outcome] += 1
            if outcome.kind is not Kind.SURVIVED and found[outcome] <= 3:
                console.print(f"{name} {i}: {outcome.kind.value}: {outcome.said}", markup=False, soft_wrap=True)
            if time.monotonic() - began > 60 * given.minutes:
                break
        kinds = Counter({kind: sum(n for o, n in found.items() if o.kind is kind) for kind in Kind})
        failed |= kinds[Kind.SURVIVED] < found.total()
        counts = (f"{kinds[kind]:,}" for kind in Kind)
        table.add_row(name, f"{found.total():,}", *counts, f"{time.monotonic() - began:.0f}")
        said = (f"{said} {n:,}" for (kind, said), n in found.most_common(24) if kind is Kind.SURVIVED)
        console.print(f"{name}: {', '.join(said)}", markup=False, highlight=False)
    console.print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
