"""What the rounds say about the rate: how far up it is stable, where the best is likely, how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, final

from groupwise._spelling import number
from groupwise.probing.rounds import (
    HARDLY,
    SURER,
    Difference,
    Round,
    Search,
    agreed,
    best_single,
    multiples,
    over,
    paired,
    preferred,
    together,
    with_weights,
)
from groupwise.probing.trial import Setting, Trial

Verdict: TypeAlias = Literal["keep", "change", "withheld"]

DECADE = 10.0 * (1 + 1e-6)
"""Advice that spreads over more than this is withheld."""

WORTH = 0.01
"""How much lower a loss has to be for the plan's own rates to be left, in natural logarithms: about 1 %."""

HALF: float = math.sqrt(10)
"""Between two rungs of the ladder: half a decade."""

PLATEAU = 1 / 3
"""A loss that fell by less than this share, and ever faster beyond the noise, is on the plateau that it begins with."""

HORIZON = 0.32
"""How the best rate falls with the length of a run: Bjorck et al. 2024, Scaling optimal LR across token horizons, the
joint fit from 760 M parameters; fits of single sizes are 0.32 to 0.7."""


@final
@dataclass(frozen=True)
class Rates:
    """Factors on the plan's own learning rates, which stay in their proportions; or one AdamW in their place.

    Attributes:
        verdict: "keep" the plan's rates, since nothing beat them beyond the noise; "change" them; or "withheld", since
            seeds and lengths point to rates more than a decade apart, or since what beat them did so on a plateau that
            it did not leave.
        advised: the factor to apply: 1 unless the verdict is to change, and where `single` is advised.
        likely: lowest and highest factor at which the best of the whole run is likely to be.
        stable: the highest factor up to which every run went on falling, and the lowest at which one diverged; None
            where none did.
        best: the lowest factor within one standard error of the best of the longest round.
        gain: how much lower the loss of what is advised was than the plan's, as a share; 0.1 is a tenth lower.
        single: the rate of one AdamW for everything, where that is advised in the plan's place; 0 otherwise.
        challenger: the rate of the best one AdamW that was tried; 0 where none was.
        ahead: how much lower its loss was than that of the best factor, as a share, in the longest round with both;
            negative where it was higher.
        told_apart: whether that is beyond the noise.
        plateau: whether the longest runs ended on the plateau that the training begins with.
    """

    verdict: Verdict
    advised: float
    likely: tuple[float, float]
    stable: tuple[float, float | None]
    best: float
    gain: float
    single: float = 0.0
    challenger: float = 0.0
    ahead: float = 0.0
    told_apart: bool = False
    plateau: bool = False


def judged(search: Search, total_steps: int, near: float | None = None) -> Rates:
    """What the rounds bear out; arguments as for `decided`."""
    verdict, best = decided(search.rounds, total_steps, near)
    if search.weights is not None and not search.weights_first and preferred(search.weights):
        best = replace(with_weights(search.weights), weights=())
        verdict = "keep" if best == Setting() else "change"
    own = _own(longer(search.rounds))
    low, high = _likely(search.rounds)
    shorter = (longer(search.rounds)[-1].steps / total_steps) ** HORIZON
    between = math.sqrt(HALF)  # a rung stands for what lies nearer to it than to the next
    runs = (runs for found in search.rounds for s, runs in found.runs.items() if not s.adamw)
    changed = verdict == "change"
    challenger, ahead, told_apart = _challenger(search.rounds, own)
    return Rates(
        verdict,
        best.rate if changed else 1.0,
        (low * shorter / between, high * between),
        bracket(trial for each in runs for trial in each),
        own.rate,
        _gain(search.rounds, best),
        best.adamw if changed else 0.0,
        challenger,
        ahead,
        told_apart,
        on_plateau(search.rounds),
    )


