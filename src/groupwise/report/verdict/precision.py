"""Numbers that are too small for the arithmetic: below eps, below half precision, lost in rounding.

    below eps    the median gradient of an entry (after clipping) is below the eps of an Adam or Muon group, in the
                 first half of the run as well: the update shrinks with the gradient, as SGD's does
    underflow    a third of the entries are exactly 0 and the others have the size of the smallest numbers that half
                 precision knows (6e-8; below 2e-6)
    rounded      nine of ten entries did not change at all, though they have a gradient above eps and a learning rate
    zeros        three tenths of the entries and more are exactly 0 in each of 10 records, and one in ten did not move:
                 where Adam moves them all the same, they had a gradient before (rows that batches look up in turn)

But for the last, no chance is involved: each is the size of a number against a constant of the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import formatted, median, percent, quoted
from groupwise.report.reading import Reading
from groupwise.report.verdict.clipping import eps_of, remainder, starved
from groupwise.report.verdict.losses import stalled
from groupwise.report.verdict.pace import never_moved

SMALLEST: Final = 2e-6
ZEROS: Final = 0.3
ENOUGH: Final = 10
SHRUNK: Final = 0.5


def below_eps(reading: Reading) -> Iterator[Sentence]:
    """Groups whose gradient is smaller than the eps of their algorithm."""
    starving = {group for sentence in starved(reading) for group in reading.groups if f"'{group}'" in sentence.head}
    small = {
        group: left
        for group in reading.groups
        if group not in starving and (left := _below(reading, group)) is not None
    }
    if not small:
        return
    least = min(small, key=small.__getitem__)
    eps, steps = eps_of(reading, least) or 0.0, reading.typical("step_size").get(least)
    moved = (
        f" An entry moves by {formatted(steps)} of the learning rate instead of about 1." if steps is not None else ""
    )
    text = (
        f"The gradient of an entry has the median size {formatted(small[least])} in '{least}', and "
        f"eps is {formatted(eps)}: "
        f"{reading.algorithm(least).family} no longer divides by it.{moved} A smaller eps, or a larger loss, cures it."
    )
    tone: Tone = "look" if stalled(reading) or steps is None or steps < 0.1 else "note"
    yield Sentence(
        "eps", tone, f"The gradient of {quoted(list(small))} is below eps ({formatted(small[least])})", text, "steps"
    )


def underflow(reading: Reading) -> Iterator[Sentence]:
    """Groups whose gradient has the size of half precision's smallest numbers."""
    found = {group: part for group in reading.groups if (part := _vanished(reading, group)) is not None}
    if found:
        most = max(found, key=found.__getitem__)
        text = (
            f"{percent(found[most])} of the entries of '{most}' are exactly 0 and the others are next "
            "to the smallest number "
            "of half precision (6e-8). A GradScaler, or bfloat16, keeps them."
        )
        yield Sentence(
            "underflow",
            "look",
            f"The gradient of {quoted(list(found))} underflows ({percent(found[most])} zeros)",
            text,
            "gradients",
        )


def rounded(reading: Reading) -> Iterator[Sentence]:
    """Groups whose updates are lost in the rounding of their weights."""
    found = [group for group in reading.groups if _is_rounded(reading, group)]
    if found:
        steps = formatted(reading.typical("step_size")[found[0]])
        text = (
            f"Nine of ten entries of '{found[0]}' did not change in a step, though they had a "
            "gradient (root mean square of all "
            f"steps: {steps} of the learning rate). Weights in half precision round small updates "
            "away; keep a float32 copy."
        )
        yield Sentence("rounded", "look", f"Updates of {quoted(found)} are lost in rounding", text, "steps")


def zeros(reading: Reading) -> Iterator[Sentence]:
    """Groups of which many entries have no gradient: dead units, inputs that never fire, rows that are not looked
    up.
    """
    parts = {group: part for group, part in reading.typical("zero").items() if ZEROS <= part < 1}
    held = {g: reading.statistic("zero")[g].values for g in parts}
    lasting = {g: part for g, part in parts.items() if len(held[g]) >= ENOUGH and min(held[g]) >= 0.8 * part}
    moved = reading.typical("step_size_low")
    lasting = {group: part for group, part in lasting.items() if not moved.get(group, 0.0) > 0}
    if lasting:
        most = max(lasting, key=lasting.__getitem__)
        text = (
            f"{percent(lasting[most])} in '{most}', steadily: units that never fire, inputs that are "
            "always 0, rows that no batch looks up."
        )
        yield Sentence(
            "zeros", "note", f"Many entries of {quoted(list(lasting))} have a gradient of exactly 0", text, "gradients"
        )


def _below(reading: Reading, group: str) -> float | None:
    eps, left = eps_of(reading, group), remainder(reading, group)
    if eps is None or left is None or not 0 < left < eps or never_moved(reading, group):
        return None
    steps = reading.typical("step_size").get(group)
    norms = reading.statistic("grad_norm")[group].values
    early = median(norms[: max(len(norms) // 2, 1)]) * left / (median(norms) or 1.0)
    return left if early < eps and (steps is None or steps < SHRUNK) else None


def _vanished(reading: Reading, group: str) -> float | None:
    part, norm = reading.typical("zero").get(group), reading.typical("grad_norm").get(group)
    known = reading.described.get(group)
    if part is None or norm is None or known is None or not ZEROS <= part < 1 or not known.parameters:
        return None
    return part if 0 < norm / math.sqrt(known.parameters * (1 - part)) < SMALLEST else None


def _is_rounded(reading: Reading, group: str) -> bool:
    high, rms = (reading.typical(name).get(group, math.nan) for name in ("step_size_high", "step_size"))
    left, eps = remainder(reading, group), eps_of(reading, group)
    alive = reading.typical("zero").get(group, 1.0) < 0.5
    return high == 0 and rms >= 0 and alive and eps is not None and left is not None and left > eps
