"""Which rate: successive halving over a ladder of factors on the plan's own rates, paid from a stated budget.

    ladder      factors half a decade apart, from the plan's own rate up, and down where that is best, in short runs of
                one seed; beside them one AdamW for everything, at rates half a decade apart
    check       only where the best is more than a decade from the plan's own rate: both again, on another seed
    last        on that seed, several times as long: the best of the ladder a small step lower, one AdamW, the plan's
                own rate unless the check left it behind; then small steps about whichever is ahead
    confirm     on a third seed, only where something is ahead of the plan's own rate that was not so on the ladder
    weights     where there are several tasks and the plan balances none: weights of 1 over the first losses beside the
                plain sum, at the rates that are advised; before the last round where one task has nearly all of the
                gradient, since the plain sum then trains that task, and shows the rates that suit it
    parts       from half of what is beyond 1.5 runs: for each rule with a rate of its own, a third and three times it

The plan's own rate is the incumbent (Jamieson & Talwalkar 2016): it goes on until it is beaten beyond the noise on two
seeds, since the best of several short runs is flattered by having been chosen. All contestants of a seed start from one
model, see the same batches and are judged on the same ones, so differences are paired. Short runs flatter high rates:
the best falls as the length to the power of -0.32 (Bjorck et al. 2024, language models from 760 M parameters), and
(1/6)^0.32 = 0.56 is a quarter of a decade, the small step between the ladder and the last round. Of factors within one
standard error of the best the lowest is taken (the one-standard-error rule: Breiman et al. 1984). What is advised is
what was run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Protocol, final

from groupwise.errors import ProbeError
from groupwise.plan import Plan
from groupwise.probing.job import JUDGED_ON, Job
from groupwise.probing.rates import (
    HALF,
    Verdict,
    beaten_before,
    decided,
    hardly_fell,
    left_behind,
    longer,
    on_plateau,
    unconfirmed,
)
from groupwise.probing.rounds import Round, Search, best_single, multiples, preferred
from groupwise.probing.single import Single
from groupwise.probing.trial import Judged, Setting, Trial, Watch, overhead, train

LADDER = (0, 1, 2)
HIGHEST, LOWEST = 6, -6
"""Powers of `HALF`: the ladder, and how far it is extended where the best is at its end."""

SINGLES = (-5, -4)
SINGLES_HIGHEST, SINGLES_LOWEST = -1, -12
"""The same for the rate of one AdamW: 3e-3, 1e-2, and from 1e-6 to 0.3."""

QUARTER = math.sqrt(HALF)
"""A small step: a quarter of a decade."""

SHORTEST = 8
"""Updates of the shortest contestant that says anything."""


def factor(power: float) -> float:
    """A rung of the ladder as people write it: 0.1, 0.316, 1, 3.16, 10."""
    return float(f"{HALF**power:.3g}")


@final
@dataclass(frozen=True)
class Schedule:
    """How a budget is spent.

    Attributes:
        ladder: updates of a run of the first round.
        joint: what the rounds over the joint rate and the weights may cost, in updates.
        seeds: of the last round, and as many again to confirm.
        parts: what rules on their own may cost, in updates.
        longest: the batches that a run may need.
        total: updates of the whole run.
    """

    ladder: int
    joint: float
    seeds: int
    parts: float
    longest: int
    total: int


LADDER_SHARE = 0.05
"""Of the whole run, the most that a run of the ladder takes."""

LAST = 4
"""How much longer than the ladder's the runs of the last round are, at least about."""


def planned(total_steps: int, budget: float, several_tasks: bool, parts: int, single: Single | None) -> Schedule:
    """How a budget, in multiples of the whole run, is spent. Raises `ProbeError` if it is too small."""
    beyond = max(0.0, budget - 1.5)
    joint = budget - beyond / 2 if parts else budget
    short = 2 + len(LADDER) + (len(SINGLES) if single is not None and single.near is None else 0)
    each = 4 if several_tasks else 5 + (single is not None)
    seeds = 1 + int((joint - min(budget, 1.5)) / 1.25)
    while seeds > 1 and _unit(joint * total_steps, short, each * seeds) < SHORTEST:
        seeds -= 1
    unit = _unit(joint * total_steps, short, each * seeds)
    if unit < SHORTEST:
        updates = SHORTEST * (short + each * LAST) + (short + each) * overhead()
        raise ProbeError(
            f"budget={budget:g} of a run of {total_steps} updates is too small to tell rates apart: "
            f"{math.ceil(100 * updates / total_steps) / 100:g} are the least"
        )
    ladder = min(int(total_steps * LADDER_SHARE), int(unit)) if total_steps * LADDER_SHARE >= SHORTEST else SHORTEST
    rest = (budget - joint) * total_steps
    longest = min(total_steps, int(joint * total_steps / 3))
    return Schedule(ladder, joint * total_steps, seeds, rest, max(longest, JUDGED_ON), total_steps)


