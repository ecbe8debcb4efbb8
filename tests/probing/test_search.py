"""Which rates are run: against made-up jobs whose best rate is known for each length of a run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import stdev
from typing import Any, cast

import pytest

from groupwise.probing.rates import decided, flattered, leaves, on_plateau
from groupwise.probing.rounds import Round, Search, difference, preferred
from groupwise.probing.search import Trials, planned, search
from groupwise.probing.single import Single
from groupwise.probing.trial import Setting, Trial

STEPS = 400
WIGGLE = (0.001, -0.001, 0.002, -0.002)
"""What a batch adds to a loss; two contestants differ in it by as much again."""


class Made:
    """Runs of a job whose loss is a parabola over the logarithm of the rate, its bottom a function of the length.

    That of one AdamW has its bottom at 0.01, and is lower by `gain`.
    """

    def __init__(
        self, best: Callable[[int], float], width: float = 1.0, noise: float = 1.0, gain: float | None = None
    ) -> None:
        self.best, self.width, self.noise, self.gain = best, width, noise, gain
        self.done: list[Trial] = []

    def run(self, setting: Setting, seed: int, steps: int, watch: object = None) -> Trial:
        key = setting, seed, steps
        if found := [t for t in self.done if (t.setting, t.seed, t.steps) == key]:
            return found[0]
        off = setting.adamw / 0.01 if setting.adamw else setting.rate / self.best(steps)
        lower = (self.gain or 0.0) if setting.adamw else 0.0
        away = (math.log10(off) / self.width) ** 2
        shift = len(self.done) % 3
        end = [
            math.exp(min(away, 4.0) - 2 - lower + self.noise * WIGGLE[(i + shift * (i % 2)) % 4])
            for i in range(len(WIGGLE))
        ]
        made = Trial(setting, seed, steps, (1.0,) * steps, ({"loss": 1.0},) * 4, tuple({"loss": x} for x in end))
        self.done.append(made)
        return made

    @property
    def cost(self) -> float:
        return sum(trial.cost for trial in self.done)


def _always(best: float) -> Callable[[int], float]:
    return lambda _: best


def found(made: Made, budget: float = 1.5) -> Search:
    single = None if made.gain is None else Single(0.1, 0.1, None)
    schedule = planned(STEPS, budget, False, 0, single)
    return search(cast(Trials, cast(Any, made)), schedule, (), (), single)


def advised(made: Made, budget: float = 1.5) -> Setting:
    verdict, best = decided(found(made, budget).rounds, STEPS)
    return best if verdict == "change" else Setting()


def last(search: Search) -> Round:
    return next(each for each in search.rounds if each.name == "last")


@pytest.mark.parametrize("power", [-4, -2, 2, 4, 6])
def test_the_best_rate_is_advised_to_a_quarter_of_a_decade(power: int) -> None:
    rate = advised(Made(_always(10 ** (power / 2)), width=2.0)).rate
    assert abs(math.log10(rate) - power / 2) < 0.26


@pytest.mark.parametrize(("short", "long"), [(31.6, 10.0), (10.0, 3.16), (0.1, 0.178)])
def test_a_best_rate_that_moves_with_the_length_is_followed(short: float, long: float) -> None:
    tried = last(found(Made(lambda steps: short if steps < 50 else long)))
    assert abs(math.log10(tried.ranked()[0].rate / long)) < 0.26
    assert list(tried.runs) == sorted(tried.runs, key=lambda s: s.rate)


def test_the_plans_own_rate_is_in_the_last_round_within_a_decade_of_the_best() -> None:
    for best in (0.1, 0.316, 1.0, 3.16, 10.0):
        assert Setting() in last(found(Made(_always(best)))).runs


@pytest.mark.parametrize(("best", "side"), [(1.5, 3.16), (0.67, 0.316)])
def test_a_step_from_the_plans_own_rate_goes_to_the_side_where_shorter_runs_were_lower(
    best: float, side: float
) -> None:
    made = Made(_always(best))
    assert {setting.rate for setting in last(found(made)).runs} == {1.0, side}


@pytest.mark.parametrize(("best", "side"), [(1.5, 0.0316), (0.67, 0.00316)])
def test_a_step_from_one_adamw_that_the_ladder_lacks_goes_to_the_side_where_the_plans_rates_were_lower(
    best: float, side: float
) -> None:
    made, single = Made(_always(best), gain=0.5), Single(0.01, 0.01, 0.01)
    rounds = search(cast(Trials, cast(Any, made)), planned(STEPS, 1.5, False, 0, single), (), (), single).rounds
    (tried,) = [each for each in rounds if each.name == "last"]
    assert {s.adamw for s in tried.runs if s.adamw} == {0.01, side}


def test_the_plans_own_rate_is_left_behind_only_beyond_the_noise_and_on_two_seeds() -> None:
    far = found(Made(lambda _: 31.6))
    assert Setting() not in last(far).runs
    seeds = {seed for each in far.rounds if Setting() in each.runs for seed in each.seeds}
    assert len(seeds) == 2
    assert Setting() in last(found(Made(lambda _: 31.6, width=40.0, noise=20.0))).runs


@pytest.mark.parametrize("budget", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("gain", [None, 0.0, 0.1])
@pytest.mark.parametrize("best", [0.01, 1.0, 3.16, 100.0])
def test_a_budget_is_kept_and_the_last_round_is_longer_than_the_first(
    budget: float, gain: float | None, best: float
) -> None:
    made = Made(_always(best), gain=gain)
    rounds = found(made, budget).rounds
    assert rounds[0].steps < last(Search(rounds, None, ())).steps <= STEPS
    assert made.cost <= budget * STEPS


def test_of_factors_within_one_standard_error_of_the_best_the_lowest_is_taken() -> None:
    tried = last(found(Made(lambda _: 1.0, width=1e3)))
    assert tried.lowest_of_the_best().rate == min(s.rate for s in tried.runs)


def test_a_plan_that_is_as_good_as_any_is_kept() -> None:
    for gain in (None, -0.05, 0.0, 0.005):
        assert advised(Made(_always(1.0), gain=gain)) == Setting()
    assert advised(Made(_always(1.0), width=1e3)) == Setting()


@pytest.mark.parametrize("best", [1.0, 3.16, 100.0])
def test_one_adamw_takes_the_place_of_a_plan_that_is_behind_it_at_all_rates(best: float) -> None:
    assert advised(Made(_always(best), gain=0.1)).adamw == pytest.approx(0.01)


@pytest.mark.parametrize("best", [3.16, 10.0, 100.0])
def test_one_adamw_does_not_take_the_place_of_a_plan_that_is_ahead_of_it_at_another_rate(best: float) -> None:
    chosen = advised(Made(_always(best), gain=-0.1))
    assert not chosen.adamw
    assert chosen.rate > 1


def test_what_is_ahead_on_one_seed_alone_is_not_advised() -> None:
    """A lucky run: on the second seed alone x0.316 is ahead by far."""

    class Lucky(Made):
        def run(self, setting: Setting, seed: int, steps: int, watch: object = None) -> Trial:
            self.best = _always(0.316 if seed == 2 else 1.0)
            return super().run(setting, seed, steps, watch)

    assert advised(Lucky(_always(1.0))) == Setting()
    assert any(each.name == "confirm" for each in found(Lucky(_always(1.0))).rounds)


def test_a_rate_that_short_runs_want_is_not_taken_for_one_that_the_whole_run_wants() -> None:
    assert flattered(Setting(1.78), 60, 300, None)  # 1.78 * (1/5)^0.32 = 1.06
    assert not flattered(Setting(3.16), 60, 300, None)
    assert not flattered(Setting(0.562), 60, 300, None)
    assert not flattered(Setting(1.78), 300, 300, None)
    assert flattered(Setting(adamw=1.78e-3), 60, 300, 1e-3)
    assert not flattered(Setting(adamw=1e-3), 60, 300, 1e-3)


class Plateau(Made):
    """A loss that falls as a power of the length; `ahead` has x3.16 fall `by` so much more. Batches may be `uneven`."""

    def __init__(
        self,
        power: float,
        share: float,
        ahead: bool = True,
        noise: float = 0.01,
        uneven: bool = False,
        by: Sequence[float] = (1.5,),
    ) -> None:
        super().__init__(_always(1.0), noise=noise)
        self.power, self.share, self.ahead, self.by = power, share, ahead, by
        self.hard = (0.5, 1.0, 1.5, 2.0) if uneven else (1.0,) * 4

    def run(self, setting: Setting, seed: int, steps: int, watch: object = None) -> Trial:
        made = super().run(setting, seed, steps, watch)
        leads = self.by[seed % len(self.by)] if self.ahead == (setting.rate == 3.16) else 1.0
        fall = self.share * (steps / 100) ** self.power * leads
        start = tuple({"loss": hard} for hard in self.hard)
        end = tuple({"loss": self.hard[i] * math.exp(self.noise * WIGGLE[i] - fall)} for i in range(4))
        return Trial(setting, seed, steps, made.losses, start, end)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("power", [1.2, 2.0, 4.0])
def test_what_is_ahead_on_a_plateau_is_not_advised(power: float, uneven: bool) -> None:
    tried = found(Plateau(power, 0.1, uneven=uneven)).rounds
    assert decided(tried, STEPS)[0] == "withheld"
    assert on_plateau(tried)


@pytest.mark.parametrize("power", [1.02, 1.05, 1.1])
def test_a_loss_that_falls_faster_than_in_proportion_within_the_noise_is_not_on_a_plateau(power: float) -> None:
    """The excess over the proportion beside its standard error, in which the ladder's counts many times."""
    for noise in (0.1, 1.0, 3.0, 10.0):
        tried = found(Plateau(power, 0.1, noise=noise)).rounds
        ladder, longest = tried[0], last(Search(tried, None, ()))
        times = longest.steps / ladder.steps
        excess = 0.1 * 1.5 * ((longest.steps / 100) ** power - times * (ladder.steps / 100) ** power)
        error = noise * stdev(WIGGLE) / 2 * math.hypot(1.0, times)
        assert on_plateau(tried) == (excess > 2 * error)
        assert decided(tried, STEPS)[0] == ("withheld" if excess > 2 * error else "change")


