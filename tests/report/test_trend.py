"""The course of a loss: noise has none in 99 of 100 series, a change by a factor always is one, on any scale."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from groupwise.report.trend import course, effective_records, half_tail, is_above, is_rising

SERIES = 300
NOISE: dict[str, Callable[[random.Random], float]] = {
    "gaussian": lambda chance: chance.gauss(1.0, 0.2),
    "log-normal": lambda chance: math.exp(chance.gauss(0.0, 1.0)),
    "around 0": lambda chance: chance.gauss(0.0, 1.0),
    "heavy tails": lambda chance: abs(chance.gauss(0, 1) / max(abs(chance.gauss(0, 1)), 1e-3)),
    "coarse": lambda chance: float(chance.randint(1, 3)),
}


@pytest.mark.parametrize("count", [10, 20, 40, 150])
@pytest.mark.parametrize("noise", NOISE)
def test_noise_has_no_course_in_99_of_100_series(noise: str, count: int) -> None:
    said: Counter[bool] = Counter()
    for seed in range(SERIES):
        chance = random.Random(1000 * count + seed)
        found = course([NOISE[noise](chance) for _ in range(count)])
        assert found is not None
        said[found.direction != "unclear"] += 1
    assert said[True] <= 0.01 * SERIES + 3 * math.sqrt(0.01 * SERIES)


def smoothed(chance: random.Random, count: int, memory: float) -> list[float]:
    values, value = [], chance.gauss(0, 1) / math.sqrt(1 - memory**2)
    for _ in range(count):
        value = memory * value + chance.gauss(0, 1)
        values.append(math.exp(0.05 * value))
    return values


@pytest.mark.parametrize(("count", "memory"), [(100, 0.6), (400, 0.9)])
def test_smoothed_noise_has_none_either(count: int, memory: float) -> None:
    found = [course(smoothed(random.Random(seed), count, memory)) for seed in range(100)]
    assert sum(it is not None and it.direction != "unclear" for it in found) <= 4


@pytest.mark.parametrize("count", [10, 40, 400])
@pytest.mark.parametrize("factor", [0.3, 5.0, 1e12])
def test_a_change_by_a_factor_is_one_however_noisy_its_end(count: int, factor: float) -> None:
    for seed in range(20):
        chance = random.Random(seed)
        noise = 0.3 if factor < 100 else 0.7
        found = course(
            [5 * factor ** (i / (count - 1)) * math.exp(noise * chance.gauss(0, 1) / 3) for i in range(count)]
        )
        assert found is not None
        assert found.direction == ("rose" if factor > 1 else "fell")


@pytest.mark.parametrize("count", [20, 100, 400])
def test_a_fall_within_the_first_records_is_seen(count: int) -> None:
    chance = random.Random(0)
    found = course([(0.2 + 2 * math.exp(-i / 3)) * math.exp(chance.gauss(0, 0.1)) for i in range(count)])
    assert found is not None
    assert found.direction == "fell"


@given(st.lists(st.floats(0.01, 100), min_size=10, max_size=60), st.floats(1e-6, 1e6))
def test_the_unit_of_a_loss_does_not_matter(values: list[float], unit: float) -> None:
    one, other = course(values), course([unit * value for value in values])
    assert one is not None
    assert other is not None
    assert (one.direction, one.lowest_at) == (other.direction, other.lowest_at)


def test_a_loss_below_0_falls_too() -> None:
    found = course([-float(i) for i in range(50)])
    assert found is not None
    assert found.direction == "fell"


def test_fewer_than_ten_records_have_no_course_and_what_is_not_finite_counts_none() -> None:
    assert course([1.0] * 9) is None
    assert course([1.0] * 9 + [math.nan, math.inf]) is None


def test_a_course_that_comes_back_has_turned_and_noise_has_not() -> None:
    back = [math.exp(-i / 20) for i in range(60)] + [math.exp(-3 + i / 20) for i in range(60)]
    assert course(back).turned  # type: ignore[union-attr]
    found = [
        course([math.exp(random.Random(seed * 1000 + i).gauss(0, 0.3)) for i in range(100)]) for seed in range(100)
    ]
    assert sum(it.turned for it in found if it is not None) <= 3


def test_flat_is_what_would_have_shown_a_change_of_five_percent() -> None:
    chance = random.Random(0)
    assert course([1 + 0.01 * chance.gauss(0, 1) for _ in range(100)]).flat  # type: ignore[union-attr]
    assert not course([1 + 0.5 * chance.gauss(0, 1) for _ in range(100)]).flat  # type: ignore[union-attr]
    assert not course([1 - i / 200 for i in range(100)]).flat  # type: ignore[union-attr]


def test_a_blow_up_that_comes_back_is_no_fall() -> None:
    found = course([0.7, *(30 * math.exp(-i / 20) + 2 for i in range(100))])
    assert found is not None
    assert (found.direction, found.blew_up) == ("fell", True)
    slow = [
        course([1 - 0.2 * i / 99 + 0.2 * random.Random(1000 * s + i).gauss(0, 1) for i in range(100)])
        for s in range(100)
    ]
    assert not any(it.blew_up for it in slow if it is not None)


def test_a_first_record_that_is_low_by_chance_is_no_blow_up() -> None:
    """Losses of batches of one example differ by factors: squares of one error, around a level that falls."""
    courses = []
    for seed in range(200):
        chance = random.Random(seed)
        courses.append(course([math.exp(-i / 150) * chance.gauss(0, 1) ** 2 for i in range(300)]))
    assert sum(found.blew_up for found in courses if found is not None) <= 2


@pytest.mark.parametrize("count", [20, 40])
@pytest.mark.parametrize("memory", [0.3, 0.6])
def test_the_bias_of_a_short_series_is_corrected(memory: float, count: int) -> None:
    """A fit takes correlation out of what it leaves, the more the fewer records there are."""
    estimates = []
    for seed in range(200):
        values = [math.log(value) for value in smoothed(random.Random(seed), count, memory)]
        effective = effective_records(values - isotonic_regression(values).x)
        estimates.append((count - effective) / (count + effective))
    assert sum(estimates) / len(estimates) == pytest.approx(memory, abs=0.07)


@pytest.mark.parametrize(("end", "turned"), [(2.5, False), (20.0, True)])
def test_a_rise_that_is_small_beside_the_fall_is_no_turn(end: float, turned: bool) -> None:
    fall = [1000.0 ** (1 - i / 59) for i in range(60)]
    rise = [end ** (i / 39) for i in range(40)]
    found = course([*fall, *rise])
    assert found is not None
    assert found.turned is turned


def test_autocorrelation_leaves_fewer_records() -> None:
    chance = random.Random(0)
    white = [chance.gauss(0, 1) for _ in range(400)]
    smooth = [sum(white[i : i + 10]) for i in range(390)]
    assert effective_records(white) > 250
    assert effective_records(smooth) < 60
    assert effective_records([0.0] * 8) == 8


@given(st.lists(st.floats(-5, 5), min_size=10, max_size=30))
def test_a_rising_series_does_not_fall(values: list[float]) -> None:
    ordered = sorted(values)
    if ordered[0] < ordered[-1]:
        assert is_rising(list(itertools.accumulate(range(20))))
        assert not is_rising([-value for value in ordered])


def test_tails_are_those_of_fair_throws() -> None:
    assert half_tail(0, 10) == 1.0
    assert half_tail(8, 8) == pytest.approx(2**-8)
    assert half_tail(600, 1200) == pytest.approx(0.511, abs=0.01)
    assert half_tail(700, 1200) < 1e-7


def test_a_mean_is_above_a_bound_by_its_standard_error() -> None:
    chance = random.Random(0)
    above = sum(is_above([chance.gauss(0, 1) for _ in range(50)], 0.0) for _ in range(400))
    assert above <= 6
    assert is_above([1 + 0.1 * chance.gauss(0, 1) for _ in range(50)], 0.5)
    assert not is_above([1.0] * 7, 0.0)


def test_a_fall_below_the_first_record_is_no_return_to_it() -> None:
    risen = [1.0, *(3.0 - 2.7 * i / 79 for i in range(80))]
    back = [1.0, *(3.0 - 1.8 * i / 79 for i in range(80))]
    assert [(found.direction, found.blew_up) for found in map(course, (risen, back)) if found is not None] == [
        ("fell", False),
        ("fell", True),
    ]
