"""What clipping did: how often it acted in each scope, and the bound that would act on one step in twenty.

normalises    acted on more than half of the steps: the bound is the length of the step rather than a guard
idle          acted on less than one step in a thousand
advice        the 95th percentile of the joint norm before clipping, without the first 20 % of the records
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import formatted, percent, quantile, share
from groupwise.report.panels.gradients import bound, later
from groupwise.report.reading import Reading

OFTEN: Final = 0.5
SELDOM: Final = 0.001
GUARD: Final = 0.95
ENOUGH: Final = 20
MOST: Final = 6
"""More scopes than this are not told one by one."""


def clipping(reading: Reading) -> Iterator[Sentence]:
    """One sentence for each scope, those that were clipped most first."""
    found = {scope: [value < 1 for value in reading.clipped(scope).values] for scope in reading.scopes}
    known = {clip.scope for clip in reading.clips.values()}
    told = {scope: held for scope, held in found.items() if len(held) >= ENOUGH and (scope in known or any(held))}
    shares = {scope: share(held) for scope, held in told.items()}
    for scope in sorted(shares, key=lambda scope: -shares[scope])[:MOST]:
        yield _sentence(reading, scope, shares[scope], len(found[scope]))


def _sentence(reading: Reading, scope: str, part: float, records: int) -> Sentence:
    acted = f"It acted on {percent(part) if part else 'none'} of {records:,} steps{_bound(reading, scope)}."
    advice = _advice(reading, scope)
    if part > OFTEN:
        text = f"{acted} So it sets the length of the gradient rather than guards against rare ones.{advice}"
        return _said("clip-often", "note", f"Clipping normalised scope '{scope}'", text)
    if part < SELDOM:
        return _said("clip-seldom", "note", f"Clipping never came into play in scope '{scope}'", f"{acted}{advice}")
    return _said("clip", "fine", f"Clipping guarded scope '{scope}'", acted)


def _said(rule: str, tone: Tone, head: str, text: str) -> Sentence:
    return Sentence(rule, tone, head, text, "gradients")


def _bound(reading: Reading, scope: str) -> str:
    limit = bound(reading, scope)
    return f" (bound {formatted(limit)})" if limit is not None else ""


def _advice(reading: Reading, scope: str) -> str:
    norms = later(reading.norm(scope))
    if bound(reading, scope) is None or not norms:
        return ""
    return f" 95 % of the norms after the start lie below {formatted(quantile(norms, GUARD))}."
