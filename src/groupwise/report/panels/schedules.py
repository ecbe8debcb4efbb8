"""Schedules, groups and time: every hyperparameter that changed or differs, as the updates really used it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable

from groupwise.records import Series
from groupwise.report.document import Figure, Panel, Table
from groupwise.report.numbers import finite, formatted
from groupwise.report.panels.plots import MOST, Plot, beyond, over_time
from groupwise.report.reading import ByName, Reading

_FACTOR = "rate_factor"
"""What measured factors multiplied a group's rate by, as optimizers of a plan leave it in the group."""


def panel(reading: Reading) -> Panel:
    """A plot for `lr` and for every hyperparameter that moves, and one table of those that stand."""
    figures: list[Figure] = []
    constant: dict[str, ByName] = {}
    for name in reading.hyperparameters:
        series = reading.values(name)
        if name == "lr" or any(_moves(found.values) for found in series.values()):
            figures += over_time(
                {group: stepped(found) for group, found in series.items()},
                Plot(name, name, logarithmic=_spread(series), heat=True),
            )
            figures += _in_force(reading) if name == "lr" else ()
        else:
            constant[name] = series
    if constant:
        figures.append(_constants(constant))
    lead = "The values that the updates used, after every factor: what the schedule really was, for each group."
    if _FACTOR in reading.hyperparameters:
        lead += f" What the plan has measured in the step is {_FACTOR}, beside lr."
    missing = reading.no_record("hold no hyperparameters", ": leave the observer's `values` on.") if not figures else ""
    return Panel("schedules", "Schedules: groups and time", lead, tuple(figures), missing)


def _in_force(reading: Reading) -> tuple[Figure, ...]:
    """The rates of groups whose rates follow measurements, with what these made of them."""
    rates, factors = reading.values("lr"), reading.values(_FACTOR) if _FACTOR in reading.hyperparameters else {}
    series = {group: product(rates[group], own) for group, own in factors.items() if group in rates}
    if not series:
        return ()
    return over_time(series, Plot(f"lr × {_FACTOR}, the rate in force", "lr", logarithmic=_spread(series)))


def product(one: Series, other: Series) -> Series:
    """Two values that stand until they are written again, multiplied wherever either was; from where both begin."""
    written = [dict(zip(*series, strict=True)) for series in (one, other)]
    steps, values, now = array("q"), array("d"), [math.nan, math.nan]
    for step in sorted({*written[0], *written[1]}):
        now = [held.get(step, before) for held, before in zip(written, now, strict=True)]
        if not math.isnan(now[0] + now[1]):
            steps.append(step)
            values.append(now[0] * now[1])
    return Series(steps, values)


def stepped(series: Series) -> Series:
    """A value that was written on change stands until the next one: its line has a corner there, not a slope."""
    steps, values = array("q"), array("d")
    for i, (step, value) in enumerate(zip(*series, strict=True)):
        if i and step - steps[-1] > 1 and value != values[-1]:
            steps.append(step - 1)
            values.append(values[-1])
        steps.append(step)
        values.append(value)
    return Series(steps, values)


def _moves(values: Iterable[float]) -> bool:
    return len(set(values)) > 1


def _spread(series: ByName) -> bool:
    """Whether the groups' highest values are more than a decade apart."""
    peaks = [max(finite(found.values), default=0.0) for found in series.values()]
    positive = [peak for peak in peaks if peak > 0]
    return bool(positive) and max(positive) > 10 * min(positive)


def _constants(constant: dict[str, ByName]) -> Table:
    groups = list(dict.fromkeys(group for series in constant.values() for group in series))
    rows = tuple(
        (group, *(formatted(series[group].values[0]) if group in series else "-" for series in constant.values()))
        for group in groups[:MOST]
    )
    return Table("Constant values", ("group", *constant), rows, beyond(len(groups)))
