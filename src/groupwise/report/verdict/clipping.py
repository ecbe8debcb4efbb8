"""What clipping did in each scope: who fills the joint norm, what it leaves to the others, how often it acted.

starved       a norm that one group fills (99 % of its square) leaves another less than the eps of its algorithm, per
              entry (per matrix, for Muon); or, where the size of an update is the gradient's, less than a hundredth,
              with weights that move by less than a thousandth over a run of 20 steps and more
normalises    acted on more than half of the steps: the bound sets the length of the gradient. To be looked at where
              that changes the update (SGD) and the gradient is cut to less than a tenth
beforehand    no clip is recorded, and the norm of all gradients is the same (within a thousandth) in nine records of
              ten: norms of batches do not agree so closely
idle          acted on less than one step in a thousand

The gradients' norms are recorded and no test of chance is involved; each bound is a decade and more from what is usual.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from groupwise.records import Series
from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import formatted, median, percent, quantile, quoted, share
from groupwise.report.panels.gradients import bound
from groupwise.report.reading import Reading, later
from groupwise.report.verdict.losses import stalled
from groupwise.report.verdict.pace import path

OFTEN: Final = 0.5
SELDOM: Final = 0.001
GUARD: Final = 0.95
ENOUGH: Final = 20
MOST: Final = 6
"""More scopes than this are not listed one by one."""
FILLS: Final = 0.99
STARVED_FACTOR: Final = 0.01
STARVED_PATH: Final = 1e-3
CUT: Final = 0.1
SAME: Final = 1e-3
ALWAYS: Final = 0.9
MIXED: Final = 0.03
MIXED_FACTOR: Final = 1e-4
"""In a group that is partly starved, one entry in ten moves by less than 3 % of the root mean square of all (of entries
with equal chances, by about 12 %), under a factor as small as this, and hardly any has a gradient of 0."""
EMPTY: Final = 0.1
"""Where so many entries have no gradient, one in ten need not move, whatever the clip does."""


def starved(reading: Reading) -> Iterator[Sentence]:
    """Groups that a joint clip leaves nothing, and who takes it."""
    for scope, groups in reading.scopes.items():
        factor = median(later(reading.clipped(scope)))
        if not 0 < factor < STARVED_FACTOR:
            continue
        left = {group: rms for group in groups if (rms := remainder(reading, group)) is not None}
        parts = _parts(reading, scope)
        eater = max(parts, key=parts.__getitem__, default="")
        hungry = [
            group for group in left if group != eater and _starves(reading, group, left[group], parts.get(group, 1.0))
        ]
        if hungry and parts[eater] > FILLS:
            yield _starvation(reading, scope, eater, hungry, factor)
        for group in left:
            if group not in hungry and factor < MIXED_FACTOR and _is_mixed(reading, group):
                yield _mixture(reading, scope, group, factor)


def clipping(reading: Reading) -> Iterator[Sentence]:
    """One sentence for each scope, those that were clipped most first."""
    found = {scope: [value < 1 for value in reading.clipped(scope).values] for scope in reading.scopes}
    known = {scope for scope, groups in reading.scopes.items() if groups[0] in reading.clips}
    known_scopes = {
        scope: held for scope, held in found.items() if len(held) >= ENOUGH and (scope in known or any(held))
    }
    shares = {scope: share(held) for scope, held in known_scopes.items()}
    for scope in sorted(shares, key=lambda scope: -shares[scope])[:MOST]:
        yield _sentence(reading, scope, shares[scope], len(found[scope]))


def beforehand(reading: Reading) -> Iterator[Sentence]:
    """A norm that never changes: somebody clipped the gradients before they were seen."""
    norms = reading.statistic("grad_norm")
    if reading.statistic("clip_factor") or not norms or reading.networks:
        return
    joint = [norm for norm in reading.joint_norm(list(norms)).values if norm > 0]
    most = max(joint, default=0.0)
    if len(joint) < ENOUGH or share([norm > most * (1 - SAME) for norm in joint]) < ALWAYS:
        return
    scaled = any(reading.algorithm(group).family == "SGD" for group in norms)
    text = (
        f"The joint norm of all gradients is {formatted(most)} at nearly every step: they were clipped to that before "
        "the step, "
        + ("so the step has the bound's size. " if scaled else "which its algorithm divides out. ")
        + "`observer.before_clip()` in front of the clipping shows what it takes away."
    )
    tone: Tone = "look" if scaled and stalled(reading) else "note"
    yield _said("clip-before", tone, f"The gradients were clipped to {formatted(most)} at every step", text)


def remainder(reading: Reading, group: str) -> float | None:
    """What is left of a group's gradient after clipping: the median root mean square of an entry (Muon: the norm)."""
    norms, known = reading.statistic("grad_norm").get(group), reading.described.get(group)
    if norms is None or known is None or not known.parameters:
        return None
    factors = _by_step(reading.statistic("clip_factor").get(group))
    absent = (
        max(later(reading.statistic("no_grad")[group]), default=0.0) if group in reading.statistic("no_grad") else 0.0
    )
    if absent >= known.tensors:
        return None
    norm = median(norm * factors.get(step, 1.0) for step, norm in zip(*norms, strict=True))
    return norm if reading.algorithm(group).family == "Muon" else norm / math.sqrt(known.parameters)