def decided(rounds: Sequence[Round], total_steps: int, near: float | None = None) -> tuple[Verdict, Setting]:
    """Whether the plan's own rates are to change, and what is best: a factor on them, or one AdamW in their place.

    Args:
        rounds: in the order in which they were run.
        total_steps: of the whole run.
        near: the plan's rate where it means to AdamW what it means to the plan's algorithm.
    """
    verdict, best = _leading(rounds, total_steps, near)
    unsure = verdict == "change" and on_plateau(rounds) and not leaves(rounds, best)
    return ("withheld" if unsure else verdict), best


def _leading(rounds: Sequence[Round], total_steps: int, near: float | None) -> tuple[Verdict, Setting]:
    """The same, whether or not the runs are long enough to foretell a whole one."""
    long = longer(rounds)
    best, own, plain = _best(long), _own(long), Setting()
    low, high = _likely(rounds)
    if math.isinf(long[0].score(best)) or (not best.adamw and high > DECADE * low):
        return "withheld", best
    if plain not in long[0].runs:
        return "change", best
    for each in dict.fromkeys((best, own)):
        if each != plain and _beats_plain(long, each, total_steps, near) and _twice(rounds, each):
            return "change", each
    return "keep", own


def longer(rounds: Sequence[Round]) -> Sequence[Round]:
    """Those of longer runs than the ladder's: the last, and what confirms it."""
    return [found for found in rounds if found.name in ("last", "confirm")]


def hardly_fell(found: Round) -> bool:
    """Whether no contestant lowered the loss by a twentieth: their order is that of a warmup."""
    return found.fall() < HARDLY


def on_plateau(rounds: Sequence[Round]) -> bool:
    """Whether the longest runs end before the loss begins to fall: the best lowered it by less than a third, and by
    more, beside the best of the ladder, than in proportion to the length, beyond the noise of the batches judged on.

    A loss that is past its plateau falls ever more slowly. Before, what is ahead is so by luck or by its warmup, and a
    rate at which the plateau is never left looks like any other. A loss that has little to fall does so about in
    proportion to short lengths, which is neither.
    """
    ladder, last = rounds[0], longer(rounds)[0]
    times, short, long = last.steps / ladder.steps, ladder.change(), last.change()
    beyond = Difference(long.mean - times * short.mean, math.hypot(long.error, times * short.error))
    return max(found.fall() for found in longer(rounds)) < -math.log(1 - PLATEAU) and beyond.beats()


def leaves(rounds: Sequence[Round], one: Setting) -> bool:
    """Whether it leaves the plateau where the plan's own rate does not, or is far behind: on two seeds of longer runs
    or more it lowered the loss, and by more than twice as much, each beyond the noise.

    Most of its fall is then owed to what it changes. Luck does not do that twice, and a rate at which the plateau is
    never left does not do it at all.
    """
    pairs = paired(longer(rounds), one, Setting())
    return len(pairs) > 1 and all(_doubles(a, b) for a, b in pairs)


def _doubles(one: Trial, other: Trial) -> bool:
    """Whether a run lowered the loss, and by more than twice as much as another; not where either diverged."""
    if one.diverged or other.diverged:
        return False
    beyond = [a - 2 * b for a, b in zip(one.changes, other.changes, strict=True)]
    return over([one.changes]).beats() and over([beyond]).beats()


def unconfirmed(rounds: Sequence[Round], total_steps: int, near: float | None) -> list[Setting]:
    """What is ahead of the plan's own rate on one seed alone, with that rate; nothing where there is none."""
    long, plain = longer(rounds), Setting()
    if plain not in long[0].runs:
        return []
    for each in dict.fromkeys((_best(long), _own(long))):
        if each != plain and _beats_plain(long, each, total_steps, near) and not _twice(rounds, each):
            return [plain, each]
    return []


