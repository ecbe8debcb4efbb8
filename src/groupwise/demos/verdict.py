"""What the numbers mean, in words that the numbers choose.

Contestants share data and initial weights seed by seed, so they are compared by their paired differences: the mean
difference counts as a difference only outside twice its standard error, and never inside a floor that a single seed of
this job crosses by luck alone. Only the digits are judged; the sum stands in the table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

Standing = Literal["behind", "level", "ahead"]

_LUCK_OF_ONE_SEED = 1.5
_FAR = 5.0
_LEARNED = 50.0
_LOUD = 10.0
_USUAL = "The usual way (one AdamW, losses added up)"


def margin(differences: Sequence[float], luck: float = _LUCK_OF_ONE_SEED) -> float:
    """How large the mean of these paired differences must be before it means something; `luck` moves a single one."""
    if len(differences) > 1:
        luck = max(luck, 2 * statistics.stdev(differences))
    return luck / math.sqrt(len(differences))


def standing(ours: Sequence[float], theirs: Sequence[float], luck: float = _LUCK_OF_ONE_SEED) -> Standing:
    """Where `ours` stands next to `theirs`, both the higher the better, seed by seed; per cent of digits right, if
    `luck` is not said.
    """
    differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    difference = statistics.fmean(differences)
    if abs(difference) <= margin(differences, luck):
        return "level"
    return "ahead" if difference > 0 else "behind"


def words(plan: Sequence[float], naive: Sequence[float], tuned: Sequence[float], loudness: float) -> list[str]:
    """The usual way, the plan beside the tuned AdamW, and what to make of it, a sentence or two each.

    The sequences hold, seed by seed, the per cent of digits right; `loudness` says how many times the gradient of the
    sum's loss outweighed that of a digit's on the convolutions at the first step.
    """
    if max(map(statistics.fmean, (plan, naive, tuned))) < _LEARNED:
        return ["Nobody has learned to read the digits at this length: give it more steps."]
    return [_usual_way(naive, tuned, loudness), _plan_beside(plan, tuned), _moral(plan, naive, tuned)]


def _gap(ours: Sequence[float], theirs: Sequence[float]) -> str:
    points = abs(statistics.fmean(ours) - statistics.fmean(theirs))
    return f"{points:.1f} points"


def _usual_way(naive: Sequence[float], tuned: Sequence[float], loudness: float) -> str:
    place = standing(naive, tuned)
    if place == "ahead":
        return f"{_USUAL} is ahead of the tuned single AdamW by {_gap(naive, tuned)}: mistrust the tuning."
    if place == "level":
        return f"{_USUAL} is level with the tuned single AdamW ({_gap(naive, tuned)} apart)."
    far = "far behind" if statistics.fmean(tuned) - statistics.fmean(naive) > _FAR else "behind"
    return f"{_USUAL} is {far}, {_gap(naive, tuned)} below the tuned single AdamW. {_reason(loudness)}"


def _reason(loudness: float) -> str:
    heard = f"at the first step its gradient on the convolutions is {loudness:.0f} times that of a digit's"
    if loudness > _LOUD:
        return f"The sum's loss drowns the digits: {heard}."
    return (
        f"The sum's loss is not what drowns the digits ({heard}): rate, schedule and clipping are left to explain it."
    )


def _plan_beside(plan: Sequence[float], tuned: Sequence[float]) -> str:
    place = standing(plan, tuned)
    if place == "level":
        return f"The plan is level with the tuned single AdamW ({_gap(plan, tuned)} apart, within what seeds do)."
    where = "ahead of" if place == "ahead" else "behind"
    return f"The plan is {where} the tuned single AdamW by {_gap(plan, tuned)}."


def _moral(plan: Sequence[float], naive: Sequence[float], tuned: Sequence[float]) -> str:
    beside_tuned = standing(plan, tuned)
    if beside_tuned == "behind":
        return "On this job, at this length, one well-tuned AdamW is the better choice."
    if beside_tuned == "ahead":
        return "Here the groups paid; but the single AdamW was tuned for 400 steps, so try that length and more seeds."
    if standing(tuned, naive) == "ahead":
        return (
            "Grouping is no magic: task weights, schedule and clipping did it, and one AdamW can have them too. "
            "What the plan adds is that all of it is stated in one place, and visible before the first step."
        )
    return "The usual way does as well here, so there is nothing to explain: try more steps or more seeds."
