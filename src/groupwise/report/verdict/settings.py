"""Settings that do not fit what they are set for: decay on norms, a router under Muon, betas the wrong way round.

decay     Σ lr · weight_decay over the steps is the logarithm of the factor by which decoupled decay shrinks weights
          that no gradient holds up: from 0.05 on (5 %) it is to be looked at in a group of norms, gains or biases
outweighs the same sum from 2 on, weights at less than half of what they were, and a loss that did not fall: what a
          gradient builds, the decay takes
betas     Adam with beta1 > beta2: the mean of the gradient would remember longer than that of its square
router    Muon makes all singular values of an update alike, so every expert's row moves by as much
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import finite, formatted, median, percent, quoted, total
from groupwise.report.reading import Reading
from groupwise.report.verdict.losses import stalled

DECAYED: Final = 0.05
OUTWEIGHS: Final = 2.0
SHRUNK: Final = 0.5
_NORMS: Final = re.compile(
    r"(?:^|[^a-z])(?:norms?|layer_?norms?|batch_?norms?|rms_?norms?|ln|bn|gains?|bias(?:es)?)(?:$|[^a-z])",
    re.IGNORECASE,
)
_ROUTER: Final = re.compile(r"(?:^|[^a-z])(?:routers?|gates?|gating)(?:$|[^a-z])", re.IGNORECASE)


def decayed_norms(reading: Reading) -> Iterator[Sentence]:
    """Norms and biases that weight decay pulls to 0."""
    decays = {group: _decay(reading, group) for group in reading.groups if _NORMS.search(group)}
    shrunk = {group: decay for group, decay in decays.items() if decay > 0}
    if not shrunk:
        return
    most = max(shrunk, key=shrunk.__getitem__)
    norms = finite(reading.statistic("weight_norm")[most].values) if most in reading.statistic("weight_norm") else []
    went = f"; its norm went from {formatted(norms[0])} to {formatted(norms[-1])}" if norms else ""
    text = (
        f"By itself the decay shrinks '{most}' by {percent(1 - math.exp(-shrunk[most]))} over these "
        "steps (Σ lr · weight_decay "
        f"= {formatted(shrunk[most])}){went}. Norms, gains and biases are usually left out of it: weight_decay=0."
    )
    tone: Tone = "look" if shrunk[most] >= DECAYED else "note"
    yield Sentence("decay", tone, f"Weight decay acts on {quoted(list(shrunk))}", text, "schedules")


def outweighing_decay(reading: Reading) -> Iterator[Sentence]:
    """Groups whose weights a decay takes away faster than the gradient builds them, while the loss does not fall."""
    if not stalled(reading):
        return
    decays = {group: _decay(reading, group) for group, left in _left(reading).items() if left < SHRUNK}
    heavy = {group: decay for group, decay in decays.items() if decay >= OUTWEIGHS}
    if heavy:
        most = max(heavy, key=heavy.__getitem__)
        norms = finite(reading.statistic("weight_norm")[most].values)
        each = percent(heavy[most] / reading.length)
        text = (
            f"It takes {each} of the weights of '{most}' a step (lr · weight_decay); their norm went from "
            f"{formatted(norms[0])} to {formatted(norms[-1])}, and the loss did not fall. Decoupled decays are usually "
            "0.01 to 0.1."
        )
        yield Sentence(
            "decay",
            "look",
            f"Weight decay outweighs the gradient of {quoted(list(heavy))} ({each} a step)",
            text,
            "schedules",
        )


def betas(reading: Reading) -> Iterator[Sentence]:
    """Adam whose two betas look exchanged."""
    first, second = reading.values("beta1"), reading.values("beta2")
    adams = [group for group in reading.groups if reading.algorithm(group).family == "Adam"]
    found = [g for g in adams if g in first and g in second and median(first[g].values) > median(second[g].values)]
    if found:
        one, two = (formatted(median(each[found[0]].values)) for each in (first, second))
        text = (
            f"Adam divides a mean of the gradient that remembers 1 / (1 - beta1) steps by one of its square, which "
            f"remembers 1 / (1 - beta2); with ({one}, {two}) the second forgets first, and an entry's step is no "
            "longer about the learning rate. The usual order is (0.9, 0.999)."
        )
        yield Sentence("betas", "look", f"The betas of {quoted(found)} look exchanged ({one}, {two})", text, "steps")


def _left(reading: Reading) -> dict[str, float]:
    """What is left of the norm of each group's weights at the end."""
    norms = {group: finite(series.values) for group, series in reading.statistic("weight_norm").items()}
    return {group: values[-1] / values[0] for group, values in norms.items() if values and values[0] > 0}


def routers(reading: Reading) -> Iterator[Sentence]:
    """Routers that Muon orthogonalises."""
    found = [group for group in reading.groups if _ROUTER.search(group) and reading.algorithm(group).family == "Muon"]
    if found:
        ratio = reading.typical("update_ratio").get(found[0])
        moved = f" Its median update ratio is {formatted(ratio)}." if ratio is not None else ""
        text = (
            "An orthogonal update moves every expert's row by as much, whatever its gradient; the "
            "published recipes keep "
            f"routers under AdamW.{moved}"
        )
        yield Sentence("router", "look", f"The router {quoted(found)} is under Muon", text, "plan")


def _decay(reading: Reading, group: str) -> float:
    """Σ lr · weight_decay over the steps; 0 where the decay is not decoupled (Adam's goes through the gradient)."""
    rates, decays = reading.values("lr").get(group), reading.values("weight_decay").get(group)
    known = reading.described.get(group)
    if (
        rates is None
        or decays is None
        or known is None
        or known.algorithm.lower() in ("adam", "nadam", "radam", "rmsprop")
    ):
        return 0.0
    mean_rate = total(rates.values) / len(rates.values)
    mean_decay = total(decays.values) / len(decays.values)
    return mean_rate * mean_decay * reading.length
