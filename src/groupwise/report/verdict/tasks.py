"""Between tasks: which owns a part of the model, which conflict, whose loss the updates raise.

Each is judged against independent tasks.

owns       the median share of the gradient norm (weights in use) is above 0.9, and 0.8 in all but a quarter of at least
           3 records. A share is no noise: T equally strong tasks have 1 / T each, and ratios of norms vary by some per
           cent from batch to batch.
drowns     its gradient is five times that of the next task in the middle of at least 3 records (without shares: its
           loss is 95 % of the weighted sum), and the loss of every other task fell by less than a fifth, and less than
           its own. A loss is no gradient, so the sentence says how to make sure.
conflict   gradients of unrelated tasks have a cosine around 0, negative in half of the records: a conflict needs so
           many negative ones that fair throws give them in less than 1 % of runs (shared among the pairs), and a median
           below -0.1. Now and then: agreement in general (by the same test), and -0.1 or less in a tenth of records.
raised     a balanced update raises an unrelated task's loss in half of the records at the worst: it needs more, by
           the same test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from groupwise.records import Series
from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import finite, formatted, median, percent, quantile, quoted, share
from groupwise.report.panels.conflicts import spelled
from groupwise.report.reading import ByName, Pair, Reading
from groupwise.report.trend import Course, half_tail
from groupwise.report.verdict.losses import courses
from groupwise.report.verdict.regularizers import regularizes

OWNS: Final = 0.9
OWNS_AT_LEAST: Final = 0.8
OWNS_RECORDS: Final = 3
DROWNS: Final = 0.95
TIMES: Final = 5.0
HARDLY: Final = 0.2
CHANCE: Final = 0.01
APART: Final = -0.1
CLEARLY: Final = -0.1
SOMETIMES: Final = 0.1
NEVER: Final = 8
"""Of so many records of unrelated tasks, none is negative in 0.4 % of runs."""


def owners(reading: Reading) -> Iterator[Sentence]:
    """Tasks that own groups which other tasks reach, too; or that none does."""
    shared = {task: _shared(groups, reading.shares, task) for task, groups in reading.shares.items()}
    owned = {task: [group for group, series in groups.items() if _owns(series)] for task, groups in shared.items()}
    for task, groups in owned.items():
        if groups:
            yield _owner(reading, task, {group: shared[task][group] for group in groups})
    medians = [(median(found.values), task, group) for task in shared for group, found in shared[task].items()]
    enough = any(len(found.values) >= OWNS_RECORDS for groups in shared.values() for found in groups.values())
    if medians and enough and max(medians)[0] <= OWNS_AT_LEAST:
        part, task, group = max(medians)
        text = f"The highest median share is {percent(part)} ('{task}' in '{group}')."
        yield Sentence("no-owner", "fine", "No task owns a shared group", text, "shares")


def _owner(reading: Reading, task: str, groups: ByName) -> Sentence:
    part = median(median(series.values) for series in groups.values())
    records = max(len(series.values) for series in groups.values())
    counted = "task weights included" if reading.weighted else "losses as they were given"
    others = [name for name in reading.shares if name != task]
    text = (
        f"The median of its share of the gradient norm ({counted}) is {percent(part)} in {records} records: "
        f"{quoted(others)} hardly steer{'s' * (len(others) == 1)} these groups. A weight of 1 / its first loss, or a "
        "balancing method that equalises norms, gives the others a say."
    )
    return Sentence("owner", "look", f"Task '{task}' owns {quoted(list(groups))} ({percent(part)})", text, "shares")


def drowned(reading: Reading) -> Iterator[Sentence]:
    """A task beside which others hardly learn: by its gradient, where shares are recorded, else by its loss."""
    found = courses(reading) if len(reading.tasks("loss")) > 1 else {}
    loud, how, text = _loudest(reading, found) if found else ("", "", "")
    if not loud:
        return
    others = {task: it for task, it in found.items() if task != loud and not regularizes(task)}
    hardly = [task for task, it in others.items() if it.change > -HARDLY and _less(it, found[loud])]
    owned = any(_owns(series) for series in _shared(reading.shares.get(loud, {}), reading.shares, loud).values())
    if hardly and len(hardly) == len(others) and not owned:
        falls = ", ".join(f"'{task}' went {found[task]}" for task in hardly[:4])
        head = f"Task '{loud}' drowns {quoted(hardly)} ({how})"
        yield Sentence(
            "drowned", "look", head, f"{falls}: none fell by a fifth. {text}", "shares" if reading.shares else "losses"
        )


def _loudest(reading: Reading, found: Mapping[str, Course]) -> tuple[str, str, str]:
    """The task that is much louder than any other, by how much, and what it rests on; nothing if there is none."""
    if reading.shares:
        times = {task: _times(reading, task) for task in reading.shares if task in found}
        loud = max(times, key=times.__getitem__, default="")
        if loud and times[loud] >= TIMES:
            how = f"{formatted(times[loud])} times their gradient"
            return loud, how, "A weight of 1 / its first loss, or a method that equalises norms, gives them a say."
        return "", "", ""
    weights = reading.tasks("weight")
    parts = {
        task: abs(median(weights[task].values) if task in weights else 1.0)
        * abs(median(reading.tasks("loss")[task].values))
        for task in found
    }
    loud, total = max(parts, key=parts.__getitem__), sum(parts.values())
    if not total > 0 or parts[loud] < DROWNS * total:
        return "", "", ""
    text = "A loss is no gradient"
    text += "." if reading.of_keras else ": `observer.tasks(losses)` before backward records the shares that decide it."
    return loud, f"{percent(parts[loud] / total)} of the sum", text


def _times(reading: Reading, task: str) -> float:
    """How many times a task's gradient is that of the next, in the middle, where that is most among shared groups."""
    ratios = [0.0]
    for group, series in _shared(reading.shares[task], reading.shares, task).items():
        others = [
            dict(zip(*o[group], strict=True)) for name, o in reading.shares.items() if name != task and group in o
        ]
        next_to = [(value, max(o.get(step, 0.0) for o in others)) for step, value in zip(*series, strict=True)]
        found = [value / other for value, other in next_to if other > 0]
        if len(found) >= OWNS_RECORDS:
            ratios.append(median(found))
    return max(ratios)


