"""Which rates are run: against made-up jobs whose best rate is known for each length of a run."""

import math
from collections.abc import Callable
from typing import Any, cast

import pytest

from groupwise.probing.rounds import Search, difference, lowest_of_the_best
from groupwise.probing.search import Trials, planned, search
from groupwise.probing.trial import Setting, Trial

STEPS = 400
WIGGLE = (0.001, -0.001, 0.002, -0.002)
"""What a batch adds to a loss; two contestants differ in it by as much again."""


class Made:
    """Runs of a job whose loss is a parabola over the logarithm of the rate, its bottom a function of the length."""

    def __init__(self, best: Callable[[int], float], width: float = 1.0, noise: float = 1.0) -> None:
        self.best, self.width, self.noise = best, width, noise
        self.done: list[Trial] = []

    def run(self, setting: Setting, seed: int, steps: int, watch: object = None) -> Trial:
        key = setting, seed, steps
        if found := [t for t in self.done if (t.setting, t.seed, t.steps) == key]:
            return found[0]
        away = math.log10(setting.rate / self.best(steps)) / self.width
        shift = len(self.done) % 3
        end = [
            math.exp(min(away**2, 4.0) - 2 + self.noise * WIGGLE[(i + shift * (i % 2)) % 4]) for i in range(len(WIGGLE))
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
    return search(cast(Trials, cast(Any, made)), planned(STEPS, budget, False, 0), (), ())


@pytest.mark.parametrize("power", [-4, -2, 0, 2, 4, 6])
def test_the_best_rate_is_among_the_last_three(power: int) -> None:
    best = 10 ** (power / 2)
    assert lowest_of_the_best(found(Made(lambda _: best)).rounds[-1]).rate == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize(("short", "long"), [(1.0, 10.0), (10.0, 1.0), (0.1, 1.0), (31.6, 10.0)])
def test_a_best_rate_that_moves_with_the_length_is_followed(short: float, long: float) -> None:
    last = found(Made(lambda steps: short if steps < 50 else long)).rounds[-1]
    assert lowest_of_the_best(last).rate == pytest.approx(long, rel=0.01)
    assert list(last.runs) == sorted(last.runs, key=lambda s: s.rate)


def test_the_plans_own_rate_is_in_the_last_round_within_a_decade_of_the_best() -> None:
    for best in (0.1, 0.316, 1.0, 3.16, 10.0):
        assert Setting() in found(Made(_always(best))).rounds[-1].runs


def test_the_plans_own_rate_is_left_behind_only_beyond_the_noise() -> None:
    far = Made(lambda _: 31.6)
    assert Setting() not in found(far).rounds[-1].runs
    assert Setting() in found(Made(lambda _: 31.6, width=40.0, noise=20.0)).rounds[-1].runs


@pytest.mark.parametrize("budget", [1.0, 1.5, 3.0])
def test_the_last_round_is_several_times_as_long_as_the_first(budget: float) -> None:
    made = Made(lambda _: 1.0)
    first, last = found(made, budget).rounds
    assert 4 * first.steps < last.steps <= STEPS
    assert made.cost <= budget * STEPS


def test_rates_that_are_not_told_apart_are_decided_for_the_lowest() -> None:
    last = found(Made(lambda _: 1.0, width=1e3)).rounds[-1]
    assert lowest_of_the_best(last).rate == min(s.rate for s in last.runs)


@pytest.mark.parametrize(("best", "width", "rate"), [(1.0, 1.0, 1.0), (10.0, 1.0, 10.0), (1.0, 1e3, 1.0)])
def test_weights_are_tried_at_the_rates_that_are_advised(best: float, width: float, rate: float) -> None:
    made = Made(_always(best), width)
    trials = cast(Trials, cast(Any, made))
    weighing = search(trials, planned(STEPS, 1.5, True, 0), (("a", 1.0), ("b", 2.0)), ()).weights
    assert weighing is not None
    assert [(s.rate, bool(s.weights)) for s in weighing.runs] == [(rate, False), (rate, True)]
    assert made.cost <= 1.5 * STEPS


def test_a_difference_is_that_of_pairs() -> None:
    made = Made(lambda _: 1.0)
    one, other = ([made.run(Setting(rate), seed, 100) for seed in (2, 3)] for rate in (1.0, 10.0))
    assert difference(one, other).mean == pytest.approx(-1.0, abs=0.01)
    assert difference(one, other).beats()
    assert not difference(other, one).beats()
