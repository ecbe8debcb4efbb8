"""Between tasks: who is loud, who conflicts, who is hurt.

loud         share of the weighted gradient norm above 0.9 in each of at least 3 records, in a group that others reach
conflict     cosine below 0; often: in at least 30 % of the records
hurt         the balanced update raised the task's loss, to first order, in at least 10 % of the records
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from groupwise.records import Series
from groupwise.report.document import Sentence
from groupwise.report.numbers import finite, formatted, median, percent, quoted, share
from groupwise.report.panels.conflicts import spelled
from groupwise.report.reading import ByName, Reading

LOUD: Final = 0.9
LOUD_RECORDS: Final = 3
OFTEN: Final = 0.3
HURT: Final = 0.1


def loud(reading: Reading) -> Iterator[Sentence]:
    """Tasks that own groups which other tasks reach, too; or that none does."""
    shared = {task: _shared(groups, reading.shares, task) for task, groups in reading.shares.items()}
    owned = {task: [group for group, series in groups.items() if _owns(series)] for task, groups in shared.items()}
    counted = ", task weights included," if reading.weighted else ""
    for task, groups in owned.items():
        if groups:
            parts = [median(shared[task][group].values) for group in groups]
            records = len(shared[task][groups[0]].values)
            text = (
                f"Its share of the gradient norm{counted} was above {percent(LOUD)} in all of {records} records "
                f"(median {percent(median(parts))}): the other tasks hardly steer these groups. Weights of 1 / first "
                "loss, or a balancing method that equalises norms, could give them a say."
            )
            yield Sentence("loud", "look", f"Task '{task}' owns {quoted(groups)}", text, "shares")
    medians = [(median(found.values), task, group) for task in shared for group, found in shared[task].items()]
    if medians and not any(owned.values()):
        part, task, group = max(medians)
        text = f"The highest median share is {percent(part)} ('{task}' in '{group}')."
        yield Sentence("no-loud", "fine", "No task owns a shared group", text, "shares")


def conflicts(reading: Reading) -> Iterator[Sentence]:
    """Pairs of tasks that pull apart; or that none ever did."""
    found = {pair: finite(series.values) for pair, series in reading.cosines.items()}
    parts = {pair: share([value < 0 for value in values]) for pair, values in found.items() if values}
    opposed = sorted((pair for pair in parts if parts[pair] > 0), key=lambda pair: -parts[pair])
    for pair in opposed[:4]:
        values = found[pair]
        text = (
            f"Their gradients had a negative cosine in {percent(parts[pair])} of {len(values)} records "
            f"(median {formatted(median(values))}, lowest {formatted(min(values))})."
        )
        often = parts[pair] >= OFTEN
        head = f"{spelled(pair)} {'conflicted often' if often else 'conflicted now and then'}"
        yield Sentence("conflict", "look" if often else "note", head, text, "conflicts")
    if parts and not opposed:
        records = max(len(values) for values in found.values())
        text = (
            f"No cosine between tasks was negative in {records} records: a method that acts on conflicts only "
            "(PCGrad and its kin) would have changed nothing there."
        )
        yield Sentence("no-conflict", "fine", "No two tasks ever conflicted", text, "conflicts")


def hurt(reading: Reading) -> Iterator[Sentence]:
    """Tasks that the updates worked against."""
    records = len({step for series in reading.cosines.values() for step in series.steps}) or len(reading.run)
    counts = Counter(task for _, tasks in reading.run.hurt for task in tasks)
    for task, count in counts.most_common(4):
        if count >= HURT * records:
            part = percent(min(count / records, 1.0))
            text = f"In {part} of {records} records, the update raised its loss to first order."
            yield Sentence("hurt", "look", f"Task '{task}' was hurt", text, "conflicts")


def _shared(groups: ByName, shares: Mapping[str, ByName], task: str) -> ByName:
    """The groups that another task reaches as well."""
    others = [found for name, found in shares.items() if name != task]
    return {
        group: series
        for group, series in groups.items()
        if any(any(value > 0 for value in other[group].values) for other in others if group in other)
    }


def _owns(series: Series) -> bool:
    return len(series.values) >= LOUD_RECORDS and all(value > LOUD for value in series.values)
