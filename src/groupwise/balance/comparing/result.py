"""What a comparison found: numbers to read, a table to print, and sentences that the numbers bear out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from statistics import fmean, stdev
from typing import Any, final

from groupwise import _pickling
from groupwise.balance.comparing.training import Run
from groupwise.balance.method import Method

_GAP = "  "
_MOST_ERRORS = 4  # columns of a table; of more, the mean and the worst


def shown(method: Method) -> str:
    """A method with the arguments that differ from its defaults: `CAGrad(c=0.4)`."""
    stated = [f"{f.name.rstrip('_')}={getattr(method, f.name)!r}" for f in fields(method) if _differs(method, f)]
    return f"{method.name}({', '.join(stated)})"


def _differs(method: Method, field: Field[Any]) -> bool:
    return field.default is MISSING or bool(getattr(method, field.name) != field.default)


@final
@dataclass(frozen=True)
class Entry:
    """One contestant.

    Attributes:
        name, method: what was compared.
        updates: how many it was given.
        tries: how many runs it took to choose it, those that count included; 0 but for tuned weights.
        time, memory: of a step, over those of a step with equal weights.
        runs: one for each seed.
    """

    name: str
    method: Method
    updates: int
    tries: int
    time: float
    memory: float
    runs: tuple[Run, ...]

    @property
    def failed(self) -> str:
        """Why a run did not end, or nothing."""
        return next((run.failed for run in self.runs if run.failed), "")

    def errors(self, name: str) -> list[float]:
        """One error, seed by seed."""
        return [run.errors.get(name, math.nan) for run in self.runs]


@final
@_pickling.public("groupwise.balance:Comparison")
@dataclass(frozen=True)
class Comparison:
    """Every contestant; `str` is a table with the sentences below it.

    Attributes:
        entries: with equal weights first, tuned weights second, then the methods.
        seeds: what the runs were made from.
        equal, tuned: the names of the two entries that the methods are measured against.
    """

    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    equal: str
    tuned: str

    @property
    def names(self) -> list[str]:
        """The names of the errors."""
        return list(dict.fromkeys(name for entry in self.entries for run in entry.runs for name in run.errors))

    @property
    def conflicts(self) -> float:
        """The share of updates with a real conflict, over all runs."""
        shares = [run.conflicts for entry in self.entries for run in entry.runs if not math.isnan(run.conflicts)]
        return fmean(shares) if shares else math.nan

    def entry(self, name: str) -> Entry:
        """A contestant by name. Raises `KeyError` where there is none."""
        return {entry.name: entry for entry in self.entries}[name]

    def against_tuned(self, entry: Entry) -> list[float]:
        """The ratio of the errors to those with tuned weights, seed by seed: the geometric mean over errors."""
        tuned = self.entry(self.tuned)
        return [_ratio(ours, theirs) for ours, theirs in zip(entry.runs, tuned.runs, strict=True)]

    def verdicts(self) -> list[str]:
        """What the numbers bear out, one sentence each."""
        others = [entry for entry in self.entries if entry.name != self.tuned and entry.method != self._chosen]
        return [*self._about_conflict(), *map(self._about, others)]

    @property
    def _chosen(self) -> Method:
        """What tuning chose: it may be equal weights."""
        return self.entry(self.tuned).method

    def _about_conflict(self) -> list[str]:
        if self.conflicts > 0:
            return [f"The tasks were in conflict in {100 * self.conflicts:.0f} % of the updates looked at."]
        return ["The tasks were never in conflict in the updates looked at: there is nothing for a method to settle."]

    def _about(self, entry: Entry) -> str:
        if entry.failed:
            return f"{entry.name}: did not end: {entry.failed}"
        ratios = self.against_tuned(entry)
        if len(ratios) == 1:
            return f"{entry.name}: errors {_range(ratios)} those of tuned weights, but one seed proves nothing."
        better, worse = all(ratio < 1 for ratio in ratios), all(ratio > 1 for ratio in ratios)
        how = "better" if better else "worse" if worse else "neither better nor worse"
        return f"{entry.name}: errors {_range(ratios)} those of tuned weights: {how} in every seed."

    def __str__(self) -> str:
        heads = ["", "updates", *self._columns(self.entries[0]), "against tuned", "time", "memory", "conflict"]
        rows = [self._row(entry) for entry in self.entries]
        tuned = self.entry(self.tuned)
        tuning = f"Tuned: {shown(tuned.method)}, the best of {tuned.tries // len(self.seeds)} by {tuned.tries} runs."
        return "\n".join([*_aligned([heads, *rows]), "", tuning, *self.verdicts()])

    def _row(self, entry: Entry) -> list[str]:
        return [
            entry.name,
            str(entry.updates),
            *(_spread(values, 3) for values in self._columns(entry).values()),
            _range(self.against_tuned(entry)),
            f"{entry.time:.2f}",
            f"{entry.memory:.2f}",
            f"{100 * fmean(run.conflicts for run in entry.runs):.0f} %",
        ]

    def _columns(self, entry: Entry) -> Mapping[str, list[float]]:
        """The errors of a row, seed by seed; where there are many, their mean and the largest."""
        each = {name: entry.errors(name) for name in self.names}
        if len(each) <= _MOST_ERRORS:
            return each
        by_seed = list(zip(*each.values(), strict=True))
        return {f"mean of {len(each)}": list(map(fmean, by_seed)), "worst": list(map(max, by_seed))}


def _ratio(ours: Run, theirs: Run) -> float:
    """Errors that are zero on either side are left out."""
    pairs = [(ours.errors.get(name, 0.0), value) for name, value in theirs.errors.items()]
    logs = [math.log(own / value) for own, value in pairs if own > 0 and value > 0]
    return math.exp(fmean(logs)) if logs else math.nan


def _range(ratios: Sequence[float]) -> str:
    """`×1.10 (0.95 to 1.30)`: the geometric mean, and the lowest and the highest."""
    if any(math.isnan(ratio) for ratio in ratios):
        return "-"
    middle = math.exp(fmean(map(math.log, ratios)))
    return f"×{middle:.2f}" + (f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else "")


def _spread(values: Sequence[float], places: int) -> str:
    if any(math.isnan(value) for value in values):
        return "-"
    spread = f" ± {stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{places}f}{spread}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Names to the left, numbers to the right, a rule below the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        first, *rest = zip(row, widths, strict=True)
        yield _GAP.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()
        if number == 0:
            yield _GAP.join("─" * width for width in widths)