@pytest.mark.parametrize(("power", "share"), [(0.0, 0.2), (0.5, 0.1), (0.9, 0.1), (2.0, 0.9)])
def test_a_loss_that_falls_ever_more_slowly_or_has_fallen_by_a_third_is_past_its_plateau(
    power: float, share: float
) -> None:
    tried = found(Plateau(power, share)).rounds
    assert decided(tried, STEPS) == ("change", Setting(3.16))
    assert not on_plateau(tried)


@pytest.mark.parametrize(
    ("by", "verdict"), [((2.2,), "change"), ((2.2, 3.0), "change"), ((1.8,), "withheld"), ((3.0, 1.8), "withheld")]
)
def test_what_leaves_a_plateau_more_than_twice_as_far_as_the_plan_on_each_seed_is_advised(
    by: tuple[float, ...], verdict: str
) -> None:
    tried = found(Plateau(2.0, 0.05, by=by)).rounds
    assert on_plateau(tried)
    assert decided(tried, STEPS)[0] == verdict


def test_a_loss_that_does_not_fall_leaves_no_plateau() -> None:
    """The plan's own rate has the loss rise by a fiftieth on both seeds, and another has it stay."""
    plain, other = Setting(), Setting(3.16)

    def trial(setting: Setting, seed: int, change: float) -> Trial:
        end = tuple({"loss": math.exp(change + 0.01 * x)} for x in WIGGLE)
        return Trial(setting, seed, 80, (1.0,) * 80, ({"loss": 1.0},) * 4, end)

    def rounds(change: float) -> list[Round]:
        own = {seed: {plain: (trial(plain, seed, 0.02),), other: (trial(other, seed, change),)} for seed in (2, 3)}
        return [Round("last", (2,), 80, own[2]), Round("confirm", (3,), 80, own[3])]

    assert not leaves(rounds(0.0), other)
    assert leaves(rounds(-0.01), other)
    assert not leaves(rounds(-0.01)[:1], other)


