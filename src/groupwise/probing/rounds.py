"""What rounds of short runs hold, and how runs are compared: in pairs, with the noise of the batches and the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, stdev
from typing import final

from groupwise.probing.trial import Setting, Trial

NOISE = 2.0
"""Standard errors of a paired difference from which it counts."""

HARDLY = 0.05
"""A loss that did not fall by this, in natural logarithms, stayed where it was."""

KEPT = 0.8
"""How much of a fall a task has to keep under weights that have others learn."""

SURER = 3.0
"""The same where the plan's own rate is given up, or where one of several parts may differ by chance."""


@final
@dataclass(frozen=True)
class Difference:
    """How much lower one contestant is judged than another, in pairs: mean and standard error, over seeds and batches.

    The mean is in natural logarithms of the loss over its start; below 0 the first is better.
    """

    mean: float
    error: float

    def beats(self, errors: float = NOISE) -> bool:
        """Whether the first is better beyond the noise."""
        return self.mean < 0 and -self.mean > errors * self.error


def difference(one: Sequence[Trial], other: Sequence[Trial]) -> Difference:
    """Of runs of the same seeds, in order. What diverged is worse than anything, and two that did are alike."""
    bad, worse = any(t.diverged for t in one), any(t.diverged for t in other)
    if bad or worse:
        return Difference(0.0 if bad and worse else math.inf if bad else -math.inf, 0.0)
    return over([[a - b for a, b in zip(x.scores, y.scores, strict=True)] for x, y in zip(one, other, strict=True)])


def over(seeds: Sequence[Sequence[float]]) -> Difference:
    """Mean and standard error of differences by seed and batch."""
    means = [fmean(own) for own in seeds]
    within = math.sqrt(sum(_variance(own) / len(own) for own in seeds)) / len(seeds)
    between = stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return Difference(fmean(means), max(within, between))


def _variance(values: Sequence[float]) -> float:
    return stdev(values) ** 2 if len(values) > 1 else 0.0


@final
@dataclass(frozen=True)
class Round:
    """Contestants of one length, each on the same seeds."""

    name: str
    seeds: tuple[int, ...]
    steps: int
    runs: Mapping[Setting, tuple[Trial, ...]]

    def ranked(self) -> list[Setting]:
        """Best first; of those that diverged, the slowest first."""
        return sorted(self.runs, key=lambda s: (self.score(s), s.adamw, s.rate))

    def lowest_of_the_best(self) -> Setting:
        """The lowest factor within one standard error of the best: a short run flatters high ones."""
        best = self.ranked()[0]
        alike = [s for s in self.runs if s == best or not (math.isinf(self.score(s)) or self.versus(best, s).beats(1))]
        return min(alike, key=lambda s: (s.adamw, s.rate))

    def score(self, setting: Setting) -> float:
        """The mean of what it was judged at, over seeds and batches."""
        runs = self.runs[setting]
        return math.inf if any(t.diverged for t in runs) else fmean(fmean(t.scores) for t in runs)

    def fall(self) -> float:
        """How much the best lowered the loss, in natural logarithms; 0 where none did."""
        return max(0.0, -self.score(self.ranked()[0]))

    def change(self) -> Difference:
        """What became of the loss of the best beside its start, batch by batch; nothing where it diverged."""
        runs = self.runs[self.ranked()[0]]
        return Difference(0.0, 0.0) if any(t.diverged for t in runs) else over([t.changes for t in runs])

    def versus(self, one: Setting, other: Setting) -> Difference:
        """How one did beside the other."""
        return difference(self.runs[one], self.runs[other])


@final
@dataclass(frozen=True)
class Search:
    """What was tried: `rounds` over the rate, in order; weights and parts, where they were tried.

    With `weights_first` the last round was run after the weights, under those that were better.
    """

    rounds: tuple[Round, ...]
    weights: Round | None
    parts: tuple[Round, ...]
    weights_first: bool = False


def multiples(found: Round) -> Round:
    """Of a round, the contestants that have the plan's algorithms, its rates times a factor."""
    return replace(found, runs={s: runs for s, runs in found.runs.items() if not s.adamw})


def best_single(found: Round) -> Setting | None:
    """Of a round, the best one AdamW; None if there was none, or none that did not diverge."""
    one = next((s for s in found.ranked() if s.adamw), None)
    return None if one is None or math.isinf(found.score(one)) else one


def paired(rounds: Sequence[Round], one: Setting, other: Setting) -> list[tuple[Trial, Trial]]:
    """Of all the rounds that had both, their runs seed by seed."""
    known = [found for found in rounds if one in found.runs and other in found.runs]
    return [pair for found in known for pair in zip(found.runs[one], found.runs[other], strict=True)]


def together(rounds: Sequence[Round], one: Setting, other: Setting) -> Difference:
    """How one did beside the other over all the rounds that had both, each run's seed counted once."""
    own = [difference([a], [b]) for a, b in paired(rounds, one, other)]
    if any(math.isinf(each.mean) for each in own):
        return Difference(sum(each.mean for each in own if math.isinf(each.mean)), 0.0)
    return Difference(fmean(d.mean for d in own), math.sqrt(sum(d.error**2 for d in own)) / len(own))


def agreed(rounds: Sequence[Round], one: Setting, other: Setting, worth: float = 0.0) -> bool:
    """Whether one was better than the other by `worth`, in each seed of all the rounds that had both."""
    pairs = paired(rounds, one, other)
    return bool(pairs) and all(difference([a], [b]).mean < -worth for a, b in pairs)


def preferred(weighing: Round) -> bool:
    """Whether the weights that were tried beat the plain sum, in every seed and beyond the noise; or have tasks learn
    that it leaves where they were."""
    return _lower(weighing) or bool(started(weighing))


def with_weights(weighing: Round) -> Setting:
    """Of a round over weights, the contestant that has them."""
    return next(setting for setting in weighing.runs if setting.weights)


def started(weighing: Round) -> list[str]:
    """The tasks whose loss hardly fell under the plain sum in any seed, where weights lower theirs beyond the noise in
    each, and leave every other task four fifths of what its loss fell, in logarithms."""
    plain, weighted = weighing.runs.values()
    if any(trial.diverged for trial in (*plain, *weighted)):
        return []
    falls = [{task: -fmean(trial.scores_of([task])) for task in trial.start[0]} for trial in (*plain, *weighted)]
    before, after = falls[: len(plain)], falls[len(plain) :]
    quiet = [task for task in before[0] if all(fall[task] < HARDLY for fall in before)]
    others = [task for task in before[0] if task not in quiet]
    paid = all(b[task] >= KEPT * a[task] for a, b in zip(before, after, strict=True) for task in others)
    if not quiet or not others or not paid:
        return []
    return quiet if all(map(partial(_learns, quiet), plain, weighted)) else []


def _learns(tasks: Sequence[str], plain: Trial, weighted: Trial) -> bool:
    """Whether some tasks are lower in the second run than in the first and than at its start, beyond the noise."""
    own = weighted.scores_of(tasks)
    pairs = [a - b for a, b in zip(own, plain.scores_of(tasks), strict=True)]
    return all(Difference(fmean(x), math.sqrt(_variance(x) / len(x))).beats() for x in (own, pairs))


def _lower(weighing: Round) -> bool:
    plain, weighted = list(weighing.runs)
    each = [difference([a], [b]).mean < 0 for a, b in zip(weighing.runs[weighted], weighing.runs[plain], strict=True)]
    return all(each) and weighing.versus(weighted, plain).beats()