def eps_of(reading: Reading, group: str) -> float | None:
    """The eps of a group: the recorded one, else the usual one of its algorithm; None where there is none."""
    recorded = reading.values("eps").get(group)
    usual = reading.algorithm(group).eps
    return None if usual is None else (median(recorded.values) if recorded else usual)


def _starves(reading: Reading, group: str, left: float, part: float) -> bool:
    eps = eps_of(reading, group)
    if eps is not None:
        return 0 < left < eps
    moved = path(reading, group)
    scaled = not reading.algorithm(group).scale_free and reading.length >= ENOUGH
    return scaled and left > 0 and part < 1 - FILLS and moved is not None and moved < STARVED_PATH


def _starvation(reading: Reading, scope: str, eater: str, hungry: list[str], factor: float) -> Sentence:
    first = hungry[0]
    left, eps, of = remainder(reading, first) or 0.0, eps_of(reading, first), reading.algorithm(first).family
    rest = f"below the eps {formatted(eps)} of {of}" if eps else f"and {of} moves by what is left"
    others = f" (and in {len(hungry) - 1} more)" if len(hungry) > 1 else ""
    text = (
        f"Its gradient fills the joint norm of scope '{scope}', so the factor has the median {formatted(factor)}. In "
        f"'{first}'{others} {formatted(left)} is left of an entry, {rest}. A clip scope of its own "
        f"for '{eater}' cures it."
    )
    return Sentence(
        "starved",
        "look",
        f"'{eater}' starves {quoted(hungry)} through the clip ({formatted(factor)})",
        text,
        "gradients",
    )


def _is_mixed(reading: Reading, group: str) -> bool:
    low, rms = (reading.typical(name).get(group, math.nan) for name in ("step_size_low", "step_size"))
    empty = reading.typical("zero").get(group, 0.0) >= EMPTY
    return eps_of(reading, group) is not None and low < MIXED * rms and not empty


def _mixture(reading: Reading, scope: str, group: str, factor: float) -> Sentence:
    low, rms = (reading.typical(name)[group] for name in ("step_size_low", "step_size"))
    text = (
        f"The factor of scope '{scope}' has the median {formatted(factor)}. One in ten entries of "
        f"'{group}' moves by less "
        f"than {formatted(low)} of the learning rate, while the root mean square is {formatted(rms)}: "
        "some entries fill "
        'the norm and the others fall below eps. Clip scopes of their own cure it; by="layer" shows which.'
    )
    return Sentence("starved", "look", f"The clip ({formatted(factor)}) starves a part of '{group}'", text, "gradients")


def _parts(reading: Reading, scope: str) -> Mapping[str, float]:
    """The median part of each group in the square of the joint norm of a scope."""
    joint = _by_step(reading.norm(scope))
    norms = {
        group: reading.statistic("grad_norm")[group]
        for group in reading.scopes[scope]
        if group in reading.statistic("grad_norm")
    }
    return {
        group: median(
            min(norm / joint[step], 1.0) ** 2 for step, norm in zip(*series, strict=True) if joint.get(step, 0.0) > 0
        )
        for group, series in norms.items()
    }


def _sentence(reading: Reading, scope: str, part: float, records: int) -> Sentence:
    acted = f"It acted on {percent(part) if part else 'none'} of {records:,} steps{_bound(reading, scope)}."
    advice = _advice(reading, scope)
    if part > OFTEN:
        factor = median(later(reading.clipped(scope)))
        scaled = any(reading.algorithm(group).family == "SGD" for group in reading.scopes[scope])
        tone: Tone = "look" if factor < CUT and scaled else "note"
        why = "so the step is the bound's, not the gradient's" if scaled else "its algorithm divides by the size anyhow"
        text = f"{acted} The factor has the median {formatted(factor)}; {why}.{advice}"
        return _said(
            "clip-often", tone, f"Clipping normalised scope '{scope}' (median factor {formatted(factor)})", text
        )
    if part < SELDOM:
        return _said("clip-seldom", "fine", f"Clipping never came into play in scope '{scope}'", f"{acted}{advice}")
    return _said("clip", "fine", f"Clipping guarded scope '{scope}'", acted)


def _said(rule: str, tone: Tone, head: str, text: str) -> Sentence:
    return Sentence(rule, tone, head, text, "gradients")


def _bound(reading: Reading, scope: str) -> str:
    limit = bound(reading, scope)
    return f" (bound {formatted(limit)})" if limit is not None else ""


def _advice(reading: Reading, scope: str) -> str:
    norms = later(reading.norm(scope))
    if bound(reading, scope) is None or not norms or not reading.is_joint(scope):
        return ""
    return f" 95 % of the norms after the start lie below {formatted(quantile(norms, GUARD))}."


def _by_step(series: Series | None) -> Mapping[int, float]:
    return dict(zip(*series, strict=True)) if series is not None else {}