def conflicts(reading: Reading) -> Iterator[Sentence]:
    """Pairs of tasks that pull apart; or that none ever did."""
    found = {pair: finite(series.values) for pair, series in reading.cosines.items()}
    found = {pair: values for pair, values in found.items() if values}
    bound = CHANCE / max(len(found), 1)
    parts = {pair: share([value < 0 for value in values]) for pair, values in found.items()}
    written = 0
    for pair in sorted(found, key=lambda pair: -parts[pair]):
        values = found[pair]
        text = (
            f"Their gradients had a negative cosine in {percent(parts[pair])} of {len(values)} records (median "
            f"{formatted(median(values))}, lowest {formatted(min(values))}); unrelated tasks have one in 50 %."
        )
        often = _often(values, bound)
        if written < 4 and (often or _sometimes(values, bound)):
            written += 1
            head = f"{spelled(pair)} {'conflicted often' if often else 'conflicted now and then'}"
            tone: Tone = "look" if often and _costs(reading, pair) else "note"
            yield Sentence("conflict", tone, head, text, "conflicts")
    records = min((len(values) for values in found.values()), default=0)
    if records >= NEVER and not any(parts.values()):
        text = (
            f"No cosine between tasks was negative in {records} records: a method that acts on conflicts only "
            "(PCGrad and its kin) would have changed nothing there."
        )
        yield Sentence("no-conflict", "fine", "No two tasks ever conflicted", text, "conflicts")


def conflicting(reading: Reading) -> Iterator[Sentence]:
    """Tasks that the updates worked against, in more than half of the records."""
    steps_with_cosines = {step for series in reading.cosines.values() for step in series.steps}
    counts = Counter(task for _, tasks in reading.run.conflicting for task in tasks)
    records = max([len(steps_with_cosines) or len(reading.run), *counts.values()], default=0)
    for task, count in counts.most_common(4):
        if half_tail(count, records) < CHANCE / max(len(counts), 1):
            part = percent(count / records)
            text = (
                f"In {part} of {records} records the update raised its loss to first order; of an "
                "unrelated task, in 50 %."
            )
            tone: Tone = "note" if regularizes(task) else "look"
            yield Sentence(
                "conflicting",
                tone,
                f"Updates raised the loss of task '{task}' in {part} of the records",
                text,
                "conflicts",
            )


def _costs(reading: Reading, pair: Pair) -> bool:
    """Whether a conflict may have cost more than time: not where both losses fell, or one of the two regularises."""
    found = courses(reading)
    fell = all(task in found and found[task].direction == "fell" for task in pair)
    return not (fell or any(map(regularizes, pair)))


def _often(values: list[float], bound: float) -> bool:
    return half_tail(sum(value < 0 for value in values), len(values)) < bound and median(values) < APART


def _sometimes(values: list[float], bound: float) -> bool:
    agree = half_tail(sum(value > 0 for value in values), len(values)) < bound
    return agree and sum(value < CLEARLY for value in values) >= max(SOMETIMES * len(values), 2)


def _shared(groups: ByName, shares: Mapping[str, ByName], task: str) -> ByName:
    """The groups that another task reaches as well."""
    others = [found for name, found in shares.items() if name != task]
    return {
        group: series
        for group, series in groups.items()
        if any(any(value > 0 for value in other[group].values) for other in others if group in other)
    }


def _less(it: Course, loud: Course) -> bool:
    return it.change > loud.change or loud.direction != "fell"


def _owns(series: Series) -> bool:
    values = finite(series.values)
    return len(values) >= OWNS_RECORDS and median(values) > OWNS and quantile(values, 0.25) > OWNS_AT_LEAST
