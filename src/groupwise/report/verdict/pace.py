"""What stands still, what moves too fast or hardly, whose gradient turns back.

    stands still      update ratio below 1e-7 in every record of at least 50 steps
    fast, slow        median update ratio above 1e-2, below 1e-5, without the first 20 % of the records
    turns back        median cosine between successive gradients below -0.3, in at least 10 records

The bounds of fast and slow are a decade and two around 1e-3, the usual value when training from scratch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from groupwise.records import Series
from groupwise.report.document import Sentence
from groupwise.report.numbers import formatted, median, quoted
from groupwise.report.panels.gradients import later
from groupwise.report.panels.largest import USUAL_RATIO
from groupwise.report.reading import Reading

STILL: Final = 1e-7
STILL_STEPS: Final = 50
TURNS: Final = -0.3
ENOUGH: Final = 10


def still(reading: Reading) -> Iterator[Sentence]:
    """Groups that never moved, with the reason where the records show one."""
    by_reason: dict[str, list[str]] = {}
    for group in reading.groups:
        if _never_moved(reading, group):
            by_reason.setdefault(_reason(reading, group), []).append(group)
    for reason, groups in by_reason.items():
        text = f"{reason} If that is not a freeze on purpose, these parameters learn nothing."
        yield Sentence("still", "look", f"{quoted(groups)} did not move", text, "updates")


def waited(reading: Reading) -> Iterator[Sentence]:
    """Groups that stood still at first and then moved: a freeze that ended."""
    for group, series in reading.statistic("update_ratio").items():
        moved = next((i for i, value in enumerate(series.values) if value >= STILL), None)
        if moved and series.steps[moved] - series.steps[0] >= STILL_STEPS:
            text = (
                f"Its update ratio was below {formatted(STILL)} until step {series.steps[moved - 1]:,}; then it moved."
            )
            yield Sentence("waited", "note", f"'{group}' moved from step {series.steps[moved]:,} on", text, "updates")


def speed(reading: Reading) -> Iterator[Sentence]:
    """Groups whose median update ratio lies outside 1e-5 to 1e-2."""
    found = {group: median(later(series)) for group, series in reading.statistic("update_ratio").items()}
    moving = {group: ratio for group, ratio in found.items() if ratio >= STILL}
    low, high = USUAL_RATIO
    fast = sorted((group for group in moving if moving[group] > high), key=lambda group: -moving[group])
    slow = sorted((group for group in moving if moving[group] < low), key=lambda group: moving[group])
    if fast:
        text = (
            f"Median update ratio {formatted(moving[fast[0]])} in '{fast[0]}'; around 1e-3 is usual. A rule of thumb."
        )
        yield Sentence("fast", "look", f"{_verb(fast, 'moves', 'move')} fast", text, "updates")
    if slow:
        text = (
            f"Median update ratio {formatted(moving[slow[0]])} in '{slow[0]}'; around 1e-3 is usual from scratch, "
            "less is meant when fine-tuning."
        )
        yield Sentence("slow", "note", f"{_verb(slow, 'hardly moves', 'hardly move')}", text, "updates")
    if moving and not fast and not slow:
        ends = f"{formatted(min(moving.values()))} to {formatted(max(moving.values()))}"
        usual = f"between {formatted(low)} and {formatted(high)}"
        text = f"Median update ratios of {ends}, {usual} for every group that moves."
        yield Sentence("pace", "fine", "Every moving group moves at a usual pace", text, "updates")


def turning(reading: Reading) -> Iterator[Sentence]:
    """Groups whose gradient keeps turning back."""
    found = {
        group: median(series.values)
        for group, series in reading.statistic("gradient_cosine").items()
        if len(series.values) >= ENOUGH
    }
    back = sorted((group for group in found if found[group] < TURNS), key=found.__getitem__)
    if back:
        text = (
            f"The cosine between successive gradients has the median {formatted(found[back[0]])} in '{back[0]}': "
            "each step tends to undo the one before, as steps that are too long do."
        )
        yield Sentence("turning", "note", f"The gradient of {quoted(back)} turns back and forth", text, "steps")


def _verb(groups: list[str], one: str, many: str) -> str:
    return f"{quoted(groups)} {one if len(groups) == 1 else many}"


def _never_moved(reading: Reading, group: str) -> bool:
    ratio = reading.statistic("update_ratio").get(group)
    if ratio is not None:
        return _long(ratio) and all(value < STILL for value in ratio.values)
    return _without_gradient(reading, group)


def _long(series: Series) -> bool:
    return series.steps[-1] - series.steps[0] >= STILL_STEPS


def _reason(reading: Reading, group: str) -> str:
    if _without_gradient(reading, group):
        return "No gradient ever reached them: they are frozen, or no loss depends on them."
    rates = reading.values("lr").get(group)
    if rates is not None and not any(rates.values):
        return "Their learning rate was 0 at every step."
    norms = reading.statistic("grad_norm").get(group)
    if norms is not None and not any(norms.values):
        return "Their gradient was exactly 0 in every record."
    return f"Their update ratio was below {formatted(STILL)} in every record, although there was a gradient."


def _without_gradient(reading: Reading, group: str) -> bool:
    absent = reading.statistic("no_grad").get(group)
    tensors = next((known.tensors for known in reading.run.groups if known.name == group), 0)
    return absent is not None and tensors > 0 and _long(absent) and all(value >= tensors for value in absent.values)
