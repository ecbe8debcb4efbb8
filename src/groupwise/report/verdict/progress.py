"""What learned and what did not, from losses and from contributions.

Beginning and end are medians of the first 5 % and of the last 10 % of the records, at least one each. A loss has fallen
(or risen) if the two differ by at least 5 % of the beginning and by twice the spread of the end (median absolute
deviation); otherwise the change cannot be told from noise, and the sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from groupwise.records import Series
from groupwise.report.document import Sentence
from groupwise.report.numbers import finite, formatted, median, percent, quoted, total
from groupwise.report.reading import Reading

BEGINNING: Final = 0.05
END: Final = 0.1
CHANGED: Final = 0.05
NOISE: Final = 2.0
ENOUGH: Final = 10
"""Fewer records than this are too few to speak of a course."""
RAISED: Final = 0.05
"""A group's updates raised the loss if they account for this share of all contributions, with the wrong sign."""


@final
@dataclass(frozen=True)
class Course:
    """Where a series began, where it ended, and how much its end varies."""

    begin: float
    end: float
    spread: float
    records: int

    @property
    def fell(self) -> bool:
        """By more than 5 % and more than noise."""
        return self._clear and self.end < self.begin

    @property
    def rose(self) -> bool:
        """By more than 5 % and more than noise."""
        return self._clear and self.end > self.begin

    @property
    def _clear(self) -> bool:
        change = abs(self.end - self.begin)
        return change >= CHANGED * abs(self.begin) and change > NOISE * self.spread

    def __str__(self) -> str:
        return f"from {formatted(self.begin)} to {formatted(self.end)}"


def course(values: Sequence[float]) -> Course | None:
    """The course of the finite values; None of fewer than ten."""
    numbers = finite(values)
    if len(numbers) < ENOUGH:
        return None
    last = numbers[-max(int(END * len(numbers)), 1) :]
    end = median(last)
    begin = median(numbers[: max(int(BEGINNING * len(numbers)), 1)])
    return Course(begin, end, median(abs(value - end) for value in last), len(numbers))


def loss(reading: Reading) -> Iterator[Sentence]:
    """What the logged `loss` did."""
    series = reading.scalars.get("loss")
    found = course(series.values) if series else None
    if found is None:
        return
    where = f"Medians of the first {percent(BEGINNING)} and the last {percent(END)} of {found.records:,} records."
    if found.fell:
        yield Sentence("loss", "fine", f"The loss fell {found}", where, "losses")
    elif found.rose:
        text = f"It ended higher than it began. {where}"
        yield Sentence("loss", "look", f"The loss rose {found}", text, "losses")
    else:
        text = f"It went {found}: less than 5 %, or no more than it varies at its end. {where}"
        yield Sentence("loss", "look", "The loss did not clearly change", text, "losses")


def tasks(reading: Reading) -> Iterator[Sentence]:
    """Which tasks learned, and which did not."""
    found = {task: course(series.values) for task, series in reading.tasks("loss").items()}
    courses = {task: it for task, it in found.items() if it is not None}
    learned = [task for task, it in courses.items() if it.fell]
    if learned:
        text = f"The loss of {_each(courses, learned)}."
        yield Sentence("task-learned", "fine", f"{quoted(learned)} learned", text, "losses")
    rose = [task for task, it in courses.items() if it.rose]
    if rose:
        text = f"The loss of {_each(courses, rose)}: it ended higher than it began."
        yield Sentence("task-worse", "look", f"{quoted(rose)} got worse", text, "losses")
    rest = [task for task in courses if task not in learned and task not in rose]
    if rest:
        text = f"The loss of {_each(courses, rest)}: a change of less than 5 %, or no more than it varies."
        yield Sentence("task-flat", "look", f"{quoted(rest)} did not clearly learn", text, "losses")


def contributions(reading: Reading) -> Iterator[Sentence]:
    """Which group lowered the loss most, and whose updates raised it."""
    totals = {group: total(found.values) for group, found in _contributions(reading).items()}
    lowered = total(max(each, 0.0) for each in totals.values())
    every = total(map(abs, totals.values()))
    if len(totals) > 1 and lowered > 0:
        most = max(totals, key=totals.__getitem__)
        part, records = percent(totals[most] / lowered), len(_contributions(reading)[most].values)
        text = (
            f"To first order, its updates account for {part} of what all groups took off the loss ({records} records)."
        )
        yield Sentence("contribution", "note", f"'{most}' lowered the loss most", text, "contributions")
    raised = [group for group, each in totals.items() if each < -RAISED * every]
    if raised:
        parts = ", ".join(percent(-totals[group] / every) for group in raised[:4])
        text = (
            f"Summed over the records, these updates raised it to first order ({parts} of all contributions). "
            "Momentum, weight decay or a balanced gradient can do that; so can a step that is too long."
        )
        yield Sentence(
            "contribution-negative", "look", f"{quoted(raised)} worked against the loss", text, "contributions"
        )


def _contributions(reading: Reading) -> dict[str, Series]:
    found = reading.statistic("contribution")
    return {group: series for group, series in found.items() if len(series.values) >= 3}


def _each(courses: dict[str, Course], names: Sequence[str]) -> str:
    shown = [f"'{name}' went {courses[name]}" for name in names[:6]]
    return "; of ".join(shown) + (f"; and {len(names) - 6} more" if len(names) > 6 else "")