def _unit(updates: float, short: int, runs: int) -> float:
    """How long a run of the ladder can be, beside so many longer ones."""
    return (updates - (short + runs) * overhead()) / (short + runs * LAST)


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


class Runs(Protocol):
    """What makes contestants: `Trials`, or `Weighted` ones."""

    def run(self, setting: Setting, seed: int, steps: int) -> Trial:
        """A contestant, run now if it was not before."""

    @property
    def cost(self) -> float:
        """Of all runs so far, in updates."""


@final
@dataclass(frozen=True)
class Weighted:
    """The same trials under static weights of the tasks, which stand in for the plan's plain sum."""

    trials: Trials
    weights: tuple[tuple[str, float], ...]

    def run(self, setting: Setting, seed: int, steps: int) -> Trial:
        """The contestant under these weights; rounds know it without them."""
        return self.trials.run(replace(setting, weights=self.weights), seed, steps)

    @property
    def cost(self) -> float:
        """Of all trials so far, in updates."""
        return self.trials.cost


def search(
    trials: Trials,
    schedule: Schedule,
    weights: Sequence[tuple[str, float]],
    parts: Sequence[int],
    single: Single | None = None,
    dominated: bool = False,
) -> Search:
    """Try rates, then weights, then parts; weights before rates where a task is `dominated` by another.

    `weights` are those to try beside the plain sum; empty for none.
    """
    ladder = _ladder(trials, schedule, single)
    rounds = [ladder, *_check(trials, ladder)]
    if weights and dominated:
        return _weights_first(trials, schedule, rounds, tuple(weights), parts, single)
    weighing = None
    near = None if single is None else single.near
    rounds.append(_last(trials, schedule, rounds, single, bool(weights)))
    if not weights and (settings := unconfirmed(rounds, schedule.total, near)):
        rounds += _confirm(trials, schedule, settings)
    verdict, best = decided(rounds, schedule.total, near)
    base = best if verdict == "change" else Setting()
    if weights:
        both = _with_and_without(rounds, verdict, base, tuple(weights))
        last = longer(rounds)[0]
        weighing = _round(trials, "weights", both, last.seeds, last.steps, order=False)
        base = both[1] if preferred(weighing) else base
    tried = () if base.adamw else tuple(_parts(trials, schedule, base, parts))
    return Search(tuple(rounds), weighing, tried)


def _with_and_without(
    rounds: Sequence[Round], verdict: Verdict, base: Setting, weights: tuple[tuple[str, float], ...]
) -> list[Setting]:
    """The plain sum and the weighted one, at what was ahead in the last round even if it is not advised."""
    last = longer(rounds)[0]
    ahead = multiples(last).lowest_of_the_best()
    leads = verdict != "change" and last.versus(ahead, Setting()).beats() and not on_plateau(rounds)
    own = ahead if leads else base
    return [own, replace(own, weights=weights)]


def _weights_first(
    trials: Trials,
    schedule: Schedule,
    rounds: Sequence[Round],
    weights: tuple[tuple[str, float], ...],
    parts: Sequence[int],
    single: Single | None,
) -> Search:
    """Plain and weighted sum at the best rate of the ladder, then that rate beside the plan's under what is better.

    There are few runs, for what a quiet task has to say comes late: each is about two fifths of the whole.
    """
    settings = _contestants(rounds, single, lower=False)
    small = int(len(settings) == 1)
    seeds = _seeds(schedule, rounds[0])
    steps = _afforded(schedule.joint - trials.cost, (len(settings) + small + 1) * len(seeds), schedule)
    both = [settings[0], replace(settings[0], weights=weights)]
    weighing = _round(trials, "weights", both, seeds, steps, order=False)
    under = Weighted(trials, weights if preferred(weighing) else ())
    last = _stepped(under, rounds[0], settings, small, seeds, steps)
    verdict, best = decided([*rounds, last], schedule.total, None if single is None else single.near)
    base = replace(best if verdict == "change" else Setting(), weights=under.weights)
    tried = () if base.adamw else tuple(_parts(trials, schedule, base, parts))
    return Search((*rounds, last), weighing, tried, weights_first=True)


