"""What went wrong or is not whole: values that are not finite, skipped updates, spikes, tensors without a gradient.

warnings     what the program itself recorded as an event "warning"
skipped      by a GradScaler; to be looked at from 5 % of the steps on
spike        a gradient norm above 100 times the median of the 20 records around it, after the first 20 % of the
             records. Of a norm whose logarithm varies by 1 (a factor of 2.7) one record in 500,000 does
unfinished   the records end before `total_steps`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

from groupwise._spelling import counted
from groupwise.records import Series
from groupwise.report.document import Sentence
from groupwise.report.numbers import finite, formatted, median, percent, quoted
from groupwise.report.reading import Reading, later
from groupwise.report.verdict.pace import without_gradient

SKIPPED: Final = 0.05
SPIKE: Final = 100.0
AROUND: Final = 10
ENOUGH: Final = 20
MOST: Final = 5


def nonfinite(reading: Reading) -> Iterator[Sentence]:
    """The first value that was nan or infinite, and where; or that there was none."""
    bad = {f"the gradient of '{group}'": _first(series, lambda value: value != 0)
           for group, series in reading.statistic("nonfinite").items()}  # fmt: skip
    for what, found in (
        ("the norm of", reading.statistic("grad_norm")),
        ("task", reading.tasks("loss")),
        ("", reading.scalars),
    ):
        bad |= {f"{what} '{name}'".strip(): _first(series, _not_finite) for name, series in found.items()}
    steps = {what: step for what, step in bad.items() if step is not None}
    if steps:
        first = min(steps, key=steps.__getitem__)
        others = f", and {len(steps) - 1} more after it" if len(steps) > 1 else ""
        text = f"First in {first} at step {steps[first]:,}{others}. What follows from it cannot be trusted."
        panel = "events" if reading.run.events else "gradients"
        yield Sentence("nonfinite", "look", f"Values were not finite from step {steps[first]:,} on", text, panel)
    elif len(reading.run) and bad:
        text = f"No gradient and no loss in {len(reading.run):,} records was nan or infinite."
        yield Sentence("finite", "fine", "Every value was finite", text, "gradients")


def warnings(reading: Reading) -> Iterator[Sentence]:
    """What the program recorded as a warning, each text once."""
    found: dict[str, int] = {}
    for event in reading.run.events:
        if event.event == "warning":
            found.setdefault(event.text, event.step)
    for text, step in list(found.items())[:MOST]:
        head, _, rest = text.partition(". ")
        yield Sentence("warning", "look", head.rstrip("."), f"{rest} Recorded at step {step:,}.".strip(), "events")


def skipped(reading: Reading) -> Iterator[Sentence]:
    """Updates that a GradScaler left out."""
    count = sum(event.event == "skipped" for event in reading.run.events)
    steps = max(len(reading.run) + count, reading.length)  # a GradScaler's are no steps of the optimizer
    if count:
        often = count > SKIPPED * steps
        part = f"{percent(count / steps)} of {steps:,} updates"
        text = f"That is {part}; a few at the start, while a GradScaler finds its scale, are usual."
        head = f"{counted(count, 'update')} {'was' if count == 1 else 'were'} skipped"
        yield Sentence("skipped", "look" if often else "note", head, text, "events")


def spikes(reading: Reading) -> Iterator[Sentence]:
    """Groups with a gradient far above its usual size."""
    found = {group: _spike(series) for group, series in reading.statistic("grad_norm").items()}
    high = sorted((group for group in found if found[group][0] > SPIKE), key=lambda group: -found[group][0])
    if high:
        times, step = found[high[0]]
        text = (
            f"In '{high[0]}' the norm of step {step:,} is {formatted(times)} times the median of the records around it."
        )
        yield Sentence(
            "spike", "look", f"The gradient of {quoted(high)} spiked ({formatted(times)} ×)", text, "gradients"
        )


def orphans(reading: Reading) -> Iterator[Sentence]:
    """Groups of which some tensors never had a gradient."""
    tensors = {group.name: group.tensors for group in reading.run.groups}
    absent = {group: int(min(finite(found.values), default=0)) for group, found in reading.statistic("no_grad").items()}
    lasting = {g: n for g, n in absent.items() if len(reading.statistic("no_grad")[g].values) >= 0.9 * len(reading.run)}
    partly = [g for g, count in lasting.items() if 0 < count < tensors.get(g, 0) and not without_gradient(reading, g)]
    if partly:
        frozen = {group.name: group.frozen for group in reading.run.groups}
        known = [group for group in partly if absent[group] <= frozen[group]]
        counts = ", ".join(f"{absent[group]} of {tensors[group]} in '{group}'" for group in partly[:4])
        why = "they are frozen" if known == partly else "no loss reaches them, or they are frozen"
        text = f"{counts}: {why}."
        yield Sentence("orphans", "note", "Some tensors never had a gradient", text, "gradients")


def unfinished(reading: Reading) -> Iterator[Sentence]:
    """A run that ended, or was read, before its end."""
    total, steps = reading.run.header.total_steps, reading.steps
    if total is None or not len(steps) or steps[-1] >= total - 1 or _nearly(reading, total):
        return
    text = f"The last record is of step {steps[-1]:,}: it was stopped, or it still runs. What follows is of this part."
    part = percent((steps[-1] + 1) / total)
    yield Sentence("unfinished", "note", f"The records cover {part} of {total:,} steps", text, "schedules")


def noise(reading: Reading) -> Iterator[Sentence]:
    """What the gradient noise scale says of the batch."""
    if reading.noise is not None:
        size = formatted(median(later(reading.noise)))
        text = f"A median of {size} samples. Batches far below it are mostly noise; the estimate itself is noisy."
        yield Sentence("noise", "note", "Gradient noise scale", text, "noise")


def _nearly(reading: Reading, total: int) -> bool:
    """Whether the run said that it is done, or the next record would lie beyond the end."""
    steps = reading.steps
    return reading.finished or (len(steps) > 1 and 2 * steps[-1] - steps[-2] >= total)


def _first(series: Series, bad: Callable[[float], bool]) -> int | None:
    return next((step for step, value in zip(*series, strict=True) if bad(value)), None)


def _not_finite(value: float) -> bool:
    return not math.isfinite(value)


def _spike(series: Series) -> tuple[float, int]:
    """How far the largest norm stands out of those around it, and its step."""
    values = series.values
    begin = int(0.2 * len(values))
    best = (0.0, 0)
    for at in range(begin, len(values)) if len(values) >= ENOUGH else ():
        if math.isfinite(values[at]) and values[at] > best[0]:
            around = median([*values[max(at - AROUND, 0) : at], *values[at + 1 : at + 1 + AROUND]])
            if around > 0 and values[at] > SPIKE * around and values[at] / around > best[0]:
                best = values[at] / around, series.steps[at]
    return best