def beaten_before(ladder: Round, like: Setting | None = None) -> bool:
    """Whether the plan's own rate is beaten on the ladder, by what is worth it; `like`: by the same kind of change.
    Not where the loss hardly fell there."""
    plain = Setting()
    if hardly_fell(ladder):
        return False
    rivals = [s for s in ladder.runs if s != plain]
    if like is not None:
        alike = [s for s in rivals if bool(s.adamw) == bool(like.adamw)]
        rivals = alike if like.adamw and alike else [s for s in alike or rivals if (s.rate > 1) == (like.rate > 1)]
    return any(d.beats(SURER) and d.mean < -WORTH for d in (ladder.versus(s, plain) for s in rivals))


def _twice(rounds: Sequence[Round], one: Setting) -> bool:
    """Whether more than one seed has it ahead: the ladder's as well as the last round's, or several of longer runs."""
    seeds = [seed for found in longer(rounds) if one in found.runs and Setting() in found.runs for seed in found.seeds]
    return len(seeds) > 1 or beaten_before(rounds[0], one)


def left_behind(rounds: Sequence[Round]) -> bool:
    """Whether short runs are evidence enough against the plan's own rate: on every seed a factor more than a decade off
    beat it beyond the noise."""
    plain, best = Setting(), multiples(rounds[0]).ranked()[0]
    far = abs(math.log10(best.rate)) > 1.1
    return far and all(not hardly_fell(found) and found.versus(best, plain).beats(SURER) for found in rounds)


def _best(long: Sequence[Round]) -> Setting:
    """The best factor, or one AdamW if that is ahead of it over the rounds that have both."""
    own, one = _own(long), best_single(long[0])
    return own if one is None or not together(long, one, own).mean < 0 else one


def _own(long: Sequence[Round]) -> Setting:
    """The best factor on the plan's rates."""
    return multiples(long[0]).lowest_of_the_best()


def _beats_plain(long: Sequence[Round], one: Setting, total_steps: int, near: float | None) -> bool:
    """Whether it beats the plan's own rate: in every seed, over all beyond the noise, by what is worth it, and not only
    because short runs want higher rates."""
    short = flattered(one, long[-1].steps, total_steps, near)
    return not short and agreed(long, one, Setting(), WORTH) and together(long, one, Setting()).beats()


def flattered(one: Setting, steps: int, total_steps: int, near: float | None) -> bool:
    """Whether it is a rate above the plan's by no more than what runs of this length want more than the whole run."""
    by = one.rate if not one.adamw else one.adamw / near if near else math.inf
    return by > 1 + 1e-6 and by * (steps / total_steps) ** HORIZON < HALF ** (1 / 4)


def _challenger(rounds: Sequence[Round], own: Setting) -> tuple[float, float, bool]:
    """The rate of the best one AdamW, how much lower than the best factor its loss was, as a share, and whether that is
    beyond the noise."""
    for found in reversed(longer(rounds)):
        one = best_single(found)
        if one is not None:
            other = own if own in found.runs else multiples(found).ranked()[0]
            ahead = found.versus(one, other)
            return one.adamw, 1 - math.exp(ahead.mean), ahead.beats() or found.versus(other, one).beats()
    return 0.0, 0.0, False


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


def _gain(rounds: Sequence[Round], best: Setting) -> float:
    found = _last_with_plain(rounds)
    change = found.versus(best if best in found.runs else found.ranked()[0], Setting()).mean
    return 1.0 if math.isinf(change) else 1 - math.exp(change)


def _likely(rounds: Sequence[Round]) -> tuple[float, float]:
    """From the lowest to the highest factor that is not told apart from the best of a longer round, or is the best of
    one of its seeds."""
    rates: list[float] = []
    for found in map(multiples, longer(rounds)):
        best = found.ranked()[0]
        rates += [s.rate for s in found.runs if s == best or not found.versus(best, s).beats()]
        for i in range(len(found.seeds)):
            each = {s: runs[i : i + 1] for s, runs in found.runs.items()}
            rates.append(Round(found.name, found.seeds[i : i + 1], found.steps, each).ranked()[0].rate)
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
