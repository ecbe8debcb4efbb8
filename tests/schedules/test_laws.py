"""What holds for every schedule, over samples of every shape and of their combinations.

The laws that are shipped for users' own schedules are run on the same samples in tests/testing.
"""

import copy
import math
import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import groupwise.schedules as public
from groupwise.schedules import Schedule, cosine, linear, steps
from tests.schedules.samplers import (
    SHAPES,
    WITHIN_LANDMARKS,
    epoch_sizes,
    numbers,
    schedules,
    shapes,
    spellings,
    totals,
)

by_shape = pytest.mark.parametrize("shape", SHAPES)
some_steps = st.integers(0, 80)


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


@by_shape
@given(st.data(), totals, epoch_sizes)
def test_every_shape_has_a_finite_value_at_every_step(shape: str, data: st.DataObject, total: int, epoch: int) -> None:
    s = data.draw(SHAPES[shape])
    assert all(math.isfinite(s.at(step, total, epoch)) for step in range(total + 3))


@given(schedules)
def test_a_schedule_is_an_immutable_value(s: Schedule) -> None:
    names = {name: getattr(public, name) for name in public.__all__}
    for twin in (eval(repr(s), names), copy.deepcopy(s), pickle.loads(pickle.dumps(s))):
        assert twin == s
        assert hash(twin) == hash(s)
    assert s != s.scaled(2.0)
    with pytest.raises(AttributeError, match="cannot assign to field"):
        s.warmup = None  # type: ignore[attr-defined]


@by_shape
@given(st.data(), st.integers(1, 30), st.integers(0, 30), epoch_sizes)
def test_a_warmup_of_n_gives_t_plus_one_nths_of_the_first_value(
    shape: str, data: st.DataObject, n: int, left: int, epoch: int
) -> None:
    s = _warmed(data.draw(SHAPES[shape]), n)
    for t in range(n):
        assert s.at(t, n + left, epoch) == (t + 1) / n * s.at(n, n + left, epoch)


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"inverse_sqrt"}))  # whose timescale is the warmup
@given(st.data(), st.integers(0, 30), st.integers(0, 30), epoch_sizes)
def test_after_the_warmup_the_curve_starts_with_its_own_clock(
    shape: str, data: st.DataObject, n: int, left: int, epoch: int
) -> None:
    s = data.draw(SHAPES[shape])
    assume("%" not in repr(s))  # percents are of the whole segment, warmup included
    for t in range(left + 1):
        assert _warmed(s, n).at(n + t, n + left, epoch) == _warmed(s, 0).at(t, left, epoch)


def _warmed(s: Schedule, n: int) -> Schedule:
    table = public.encode(s) | {"warmup": f"{n} steps"}
    return public.decode(table)


def test_percents_beside_a_warmup_add_up_to_the_run() -> None:
    s = linear(1.0, 0.0, warmup="20%", over="80%")
    assert s == linear(1.0, warmup="20%", over="80%")
    assert [s.at(t, 10) for t in range(11)] == [linear(1.0, warmup="20%").at(t, 10) for t in range(11)]
    assert s.at(9, 10) == pytest.approx(0.125)
    assert s.at(10, 10) == 0.0


def test_a_warmup_longer_than_the_run_still_climbs_to_the_first_value() -> None:
    s = cosine(1.0, warmup=steps(20))
    assert [s.at(t, 10) for t in range(3)] == [0.05, 0.1, 0.15]


@given(schedules, schedules, spellings, some_steps, totals, epoch_sizes)
def test_then_gives_each_side_its_own_clock_and_its_own_run(
    a: Schedule, b: Schedule, at: str, step: int, total: int, epoch: int
) -> None:
    n = public.length(at).resolve(total, epoch)
    step = min(step, total)
    expected = a.at(step, n, epoch) if step < n else b.at(step - n, total - n, epoch)
    assert a.then(b, at=at).at(step, total, epoch) == expected


@given(schedules, numbers, some_steps, totals, epoch_sizes)
def test_scaled_by_a_number_multiplies_every_value(s: Schedule, x: float, step: int, total: int, epoch: int) -> None:
    assert s.scaled(x).at(step, total, epoch) == s.at(step, total, epoch) * x
    assert s.scaled(x).key_values == tuple(value * x for value in s.key_values)


@given(schedules, schedules, some_steps, totals, epoch_sizes)
def test_scaled_by_a_schedule_is_the_product(s: Schedule, x: Schedule, step: int, total: int, epoch: int) -> None:
    assert s.scaled(x).at(step, total, epoch) == s.at(step, total, epoch) * x.at(step, total, epoch)


@given(schedules, numbers, numbers, some_steps, totals, epoch_sizes)
def test_clamped_keeps_what_is_within_and_moves_the_rest_to_the_bound(
    s: Schedule, x: float, y: float, step: int, total: int, epoch: int
) -> None:
    low, high, value = min(x, y), max(x, y), s.at(step, total, epoch)
    assert s.clamped(low, high).at(step, total, epoch) == min(max(value, low), high)
    assert s.clamped(low=low).at(step, total, epoch) == max(value, low)
    assert s.clamped(high=high).at(step, total, epoch) == min(value, high)


@pytest.mark.parametrize("shape", WITHIN_LANDMARKS)
@given(st.data(), totals, epoch_sizes)
def test_without_a_warmup_every_value_lies_between_the_key_values(
    shape: str, data: st.DataObject, total: int, epoch: int
) -> None:
    s = _warmed(data.draw(SHAPES[shape]), 0)
    low, high = min(s.key_values), max(s.key_values)
    for step in range(total + 1):
        value = s.at(step, total, epoch)
        assert low <= value <= high or close(value, low) or close(value, high)


@given(shapes, shapes, some_steps, totals, epoch_sizes)
def test_the_key_values_of_a_product_enclose_the_products_of_values_between_the_key_values(
    s: Schedule, x: Schedule, step: int, total: int, epoch: int
) -> None:
    bounds = [(min(part.key_values), max(part.key_values), part.at(step, total, epoch)) for part in (s, x)]
    assume(all(low <= value <= high for low, high, value in bounds))
    product = s.scaled(x)
    assert min(product.key_values) <= product.at(step, total, epoch) <= product.highest


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"one_cycle", "multi_step", "piecewise"}))
@given(st.data(), totals, epoch_sizes)
def test_the_first_landmark_is_the_first_value(shape: str, data: st.DataObject, total: int, epoch: int) -> None:
    s = _warmed(data.draw(SHAPES[shape]), 0)
    assert s.at(0, total, epoch) == s.key_values[0]


@given(schedules)
def test_highest_is_the_largest_landmark(s: Schedule) -> None:
    assert s.highest == max(s.key_values)