def test_a_plan_that_is_ahead_on_a_plateau_is_kept() -> None:
    assert decided(found(Plateau(2.0, 0.05, ahead=False)).rounds, STEPS)[0] == "keep"


def test_a_ladder_on_which_the_loss_hardly_fell_is_no_evidence_against_the_plan() -> None:
    """x31.6 is ahead beyond the noise by thousandths of the loss: the plan's own rate goes on, without a check."""

    class Tiny(Made):
        def run(self, setting: Setting, seed: int, steps: int, watch: object = None) -> Trial:
            made = super().run(setting, seed, steps, watch)
            fall = 1e-3 * math.log10(setting.rate) if steps < 50 else 0.0
            end = tuple({"loss": math.exp(1e-5 * WIGGLE[i] - fall)} for i in range(4))
            return Trial(setting, seed, steps, made.losses, made.start, end)

    rounds = found(Tiny(_always(31.6))).rounds
    assert rounds[0].ranked()[0].rate > 10
    assert rounds[0].versus(rounds[0].ranked()[0], Setting()).beats(3)
    assert [each.name for each in rounds] == ["ladder", "last"]
    assert Setting() in rounds[1].runs
    assert rounds[1].seeds == (2,)


class Drowned(Made):
    """Two tasks: one falls as in `Made`; the other under weights alone, by a tenth in so many updates."""

    def __init__(self, best: float, after: int) -> None:
        super().__init__(_always(best))
        self.after = after

    def run(self, setting: Setting, seed: int, steps: int, watch: object = None) -> Trial:
        made = super().run(replace(setting, weights=()), seed, steps, watch)
        quiet = math.exp(-0.1) if setting.weights and steps >= self.after else 1.0
        start = tuple({"loud": x["loss"], "quiet": 1.0} for x in made.start)
        return Trial(
            setting, seed, steps, made.losses, start, tuple({"loud": x["loss"], "quiet": quiet} for x in made.end)
        )