def _afforded(updates: float, runs: int, schedule: Schedule) -> int:
    """How long each of some runs can be."""
    return max(schedule.ladder, min(int(updates / runs - overhead()), schedule.longest))


def _round(
    trials: Runs, name: str, settings: Iterable[Setting], seeds: tuple[int, ...], steps: int, order: bool = True
) -> Round:
    runs = {setting: tuple(trials.run(setting, seed, steps) for seed in seeds) for setting in settings}
    ordered = sorted(runs, key=lambda s: (s.adamw, s.rate)) if order else list(runs)
    return Round(name, seeds, steps, {setting: runs[setting] for setting in ordered})


def _ladder(trials: Trials, schedule: Schedule, single: Single | None) -> Round:
    """The first round: factors on the plan's rates, and one AdamW where its rate is not known from them."""
    settings = _climb(trials, schedule, LADDER, (LOWEST, HIGHEST), lambda power: Setting(factor(power)))
    if single is not None and single.near is None:
        limits = SINGLES_LOWEST, SINGLES_HIGHEST
        settings += _climb(trials, schedule, SINGLES, limits, lambda power: Setting(adamw=factor(power)))
    return _round(trials, "ladder", settings, (1,), schedule.ladder)


def _climb(
    trials: Trials,
    schedule: Schedule,
    powers: Sequence[int],
    limits: tuple[int, int],
    made: Callable[[int], Setting],
) -> list[Setting]:
    """Rungs, extended where the best is at an end, as long as three quarters of the budget are left for later runs."""
    runs = {power: trials.run(made(power), 1, schedule.ladder) for power in powers}
    while (more := _further(runs, limits)) is not None:
        if trials.cost + schedule.ladder + overhead() > schedule.joint / 2.5:
            break
        runs[more] = trials.run(made(more), 1, schedule.ladder)
    return [made(power) for power in runs]


def _further(powers: Mapping[int, Trial], limits: tuple[int, int]) -> int | None:
    """The next rung to try beyond an end, or None."""
    fine = {power: fmean(trial.scores) for power, trial in powers.items() if not trial.diverged}
    best = min(fine, key=fine.__getitem__) if fine else min(powers)
    if best == min(powers) and best > limits[0]:
        return best - 1
    top = max(powers)
    return top + 1 if best == top and top in fine and top < limits[1] else None


def _check(trials: Trials, ladder: Round) -> list[Round]:
    """The best of the ladder and the plan's own rate on another seed, where only that is wanting to give it up."""
    if not left_behind([ladder]):
        return []
    return [_round(trials, "check", [Setting(), multiples(ladder).ranked()[0]], (2,), ladder.steps)]


def _contestants(rounds: Sequence[Round], single: Single | None, lower: bool = True) -> list[Setting]:
    """Of the last round: the best of the ladder, a quarter of a decade `lower` unless it is the plan's own rate; that
    rate unless it is left behind; one AdamW."""
    best = multiples(rounds[0]).ranked()[0]
    settings = [_times(best, 1 / QUARTER) if lower and best != Setting() else best]
    if not left_behind(rounds):
        settings.append(Setting())
    if single is not None:
        settings.append(_one_adamw(rounds[0], best, single))
    return list(dict.fromkeys(settings))


def _seeds(schedule: Schedule, ladder: Round) -> tuple[int, ...]:
    """Of the last round: but one, and longer runs, where those of the ladder hardly lowered the loss."""
    return tuple(range(2, 2 + (1 if hardly_fell(ladder) else schedule.seeds)))


def _last(trials: Trials, schedule: Schedule, rounds: Sequence[Round], single: Single | None, weighs: bool) -> Round:
    """The best of the ladder, one AdamW, the plan's own rate unless it is left behind; small steps about the best."""
    ladder, left = rounds[0], left_behind(rounds)
    settings = _contestants(rounds, single)
    stands = multiples(ladder).ranked()[0] == Setting() and not weighs  # one step, to the better side, in longer runs
    small = 1 if (stands or len(settings) > 2) and not left else 2
    confirmed = 0 if left or weighs or beaten_before(ladder) else 2
    seeds = _seeds(schedule, ladder)
    runs = (len(settings) + small + confirmed + weighs) * len(seeds)
    steps = _afforded(schedule.joint - trials.cost, runs, schedule)
    return _stepped(trials, ladder, settings, small, seeds, steps)


