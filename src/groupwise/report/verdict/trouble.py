"""What went wrong or is not whole: values that are not finite, skipped updates, spikes, tensors without a gradient.

skipped     by a GradScaler; look at it from 5 % of the steps on
spike       a gradient norm of more than 100 times its median, after the first 20 % of the records
unfinished  the records end before `total_steps`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

from groupwise._spelling import counted
from groupwise.records import Series
from groupwise.report.document import Sentence
from groupwise.report.numbers import finite, formatted, median, percent, quoted
from groupwise.report.panels.gradients import later
from groupwise.report.reading import Reading

SKIPPED: Final = 0.05
SPIKE: Final = 100.0
ENOUGH: Final = 20


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
        yield Sentence(
            "nonfinite", "look", "Values were not finite", text, "events" if reading.run.events else "gradients"
        )
    elif len(reading.run) and bad:
        text = f"No gradient and no loss in {len(reading.run):,} records was nan or infinite."
        yield Sentence("finite", "fine", "Every value was finite", text, "gradients")


def skipped(reading: Reading) -> Iterator[Sentence]:
    """Updates that a GradScaler left out."""
    count = sum(event.event == "skipped" for event in reading.run.events)
    steps = max(len(reading.run), count)
    if count:
        often = count > SKIPPED * steps
        part = f"{percent(count / steps)} of {steps:,} steps"
        text = f"That is {part}; a few at the start, while a GradScaler finds its scale, are usual."
        head = f"{counted(count, 'update')} {'was' if count == 1 else 'were'} skipped"
        yield Sentence("skipped", "look" if often else "note", head, text, "events")


def spikes(reading: Reading) -> Iterator[Sentence]:
    """Groups with a gradient far above its usual size."""
    found = {group: _spike(series) for group, series in reading.statistic("grad_norm").items()}
    high = sorted((group for group in found if found[group] > SPIKE), key=lambda group: -found[group])
    if high:
        text = f"In '{high[0]}' the largest norm after the start is {formatted(found[high[0]])} times the median."
        yield Sentence("spike", "look", f"The gradient of {quoted(high)} spiked", text, "gradients")


def orphans(reading: Reading) -> Iterator[Sentence]:
    """Groups of which some tensors never had a gradient."""
    tensors = {group.name: group.tensors for group in reading.run.groups}
    absent = {group: int(min(finite(found.values), default=0)) for group, found in reading.statistic("no_grad").items()}
    partly = [group for group, count in absent.items() if 0 < count < tensors.get(group, 0)]
    if partly:
        told = ", ".join(f"{absent[group]} of {tensors[group]} in '{group}'" for group in partly[:4])
        text = f"{told}: no loss reaches them, or they are frozen."
        yield Sentence("orphans", "note", "Some tensors never had a gradient", text, "gradients")


def unfinished(reading: Reading) -> Iterator[Sentence]:
    """A run that ended, or was read, before its end."""
    total, steps = reading.run.header.total_steps, reading.steps
    if total is None or not len(steps) or steps[-1] >= total - 1 or _nearly(reading, total):
        return
    text = f"The last record is of step {steps[-1]:,}: it was stopped, or it still runs. What follows is of this part."
    yield Sentence(
        "unfinished",
        "note",
        f"The records cover {percent((steps[-1] + 1) / total)} of {total:,} steps",
        text,
        "schedules",
    )


def noise(reading: Reading) -> Iterator[Sentence]:
    """What the gradient noise scale says of the batch."""
    if reading.noise is not None:
        scale = median(later(reading.noise))
        size = formatted(scale)
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


def _spike(series: Series) -> float:
    values = finite(later(series))
    middle = median(values)
    return max(values) / middle if len(values) >= ENOUGH and middle > 0 else 0.0