WEIGHTS = (("loud", 0.1), ("quiet", 10.0))


def weighed(made: Made, dominated: bool) -> Search:
    trials = cast(Trials, cast(Any, made))
    return search(trials, planned(STEPS, 1.5, True, 0, None), WEIGHTS, (), dominated=dominated)


@pytest.mark.parametrize("best", [1.0, 3.16, 10.0, 100.0])
def test_where_a_task_dominates_weights_are_tried_first_and_longer_and_rates_under_them(best: float) -> None:
    made = Drowned(best, after=STEPS // 4)
    tried = weighed(made, dominated=True)
    assert tried.weights is not None
    assert preferred(tried.weights)
    assert (
        tried.weights.steps > 1.1 * cast(Round, weighed(Drowned(best, after=STEPS // 4), dominated=False).weights).steps
    )
    runs = last(tried).runs.values()
    assert all(trial.setting.weights == WEIGHTS for own in runs for trial in own)
    assert made.cost <= 1.5 * STEPS
    verdict, chosen = decided(tried.rounds, STEPS)
    assert abs(math.log10((chosen.rate if verdict == "change" else 1.0) / best)) < 0.26


def test_where_weights_are_no_better_rates_are_those_under_the_plain_sum() -> None:
    tried = weighed(Drowned(10.0, after=STEPS), dominated=True)
    assert not preferred(cast(Round, tried.weights))
    assert not any(trial.setting.weights for own in last(tried).runs.values() for trial in own)
    assert decided(tried.rounds, STEPS) == ("change", Setting(10.0))


@pytest.mark.parametrize(("best", "width"), [(1.0, 1.0), (10.0, 1.0), (1.0, 1e3)])
def test_weights_are_tried_at_the_rates_that_are_advised(best: float, width: float) -> None:
    made = Made(_always(best), width)
    trials = cast(Trials, cast(Any, made))
    tried = search(trials, planned(STEPS, 1.5, True, 0, None), (("a", 1.0), ("b", 2.0)), ())
    weighing = tried.weights
    assert weighing is not None
    plain, weighted = weighing.runs
    assert (plain.rate, plain.weights) == (weighted.rate, ())
    assert weighted.weights
    assert abs(math.log10(plain.rate / best)) < 0.26
    assert made.cost <= 1.5 * STEPS


def test_a_difference_is_that_of_pairs() -> None:
    made = Made(lambda _: 1.0)
    one, other = ([made.run(Setting(rate), seed, 100) for seed in (2, 3)] for rate in (1.0, 10.0))
    assert difference(one, other).mean == pytest.approx(-1.0, abs=0.01)
    assert difference(one, other).beats()
    assert not difference(other, one).beats()