def _stepped(
    trials: Runs, ladder: Round, settings: Sequence[Setting], small: int, seeds: tuple[int, ...], steps: int
) -> Round:
    """The last round, with so many small steps about what is ahead."""
    settings = list(settings)
    for _ in range(small):
        found = _round(trials, "last", settings, seeds, steps)
        if (step := _small_step(ladder, found)) is None:
            return found
        settings.append(step)
    return _round(trials, "last", settings, seeds, steps)


def _one_adamw(ladder: Round, best: Setting, single: Single) -> Setting:
    """One AdamW at the rate that the ladder found best, by a parabola through it and its neighbours; or at the rate of
    the plan where it is best, if that means the same."""
    if single.near is not None:
        by = best.rate if best == Setting() else best.rate / QUARTER
        return Setting(adamw=_on_grid(single.near * by))
    one = best_single(ladder)
    if one is None:
        return Setting(adamw=factor(min(SINGLES)))
    beside = [_times(one, 1 / HALF), _times(one, HALF)]
    if any(s not in ladder.runs or math.isinf(ladder.score(s)) for s in beside):
        return one
    low, middle, high = (ladder.score(s) for s in (beside[0], one, beside[1]))
    bend = low - 2 * middle + high
    return _times(one, HALF ** (0.5 * (low - high) / bend)) if bend > 0 else one


def _small_step(ladder: Round, found: Round) -> Setting | None:
    """A quarter of a decade from the best, to the side where shorter runs were lower (of one AdamW that the ladder did
    not have, those of the plan's own rates); None where both are known. Half a decade from the plan's own rate, and
    where that was the best of the ladder: less is no evidence against it."""
    lead = found.ranked()[0]
    known = {setting: ladder.score(setting) for setting in ladder.runs}
    size = HALF if Setting() in (lead, multiples(ladder).ranked()[0]) else QUARTER
    open_to = [by for by in (1 / size, size) if _times(lead, by) not in found.runs]
    if not open_to:
        return None

    like = lead if any(setting.adamw for setting in known) or not lead.adamw else Setting()

    def shorter(by: float) -> tuple[float, float]:
        near = min(known.get(_times(like, by), math.inf), known.get(_times(like, by * by), math.inf))
        return near, by

    return _times(lead, min(open_to, key=shorter))


def _confirm(trials: Trials, schedule: Schedule, settings: Sequence[Setting]) -> list[Round]:
    """What is ahead of the plan's own rate beside it, on seeds of their own; nothing if the budget does not hold it."""
    seeds = _third(schedule)
    left, runs = schedule.joint - trials.cost, len(settings) * len(seeds)
    if left < runs * (schedule.ladder + overhead()):
        return []
    return [_round(trials, "confirm", settings, seeds, _afforded(left, runs, schedule))]


def _third(schedule: Schedule) -> tuple[int, ...]:
    """Seeds that the ladder and the last round did not have."""
    return tuple(range(2 + schedule.seeds, 2 + 2 * schedule.seeds))


def _times(setting: Setting, by: float) -> Setting:
    if setting.adamw:
        return replace(setting, adamw=_on_grid(setting.adamw * by))
    return replace(setting, rate=_on_grid(setting.rate * by))


def _on_grid(rate: float) -> float:
    """The nearest number of ..., 0.562, 1, 1.78, 3.16, 5.62, 10, ..."""
    return factor(round(math.log(rate, QUARTER)) / 2)


def _parts(trials: Trials, schedule: Schedule, base: Setting, parts: Sequence[int]) -> Iterator[Round]:
    """A third and three times the rate of each rule, as many as can be afforded at twice the ladder's length."""
    seeds, least = (2, 3), 2 * schedule.ladder + overhead()
    number = min(len(parts), int((schedule.parts / least - len(seeds)) / (2 * len(seeds))))
    if number < 1:
        return
    steps = _afforded(schedule.parts, (2 * number + 1) * len(seeds), schedule)
    for part in parts[:number]:
        settings = [base, *(replace(base, part=part, factor=by) for by in (factor(-1), factor(1)))]
        yield _round(trials, f"part {part}", settings, seeds, steps, order=False)


def classes_of(plan: Plan) -> list[int]:
    """The places of the rules that declare a rate or an algorithm for a part of the model."""
    return [
        i
        for i, rule in enumerate(plan.rules)
        if str(rule.match) != "*" and ({"lr", "optimizer"} & set(rule.declarations))
    ]
