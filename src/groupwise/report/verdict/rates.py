"""Learning rates as the updates used them, beside what the plan says and what a run needs.

Rates are settings, not measurements: every sentence states a fact, and thresholds only say from when it matters.

    other writer    the updates used another rate than the plan's table gives: a constant that was not constant, a
                    schedule that never moved, a peak that was passed or missed by half in a finished run
    group 0 only    without a plan: the first group's rate moved, the others' stood
    ended at 0      a rate of 0 for the last 3 % of the steps and more (or below 1e-3 of its peak for 20 %)
    fell at once    below 1 % of its peak within the first third of the run, and never back
    warmup          still rising at the last step of a finished run
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Final

from groupwise.records import Series
from groupwise.report.document import Sentence
from groupwise.report.numbers import formatted, percent, quoted
from groupwise.report.plan_table import constant, peak
from groupwise.report.reading import Reading

ENOUGH: Final = 20
ZERO_TAIL: Final = 0.03
MANY: Final = 15
"""More drops than this are no plateau's."""
LOW: Final = 1e-3
LOW_TAIL: Final = 0.2
COLLAPSED: Final = 0.01
EARLY: Final = 1 / 3
MISSED: Final = 0.5
OFF: Final = 0.01
_HOW: Final = "Something else writes the rates: a second scheduler, a callback, or a loop of its own."


def rates(reading: Reading) -> Iterator[Sentence]:
    """Every sentence on learning rates that holds."""
    found = {group: series for group, series in reading.values("lr").items() if max(series.values) > 0}
    if reading.length < ENOUGH or not found:
        return
    yield from _other_writer(reading, found)
    yield from _first_only(reading, found)
    yield from _ended(reading, found)
    yield from _collapsed(reading, found)
    yield from _warmup(reading, found)


def _other_writer(reading: Reading, found: Mapping[str, Series]) -> Iterator[Sentence]:
    """What the table of the plan says against what was used; `lr_planned` too, where the records have it."""
    wrong = {group: why for group, series in found.items() if (why := _deviation(reading, group, series))}
    by_kind: dict[str, list[str]] = {}
    for group, (kind, _) in wrong.items():
        by_kind.setdefault(kind, []).append(group)
    for kind, groups in by_kind.items():
        text = wrong[groups[0]][1]
        yield Sentence("rate-other", "look", f"The learning rate of {quoted(groups)} {kind}", text, "schedules")


def _deviation(reading: Reading, group: str, series: Series) -> tuple[str, str] | None:
    planned = reading.values("lr_planned").get(group)
    if planned is not None:
        used = dict(zip(*series, strict=True))
        off = [(step, value, used[step]) for step, value in zip(*planned, strict=True) if step in used]
        off = [(step, value, was) for step, value, was in off if abs(was - value) > OFF * max(abs(value), abs(was))]
        if off:
            step, value, was = off[0]
            return "was not the plan's", f"At step {step:,} it was {formatted(was)}, not {formatted(value)}. {_HOW}"
    return _against(reading.planned.get(group, {}).get("lr", ""), series, reading)


def _against(cell: str, series: Series, reading: Reading) -> tuple[str, str] | None:
    low, high = min(series.values), max(series.values)
    value, top = constant(cell), peak(cell)
    if value is not None and max(abs(low - value), abs(high - value)) > OFF * value:
        return (
            "was not the plan's",
            f"The plan has the constant {cell}; the updates used {formatted(low)} to {formatted(high)}. {_HOW}",
        )
    if top is None:
        return None
    if high > (1 + OFF) * top:
        return "was not the plan's", f"The plan has {cell}; the updates used up to {formatted(high)}. {_HOW}"
    total = reading.run.header.total_steps
    if total is None or reading.steps[-1] + 1 < 0.9 * total:
        return None
    if low == high:
        text = f"It was {formatted(low)} at every step, and the plan has {cell}. Its scheduler never stepped."
        return "never moved", text
    if high < MISSED * top:
        return "was not the plan's", f"The plan has {cell}; the updates used no more than {formatted(high)}. {_HOW}"
    return None


def _first_only(reading: Reading, found: Mapping[str, Series]) -> Iterator[Sentence]:
    names = list(found)
    if reading.planned or len(names) < 2 or names[0] != reading.groups[0]:
        return
    first, others = found[names[0]].values, [found[name] for name in names[1:]]
    if max(first) > 1.5 * min(first) and all(max(series.values) == min(series.values) for series in others):
        text = (
            f"It went from {formatted(first[0])} to {formatted(first[-1])}, while {quoted(names[1:])} stayed at "
            f"{formatted(others[0].values[0])} throughout: a loop that writes `param_groups[0]`?"
        )
        yield Sentence("rate-first", "look", f"Only the learning rate of '{names[0]}' was scheduled", text, "schedules")


