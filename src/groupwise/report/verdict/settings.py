"""Settings that do not fit what they are set for, as far as a group's name tells: decay on norms, a router under Muon.

decay     Σ lr · weight_decay over the steps is the logarithm of the factor by which decoupled decay shrinks weights
          that no gradient holds up: from 0.05 on (5 %) it is to be looked at in a group of norms, gains or biases
router    Muon makes all singular values of an update alike, so every expert's row moves by as much
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import finite, formatted, percent, quoted, total
from groupwise.report.reading import Reading

DECAYED: Final = 0.05
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
