"""What the rounds say about the rate: how far up it is stable, where the best is likely, how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from groupwise._spelling import number
from groupwise.probing.rounds import SURER, Round, Search, lowest_of_the_best
from groupwise.probing.trial import Setting, Trial

Verdict: TypeAlias = Literal["keep", "change", "withheld"]

DECADE = 10.0 * (1 + 1e-6)
"""Advice that spreads over more than this is withheld."""


HALF: float = math.sqrt(10)
"""Between two rungs of the ladder: half a decade."""

HORIZON = 0.32
"""How the best rate falls with the length of a run: Bjorck et al. 2024, Scaling optimal LR across token horizons, the
joint fit from 760 M parameters; fits of single sizes are 0.32 to 0.7."""


@final
@dataclass(frozen=True)
class Rates:
    """Factors on the plan's own learning rates, which stay in their proportions.

    Attributes:
        verdict: "keep" the plan's rates, since nothing beat them beyond the noise; "change" them; or "withheld", since
            seeds and lengths point to rates more than a decade apart.
        advised: the factor to apply: 1 unless the verdict is to change.
        likely: lowest and highest factor at which the best of the whole run is likely to be.
        stable: the highest factor up to which every run went on falling, and the lowest at which one diverged; None
            where none did.
        best: the lowest factor that was not told apart from the best in the longest round.
        gain: how much lower the loss of the best was than the plan's, as a share; 0.1 is a tenth lower.
    """

    verdict: Verdict
    advised: float
    likely: tuple[float, float]
    stable: tuple[float, float | None]
    best: float
    gain: float


def judged(search: Search, total_steps: int) -> Rates:
    """What the rounds bear out."""
    verdict, best = decided(search.rounds)
    low, high = _likely(search.rounds)
    shorter = (search.rounds[-1].steps / total_steps) ** HORIZON
    between = math.sqrt(HALF)  # a rung stands for what lies nearer to it than to the next
    stable = bracket(trial for found in search.rounds for runs in found.runs.values() for trial in runs)
    advised = best.rate if verdict == "change" else 1.0
    likely = low * shorter / between, high * between
    return Rates(verdict, advised, likely, stable, best.rate, _gain(search.rounds, best))


def decided(rounds: Sequence[Round]) -> tuple[Verdict, Setting]:
    """Whether the plan's own rates are to change, and the lowest of those that are not told apart from the best."""
    last = rounds[-1]
    best = lowest_of_the_best(last)
    low, high = _likely(rounds)
    if high > DECADE * low or math.isinf(last.score(best)):
        return "withheld", best
    return "change" if _beats_plain(rounds, best) else "keep", best


def bracket(trials: Iterator[Trial]) -> tuple[float, float | None]:
    """The highest rate up to which nothing grew, and the lowest at which something diverged."""
    by_rate: dict[float, list[Trial]] = {}
    for trial in trials:
        by_rate.setdefault(trial.setting.rate, []).append(trial)
    high = min((rate for rate, runs in by_rate.items() if any(t.diverged for t in runs)), default=None)
    calm = [rate for rate, runs in by_rate.items() if not any(t.grows for t in runs)]
    below = [rate for rate in calm if high is None or rate < high]
    return max(below, default=0.0), high


def rounded(rate: float) -> float:
    """Two digits: no probe knows more."""
    return float(f"{rate:.1e}")


def said(value: float) -> str:
    """A number in a sentence, to two digits."""
    return number(rounded(value))


def _last_with_plain(rounds: Sequence[Round]) -> Round:
    """The longest round that the plan's own rate was in."""
    return next(found for found in reversed(rounds) if Setting() in found.runs)


def _beats_plain(rounds: Sequence[Round], best: Setting) -> bool:
    """Whether the plan's own rate is beaten beyond the noise, in the longest round that it was in, by the best or by
    one that went on to be compared with it."""
    found, plain = _last_with_plain(rounds), Setting()
    if found is rounds[-1]:
        return best != plain and found.versus(best, plain).beats(SURER)
    return any(found.versus(s, plain).beats(SURER) for s in rounds[-1].runs if s in found.runs)


def _gain(rounds: Sequence[Round], best: Setting) -> float:
    found = _last_with_plain(rounds)
    change = found.versus(best if best in found.runs else found.ranked()[0], Setting()).mean
    return 1.0 if math.isinf(change) else 1 - math.exp(change)


def _likely(rounds: Sequence[Round]) -> tuple[float, float]:
    """From the lowest to the highest factor that is not told apart from the best of the last round, that is the best
    of one of its seeds, or that was the best of the ladder."""
    last = rounds[-1]
    best = last.ranked()[0]
    rates = [s.rate for s in last.runs if s == best or not last.versus(best, s).beats()]
    for i in range(len(last.seeds)):
        each = {s: runs[i : i + 1] for s, runs in last.runs.items()}
        rates.append(Round(last.name, last.seeds[i : i + 1], last.steps, each).ranked()[0].rate)
    rates.append(rounds[0].ranked()[0].rate)
    return min(rates), max(rates)


def parts_advised(search: Search) -> dict[int, float]:
    """The factor for each rule whose rate differs from the joint one beyond the noise, in every seed."""
    found: dict[int, float] = {}
    for tried in search.parts:
        base, *others = tried.runs
        better = [s for s in others if tried.versus(s, base).beats(SURER) and _each(tried, s, base)]
        if better:
            best = min(better, key=tried.score)
            found[best.part] = math.sqrt(best.factor)  # half of the way
    return {part: rounded(by) for part, by in found.items()}


def _each(tried: Round, one: Setting, base: Setting) -> bool:
    """Whether it is better in every seed."""
    pairs = zip(tried.runs[one], tried.runs[base], strict=True)
    return all(not a.diverged and sum(a.scores) < sum(b.scores) for a, b in pairs)
