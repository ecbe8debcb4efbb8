"""Which rate: successive halving over a ladder of factors on the plan's own rates, paid from a stated budget.

    ladder      factors half a decade apart, from a third to thirty times the plan's rate, in short runs of one seed
    last        three, six times as long, on another seed: the best, the plan's own rate, and from there uphill, one
                neighbour of the best so far after another. What the budget holds beyond 1.5 runs goes into more seeds
    weights     where there are several tasks and the plan balances none: the best with weights of 1 over the first
                losses, beside the plain sum
    parts       from half of what is beyond 1.5 runs: for each rule with a rate of its own, a third and three times it

The plan's own rate goes on until it is beaten beyond the noise (Jamieson & Talwalkar 2016, with an incumbent). All
contestants of a seed start from one model, see the same batches and are judged on the same ones, so differences are
paired. Short runs flatter high rates, so of those that are not told apart the lowest is taken. That the best rate falls
as the length to the power of -0.32 (Bjorck et al. 2024, language models from 760 M parameters) moves the lower end of
where the best is likely, and not the advice: on the jobs of benchmarks/probe_jobs.py, under seeds of which none is in
the published table, the best of 3/8 of a run was as often below that of the whole as above it, and what is advised is
what was run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import final

from groupwise.errors import ProbeError
from groupwise.plan import Plan
from groupwise.probing.job import JUDGED_ON, Job
from groupwise.probing.trial import Judged, Setting, Trial, Watch, overhead, train

HALF: float = math.sqrt(10)
"""Between two rungs of the ladder: half a decade."""

LADDER = (-1, 0, 1, 2, 3)
HIGHEST, LOWEST = 6, -6
"""Powers of `HALF`: the ladder, and how far it is extended where the best is at its end."""

SHORTEST = 8
"""Updates of the shortest contestant that says anything."""

HORIZON = 0.32
"""How the best rate falls with the length of a run: Bjorck et al. 2024, Scaling optimal LR across token horizons, the
joint fit from 760 M parameters; fits of single sizes are 0.32 to 0.7."""

NOISE = 2.0
"""Standard errors of a paired difference from which it counts."""

SURER = 3.0
"""The same where several parts are tried, so that one of them differs by chance."""


def factor(power: int) -> float:
    """A rung of the ladder as people write it: 0.1, 0.316, 1, 3.16, 10."""
    return float(f"{HALF**power:.3g}")


@final
@dataclass(frozen=True)
class Schedule:
    """How a budget is spent.

    Attributes:
        ladder: updates of a run of the first round.
        joint: what the rounds over the joint rate and the weights may cost, in updates.
        seeds: of the last round.
        parts: what rules on their own may cost, in updates.
        longest: the batches that a run may need.
    """

    ladder: int
    joint: float
    seeds: int
    parts: float
    longest: int


LAST = 6
"""How much longer the last round's runs are than the ladder's, about."""


def planned(total_steps: int, budget: float, several_tasks: bool, parts: int) -> Schedule:
    """How a budget, in multiples of the whole run, is spent. Raises `ProbeError` if it is too small."""
    beyond = max(0.0, budget - 1.5)
    joint = budget - beyond / 2 if parts else budget
    seeds = 1 + int((joint - min(budget, 1.5)) / 1.25)
    runs = (4 if several_tasks else 3) * seeds
    work = len(LADDER) + runs * LAST
    unit = (joint * total_steps - (len(LADDER) + runs) * overhead()) / work
    if unit < SHORTEST:
        least = math.ceil(100 * (SHORTEST * work + (len(LADDER) + runs) * overhead()) / total_steps) / 100
        raise ProbeError(
            f"budget={budget:g} of a run of {total_steps} updates is too small to tell rates apart: {least:g} are the "
            "least"
        )
    ladder = min(total_steps, int(unit))
    rest = (budget - joint) * total_steps
    return Schedule(ladder, joint * total_steps, seeds, rest, max((LAST + 1) * ladder, JUDGED_ON))


@final
@dataclass
class Trials:
    """The runs made so far, each at most once; what a file held is not run again."""

    job: Job
    done: dict[tuple[Setting, int, int], Trial] = field(default_factory=dict)
    after: Callable[[Trial], None] = lambda _: None
    _starts: dict[int, Judged] = field(default_factory=dict)

    def run(self, setting: Setting, seed: int, steps: int, watch: Watch | None = None) -> Trial:
        """A contestant, run now if it was not before."""
        key = setting, seed, steps
        if key not in self.done or watch is not None:
            known = seed if self.job.is_made else 0
            made = train(self.job, setting, seed, steps, self._starts.get(known), watch)
            self._starts[known] = made.start
            self.done[key] = made
            self.after(made)
        return self.done[key]

    @property
    def cost(self) -> float:
        """In updates."""
        return sum(trial.cost for trial in self.done.values())


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
    pairs = [[a - b for a, b in zip(x.scores, y.scores, strict=True)] for x, y in zip(one, other, strict=True)]
    means = [fmean(own) for own in pairs]
    within = math.sqrt(sum(_variance(own) / len(own) for own in pairs)) / len(pairs)
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
        return sorted(self.runs, key=lambda s: (self.score(s), s.rate))

    def score(self, setting: Setting) -> float:
        """The mean of what it was judged at, over seeds and batches."""
        runs = self.runs[setting]
        return math.inf if any(t.diverged for t in runs) else fmean(fmean(t.scores) for t in runs)

    def versus(self, one: Setting, other: Setting) -> Difference:
        """How one did beside the other."""
        return difference(self.runs[one], self.runs[other])


@final
@dataclass(frozen=True)
class Search:
    """What was tried, in order: `rounds` over the rate; weights and parts, where they were tried."""

    rounds: tuple[Round, ...]
    weights: Round | None
    parts: tuple[Round, ...]


def search(trials: Trials, schedule: Schedule, weights: Sequence[tuple[str, float]], parts: Sequence[int]) -> Search:
    """Try rates, then weights, then parts. `weights` are those to try beside the plain sum; empty for none."""
    weighing = None
    runs = (4 if weights else 3) * schedule.seeds
    ladder = _ladder(trials, schedule, runs)
    steps = _afforded(schedule.joint - trials.cost, runs, schedule)
    seeds = tuple(range(2, 2 + schedule.seeds))
    last = _last(trials, ladder, seeds, steps)
    best = lowest_of_the_best(last)
    if weights:
        weighing = _round(trials, "weights", [best, replace(best, weights=tuple(weights))], seeds, steps)
        best = replace(best, weights=tuple(weights)) if preferred(weighing) else best
    return Search((ladder, last), weighing, tuple(_parts(trials, schedule, best, parts)))


def _afforded(updates: float, runs: int, schedule: Schedule) -> int:
    """How long each of some runs can be."""
    return max(schedule.ladder, min(int(updates / runs - overhead()), schedule.longest))


def lowest_of_the_best(last: Round) -> Setting:
    """Of what is not told apart from the best, the lowest rate: a short run flatters high ones."""
    best = last.ranked()[0]
    alike = [s for s in last.runs if s == best or not (math.isinf(last.score(s)) or last.versus(best, s).beats())]
    return min(alike, key=lambda s: s.rate)


def preferred(weighing: Round) -> bool:
    """Whether the weights that were tried beat the plain sum, in every seed and beyond the noise."""
    plain, weighted = list(weighing.runs)
    each = [difference([a], [b]).mean < 0 for a, b in zip(weighing.runs[weighted], weighing.runs[plain], strict=True)]
    return all(each) and weighing.versus(weighted, plain).beats()


def _round(trials: Trials, name: str, settings: Iterable[Setting], seeds: tuple[int, ...], steps: int) -> Round:
    runs = {setting: tuple(trials.run(setting, seed, steps) for seed in seeds) for setting in settings}
    return Round(name, seeds, steps, runs)


def _ladder(trials: Trials, schedule: Schedule, later: int) -> Round:
    """The first round, extended where the best is at its end, as long as twice its length is left for later runs."""
    steps = schedule.ladder
    powers = {power: trials.run(Setting(factor(power)), 1, steps) for power in LADDER}
    while (more := _further(powers)) is not None:
        if schedule.joint - trials.cost - steps < later * (2 * steps + overhead()):
            break
        powers[more] = trials.run(Setting(factor(more)), 1, steps)
    return Round("ladder", (1,), steps, {Setting(factor(power)): (powers[power],) for power in sorted(powers)})


def _further(powers: Mapping[int, Trial]) -> int | None:
    """The next rung to try beyond an end, or None."""
    fine = {power: fmean(trial.scores) for power, trial in powers.items() if not trial.diverged}
    best = min(fine, key=fine.__getitem__) if fine else min(powers)
    if best == min(powers) and best > LOWEST:
        return best - 1
    top = max(powers)
    return top + 1 if best == top and top in fine and top < HIGHEST else None


def _last(trials: Trials, ladder: Round, seeds: tuple[int, ...], steps: int) -> Round:
    """Three: the best of the ladder, the plan's own rate, and then the likelier neighbour of whichever is ahead.

    Which of them is ahead is asked after each, so that a best rate that moves with the length of a run is followed.
    """
    plain, first = Setting(), ladder.ranked()[0]
    settings = [first]
    if first != plain and not _left_behind(ladder, first, plain):
        settings.append(plain)
    found = _round(trials, "last", settings, seeds, steps)
    while len(settings) < 3:
        settings.append(_next(ladder, found))
        found = _round(trials, "last", settings, seeds, steps)
    return replace(found, runs={s: found.runs[s] for s in sorted(settings, key=lambda s: s.rate)})


def _left_behind(ladder: Round, best: Setting, plain: Setting) -> bool:
    """Whether short runs are evidence enough against the plan's own rate: more than a decade off, beyond the noise."""
    return abs(math.log10(best.rate / plain.rate)) > 1.1 and ladder.versus(best, plain).beats(SURER)