def _ended(reading: Reading, found: Mapping[str, Series]) -> Iterator[Sentence]:
    last = reading.steps[-1]
    begins = {group: _below(series, 0.0, last, ZERO_TAIL, reading.length) for group, series in found.items()}
    zero = {group: begin for group, begin in begins.items() if begin is not None}
    if zero:
        begin, steps = min(zero.values()), last + 1 - min(zero.values())
        total = reading.run.header.total_steps
        end = f" (`total_steps` is {total:,})" if total is not None else ""
        text = (
            f"The last {steps:,} of {reading.length:,} steps ({percent(steps / reading.length)}) "
            f"changed nothing there{end}: "
            "the run outlived its schedule."
        )
        yield Sentence(
            "rate-zero",
            "look",
            f"The learning rate of {quoted(list(zero))} is 0 from step {begin:,} on",
            text,
            "schedules",
        )
        return
    lows = {
        group: _below(series, LOW * max(series.values), last, LOW_TAIL, reading.length)
        for group, series in found.items()
    }
    low = {group: begin for group, begin in lows.items() if begin is not None}
    if low:
        begin = min(low.values())
        text = (
            f"For the last {percent((last + 1 - begin) / reading.length)} of the steps it is below a "
            "thousandth of its peak."
        )
        yield Sentence(
            "rate-low",
            "look",
            f"The learning rate of {quoted(list(low))} is next to 0 from step {begin:,} on",
            text,
            "schedules",
        )


def _collapsed(reading: Reading, found: Mapping[str, Series]) -> Iterator[Sentence]:
    whole = max(reading.run.header.total_steps or 0, reading.length)
    fell: dict[str, int] = {}
    for group, series in found.items():
        begin = _below(series, COLLAPSED * max(series.values), reading.steps[-1], 0.0, reading.length)
        if begin is not None and begin - reading.steps[0] < EARLY * whole and reading.length >= EARLY * whole:
            fell[group] = begin
    if fell:
        group = min(fell, key=fell.__getitem__)
        values, drops = found[group].values, _drops(found[group])
        jumps = _jumps(drops)
        text = (
            f"From {formatted(max(values))} to {formatted(values[-1])}{jumps}: most of the run was "
            "trained at next to nothing."
        )
        head = (
            f"The learning rate of {quoted(list(fell))} fell below 1 % of its peak by step {fell[group]:,} of {whole:,}"
        )
        yield Sentence("rate-collapsed", "look", head, text, "schedules")


def _warmup(reading: Reading, found: Mapping[str, Series]) -> Iterator[Sentence]:
    rising = [group for group, series in found.items() if _still_rises(series)]
    if rising and reading.finished:
        values = found[rising[0]].values
        text = (
            f"It went from {formatted(values[0])} to {formatted(values[-1])} at the last step: the warmup "
            "is longer than the run."
        )
        yield Sentence(
            "rate-warmup",
            "look",
            f"The learning rate of {quoted(rising)} was still rising at the end",
            text,
            "schedules",
        )


def _below(series: Series, bound: float, last: int, tail: float, length: int) -> int | None:
    """The step from which the values stay at or below a bound to the end, if that is a part `tail` of the run and
    more.
    """
    at = len(series.values)
    while at > 0 and series.values[at - 1] <= bound:
        at -= 1
    if at in (0, len(series.values)):
        return None
    steps = last + 1 - series.steps[at]
    return series.steps[at] if steps >= max(tail * length, 5) else None


def _jumps(drops: int) -> str:
    if drops > MANY:
        return f", in {drops} falls (a decay that was meant for epochs, or a second scheduler, does that)"
    return f", in {drops} jumps (a plateau that fires at once does that)" if drops else ""


def _drops(series: Series) -> int:
    """How often a rate that stood for a while fell by a tenth and more, at once; 0 where it mostly slides."""
    pairs = list(itertools.pairwise(series.values))
    changes = sum(a != b for a, b in pairs)
    drops = sum(b < 0.9 * a for a, b in pairs)
    return drops if drops >= 0.9 * changes else 0


def _still_rises(series: Series) -> bool:
    values = series.values
    half = values[len(values) // 2 :]
    rises = all(a <= b for a, b in itertools.pairwise(values))
    return len(values) >= ENOUGH and rises and half[-1] > 1.1 * half[0] and values[-1] > values[-2]
