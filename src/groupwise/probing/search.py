"""Which rate: successive halving over a ladder of factors on the plan's own rates, paid from a stated budget.

    ladder      factors half a decade apart, from a third to thirty times the plan's rate, in short runs of one seed
    last        three, six times as long, on another seed: the best, the plan's own rate, and from there uphill, one
                neighbour of the best so far after another. What the budget holds beyond 1.5 runs goes into more seeds
    weights     where there are several tasks and the plan balances none: weights of 1 over the first losses beside the
                plain sum, at the rates that are advised
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
from statistics import fmean
from typing import final

from groupwise.errors import ProbeError
from groupwise.plan import Plan
from groupwise.probing.job import JUDGED_ON, Job
from groupwise.probing.rates import HALF, decided
from groupwise.probing.rounds import SURER, Round, Search, preferred
from groupwise.probing.trial import Judged, Setting, Trial, Watch, overhead, train

LADDER = (-1, 0, 1, 2, 3)
HIGHEST, LOWEST = 6, -6
"""Powers of `HALF`: the ladder, and how far it is extended where the best is at its end."""

SHORTEST = 8
"""Updates of the shortest contestant that says anything."""


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


def search(trials: Trials, schedule: Schedule, weights: Sequence[tuple[str, float]], parts: Sequence[int]) -> Search:
    """Try rates, then weights, then parts. `weights` are those to try beside the plain sum; empty for none."""
    weighing = None
    runs = (4 if weights else 3) * schedule.seeds
    ladder = _ladder(trials, schedule, runs)
    steps = _afforded(schedule.joint - trials.cost, runs, schedule)
    seeds = tuple(range(2, 2 + schedule.seeds))
    last = _last(trials, ladder, seeds, steps)
    verdict, best = decided((ladder, last))
    base = best if verdict == "change" else Setting()
    if weights:
        more = 1 if base in last.runs else 2
        steps = last.steps if more == 1 else _afforded((schedule.joint - trials.cost) / len(seeds), more, schedule)
        weighing = _round(trials, "weights", [base, replace(base, weights=tuple(weights))], seeds, steps)
        base = replace(base, weights=tuple(weights)) if preferred(weighing) else base
    return Search((ladder, last), weighing, tuple(_parts(trials, schedule, base, parts)))


def _afforded(updates: float, runs: int, schedule: Schedule) -> int:
    """How long each of some runs can be."""
    return max(schedule.ladder, min(int(updates / runs - overhead()), schedule.longest))


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


def _parts(trials: Trials, schedule: Schedule, base: Setting, parts: Sequence[int]) -> Iterator[Round]:
    """A third and three times the rate of each rule, as many as can be afforded at twice the ladder's length."""
    seeds, least = (2, 3), 2 * schedule.ladder + overhead()
    number = min(len(parts), int((schedule.parts / least - len(seeds)) / (2 * len(seeds))))
    if number < 1:
        return
    steps = _afforded(schedule.parts, (2 * number + 1) * len(seeds), schedule)
    for part in parts[:number]:
        settings = [base, *(replace(base, part=part, factor=by) for by in (factor(-1), factor(1)))]
        yield _round(trials, f"part {part}", settings, seeds, steps)


def classes_of(plan: Plan) -> list[int]:
    """The places of the rules that declare a rate or an algorithm for a part of the model."""
    return [
        i
        for i, rule in enumerate(plan.rules)
        if str(rule.match) != "*" and ({"lr", "optimizer"} & set(rule.declarations))
    ]
