"""All that `docs/performance.md` publishes:  python -m benchmarks [--only NAME …] [--quick] [--write]

The benchmarks run one after the other, each a file of this package with a function `tables`. What they find is
printed; `--write` puts it on the page, too, once all have run. Times are medians, ratios are medians over the rounds of
races in one process, ± half the distance between their quartiles, on one thread. `--quick` shows in seconds that
everything runs.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table as Drawn

from benchmarks.measure import Scale, Table
from benchmarks.page import PAGE, machine, rewrite

NAMES = (
    "control-plane",
    "step",
    "cuda",
    "keras-step",
    "clip",
    "schedule",
    "resolve",
    "saving",
    "look",
    "growth",
    "imports",
    "observe",
    "balance",
    "solvers",
)
THREADS = 1


def measured(names: Iterable[str], scale: Scale, console: Console) -> dict[str, list[Table]]:
    """Run the benchmarks and say what they find as they go."""
    import torch

    torch.set_num_threads(THREADS)
    chosen, found = [*names], {}
    for i, name in enumerate(chosen, 1):
        began = time.perf_counter()
        console.print(f"[{i}/{len(chosen)}] {name}", markup=False, style="bold")
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        found[name] = []
        for table in module.tables(replace(scale, say=lambda what: console.print(f"  {what}", markup=False))):
            found[name].append(table)
            console.print(_drawn(table))
        console.print(f"{time.perf_counter() - began:.0f} s")
    return found


def _drawn(table: Table) -> Drawn:
    drawn = Drawn(title=table.title, title_justify="left", title_style="bold")
    for i, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if i == 0 else "right")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--quick", action="store_true", help="seconds in place of minutes, for numbers that mean nothing"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    given = parser.parse_args(arguments)
    if given.quick and given.write:
        parser.error("--quick measures nothing that could be written")
    found = measured(given.only, Scale(given.quick), Console(width=160, highlight=False))
    if given.write:
        rewrite(PAGE, found, machine(THREADS))


if __name__ == "__main__":
    main()
