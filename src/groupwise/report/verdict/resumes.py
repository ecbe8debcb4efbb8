"""What changed when a run was resumed: the loss, the rates, the size of an effective step.

loss     no record of the ten after lies inside the range of the ten before (one run in 92,000 by chance), and the
         level is 1.3 times as high
rate     changed by a factor of 1.5 and more from the last step before to one of the first three after, and not on the
way there state    an effective step of Adam that was below 0.5 is above 0.7 and three times as large at the first
         record after: that is what its first step without state comes to
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from typing import Final

from groupwise.records import Series
from groupwise.report.document import Sentence
from groupwise.report.numbers import finite, formatted, median, quoted
from groupwise.report.reading import Reading

AROUND: Final = 10
HIGHER: Final = 1.3
RATE: Final = 1.5
SOON: Final = 3
FRESH: Final = 0.7
BEFORE: Final = 0.5


def resumes(reading: Reading) -> Iterator[Sentence]:
    """For each resume what it changed."""
    for event in reading.run.events:
        if event.event == "resumed":
            yield from _state(reading, event.step)
            yield from _rate(reading, event.step)
            yield from _loss(reading, event.step)


def _loss(reading: Reading, step: int) -> Iterator[Sentence]:
    named = {f"'{name}'" if name != "loss" else "The loss": series for name, series in reading.losses.items()}
    named |= {f"The loss of '{task}'": series for task, series in reading.tasks("loss").items()}
    for what, series in named.items():
        before, after = _sides(series, step)
        if (
            min(len(before), len(after)) >= 5
            and min(after) > max(before)
            and median(after) > HIGHER * median(before) > 0
        ):
            text = (
                f"The {len(before)} records before have the median {formatted(median(before))}, the "
                f"{len(after)} after it "
                f"{formatted(median(after))}: weights, the optimizer's state or the data are not "
                "those that the run left."
            )
            head = (
                f"{what} jumped from {formatted(median(before))} to {formatted(median(after))} at the "
                f"resume (step {step:,})"
            )
            yield Sentence("resume-loss", "look", head, text, "losses")
            return


def _rate(reading: Reading, step: int) -> Iterator[Sentence]:
    jumped: dict[str, tuple[float, float]] = {}
    for group, series in reading.values("lr").items():
        first, values = bisect.bisect_left(series.steps, step), series.values
        for at in range(first, min(first + SOON, len(values))):
            if first > 1 and min(values[first - 2 : at + 1]) > 0:
                there, before = (abs(math.log(values[i]) - math.log(values[i - 1])) for i in (at, first - 1))
                if there > math.log(RATE) > before:
                    jumped.setdefault(group, (values[at - 1], values[at]))
    if jumped:
        (group, (was, now)), *_ = jumped.items()
        text = f"In '{group}' from {formatted(was)} to {formatted(now)}: the schedule did not go on where it was left."
        yield Sentence(
            "resume-rate",
            "look",
            f"The learning rate of {quoted(list(jumped))} jumped at the resume (step {step:,})",
            text,
            "schedules",
        )


def _state(reading: Reading, step: int) -> Iterator[Sentence]:
    lost: dict[str, tuple[float, float]] = {}
    for group, series in reading.statistic("step_size").items():
        before, after = _sides(series, step)
        small = bool(before and after) and reading.algorithm(group).family == "Adam" and median(before) < BEFORE
        if small and after[0] > max(FRESH, 3 * max(before)):
            lost[group] = (median(before), after[0])
    if lost:
        (group, (was, now)), *_ = lost.items()
        text = (
            f"The effective step of an entry of '{group}' was {formatted(was)} of the learning rate "
            f"before and {formatted(now)} "
            "at the first record after: what Adam does without its state."
        )
        yield Sentence(
            "resume-state",
            "look",
            f"The optimizer's state of {quoted(list(lost))} was lost at the resume (step {step:,})",
            text,
            "steps",
        )


def _sides(series: Series, step: int) -> tuple[list[float], list[float]]:
    at = bisect.bisect_left(series.steps, step)
    return finite(series.values[max(at - AROUND, 0) : at]), finite(series.values[at : at + AROUND])