def _next(ladder: Round, last: Round) -> Setting:
    """A neighbour of the best so far that has not been run; of two the one that did better on the ladder."""
    known = {s.rate: ladder.score(s) for s in ladder.runs}
    beside = [
        (place, known.get(rate, math.inf), rate)
        for place, ahead in enumerate(last.ranked())
        for rate in (factor(_power(ahead) - 1), factor(_power(ahead) + 1))
        if Setting(rate) not in last.runs
    ]
    return Setting(min(beside)[2])


def _power(setting: Setting) -> int:
    return round(math.log(setting.rate) / math.log(HALF))


def _parts(trials: Trials, schedule: Schedule, best: Setting, parts: Sequence[int]) -> Iterator[Round]:
    """A third and three times the rate of each rule, as many as can be afforded at twice the ladder's length."""
    seeds, least = (2, 3), 2 * schedule.ladder + overhead()
    number = min(len(parts), int((schedule.parts / least - len(seeds)) / (2 * len(seeds))))
    if number < 1:
        return
    steps = _afforded(schedule.parts, (2 * number + 1) * len(seeds), schedule)
    for part in parts[:number]:
        settings = [best, *(replace(best, part=part, factor=by) for by in (factor(-1), factor(1)))]
        yield _round(trials, f"part {part}", settings, seeds, steps)


def classes_of(plan: Plan) -> list[int]:
    """The places of the rules that declare a rate or an algorithm for a part of the model."""
    return [
        i
        for i, rule in enumerate(plan.rules)
        if str(rule.match) != "*" and ({"lr", "optimizer"} & set(rule.declarations))
    ]
