"""What single shapes promise beyond the common laws: arguments, edges, and the shapes that torch has no twin of."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import LengthError, ScheduleError
from groupwise.schedules import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    exponential,
    function,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    piecewise,
    plateau,
    polynomial,
    step_decay,
    steps,
    triangular,
    warmup_stable_decay,
)
from tests.schedules.samplers import numbers, points, totals

BUILDERS: dict[str, Callable[[Any], Schedule]] = {
    "constant: value": constant,
    "linear: start": linear,
    "linear: end": lambda x: linear(1.0, x),
    "cosine: peak": cosine,
    "cosine: end": lambda x: cosine(1.0, end=x),
    "exponential: gamma": lambda x: exponential(1.0, x),
    "polynomial: power": lambda x: polynomial(1.0, power=x),
    "inverse_sqrt: peak": inverse_sqrt,
    "step_decay: gamma": lambda x: step_decay(1.0, x, every=steps(1)),
    "multi_step: start": lambda x: multi_step(x, 0.1, at=["5%"]),
    "triangular: high": lambda x: triangular(0.0, x, up=steps(1)),
    "one_cycle: rise": lambda x: one_cycle(1.0, rise=x),
    "one_cycle: end_divisor": lambda x: one_cycle(1.0, end_divisor=x),
    "cosine_restarts: factor": lambda x: cosine_restarts(1.0, first=steps(1), factor=x),
    "warmup_stable_decay: end": lambda x: warmup_stable_decay(1.0, decay="5%", end=x),
    "piecewise: points": lambda x: piecewise([("5%", x)]),
    "plateau: patience": lambda x: plateau(1.0, patience=x),
    "scaled: by": lambda x: constant(1.0).scaled(x),
    "clamped: low": lambda x: constant(1.0).clamped(low=x),
}


@pytest.mark.parametrize("junk", [True, math.nan, math.inf, -math.inf, 10**400, "0.1", [0.1], steps(1), 1j], ids=repr)
@pytest.mark.parametrize("argument", BUILDERS)
def test_only_a_finite_number_is_a_number(argument: str, junk: object) -> None:
    with pytest.raises(ScheduleError, match=rf"^{argument}: .* is not a (finite )?number"):
        BUILDERS[argument](junk)


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("cosine: warmup", lambda x: cosine(1.0, warmup=x)),
        ("cosine: over", lambda x: cosine(1.0, over=x)),
        ("function: warmup", lambda x: function(float, warmup=x)),
        ("step_decay: every", lambda x: step_decay(1.0, 0.1, every=x)),
        ("multi_step: at", lambda x: multi_step(1.0, 0.1, at=["5%", x])),
        ("triangular: down", lambda x: triangular(0.0, 1.0, up="5%", down=x)),
        ("cosine_restarts: first", lambda x: cosine_restarts(1.0, first=x)),
        ("warmup_stable_decay: decay", lambda x: warmup_stable_decay(1.0, decay=x)),
        ("piecewise: points", lambda x: piecewise([(x, 1.0)])),
        ("then: at", lambda x: constant(1.0).then(constant(2.0), at=x)),
    ],
)
def test_a_bare_number_as_a_length_is_refused_by_the_name_of_its_argument(
    argument: str, build: Callable[[Any], Schedule]
) -> None:
    for bare in (5, 0.5, "5"):
        with pytest.raises(ScheduleError, match=rf"^{argument}: a bare number is never a length"):
            build(bare)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: polynomial(1.0, power=0), "polynomial: power: 0 is not above 0"),
        (lambda: exponential(1.0, -0.5), r"exponential: gamma: -0\.5 is less than 0"),
        (lambda: one_cycle(1.0, rise=1.5), r"one_cycle: rise: 1\.5 is more than 1"),
        (lambda: one_cycle(1.0, three_phase=1), "one_cycle: three_phase: 1 is neither true nor false"),  # type: ignore[arg-type]
        (lambda: one_cycle(1.0, shape="cos"), "one_cycle: shape: 'cos' is none of 'linear', 'cosine'"),  # type: ignore[arg-type]
        (lambda: cosine_restarts(1.0, first="5%", factor=1.5), r"factor: 1\.5 is not a whole number"),  # type: ignore[arg-type]
        (lambda: cosine_restarts(1.0, first="5%", factor=0), "factor: 0 is less than 1"),
        (lambda: step_decay(1.0, 0.1, every="0 epochs"), "step_decay: every: '0 epochs' is no time at all"),
        (lambda: multi_step(1.0, 0.1, at=[]), r"multi_step: at: \[\] is not a list of lengths"),
        (lambda: multi_step(1.0, 0.1, at="50%"), "multi_step: at: '50%' is not a list of lengths"),
        (lambda: piecewise([]), r"piecewise: points: \[\] is not a list of points"),
        (lambda: piecewise([("5%", 1.0, 2.0)]), r"is not a point such as \('50%', 0\.1\)"),  # type: ignore[list-item]
        (lambda: function(0.1), r"function: call: 0\.1 is not a function of the step"),  # type: ignore[arg-type]
        (lambda: plateau(1.0, factor=1.0), "plateau: factor: 1 does not reduce; it must be below 1"),
        (lambda: constant(1.0).clamped(), "clamped: neither low nor high is given"),
        (lambda: constant(1.0).clamped(2.0, 1.0), r"clamped: low \(2\) is above high \(1\)"),
        (lambda: constant(1.0).then(0.5, at="5%"), r"then: pair: 0\.5 is not a schedule"),  # type: ignore[arg-type]
    ],
)
def test_what_an_argument_may_not_be_is_said_with_its_name(build: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        build()


def test_numpy_scalars_are_stored_as_plain_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    s = linear(numpy.float32(0.5), numpy.int64(0), over=steps(numpy.int64(4)))
    assert s == linear(0.5, over="4 steps")
    assert type(s.at(numpy.int64(1), numpy.int64(8))) is float


def test_no_schedule_is_deeper_than_the_limit() -> None:
    s: Schedule = constant(1.0)
    for _ in range(32):
        s = s.scaled(0.5)
    for build in (lambda: s.scaled(0.5), lambda: s.clamped(0.0), lambda: constant(1.0).then(s, at="50%")):
        with pytest.raises(ScheduleError, match="more than 32 schedules inside one another; write a piecewise"):
            build()


def test_a_missing_size_is_named_at_every_step_not_only_where_it_matters() -> None:
    s = constant(1.0).then(cosine(1.0), at=steps(10))
    with pytest.raises(LengthError, match=r"constant\(1\)\.then\(cosine\(1\), at=10 steps\) needs total_steps"):
        s.at(0)
    with pytest.raises(LengthError, match=r"exponential\(1, gamma=0\.9\) needs steps_per_epoch"):
        exponential(1.0, 0.9).at(0)


def test_the_first_side_of_a_then_needs_no_total_of_its_own() -> None:
    s = linear(1.0, 0.0).then(constant(5.0), at=steps(4))
    assert s.needs == frozenset()
    assert [s.at(t) for t in range(6)] == [1.0, 0.75, 0.5, 0.25, 5.0, 5.0]


def test_percentages_inside_a_then_are_of_the_segment() -> None:
    s = constant(1.0).then(constant(2.0).then(constant(3.0), at="50%"), at=steps(20))
    assert [s.at(t, 100) for t in (19, 20, 59, 60)] == [1.0, 2.0, 2.0, 3.0]


@pytest.mark.parametrize(("step", "total"), [(-1, 10), (0, -1)])
def test_neither_step_nor_total_is_below_zero(step: int, total: int) -> None:
    with pytest.raises(ScheduleError, match="below zero"):
        constant(1.0).at(step, total)


def test_a_value_too_large_for_a_float_is_an_error_not_an_infinity() -> None:
    with pytest.raises(ScheduleError, match=r"is inf at step 9999: not a finite number"):
        exponential(1.0, 2.0, every="1 step").at(9999)
    with pytest.raises(ScheduleError, match=r"is -inf at step 1: not a finite number"):
        constant(-1e308).scaled(10).at(1)
    assert exponential(0.0, 2.0, every="1 step").at(9999) == 0.0


@given(numbers, numbers, totals)
def test_a_piece_of_no_length_starts_at_its_start_and_is_over_after_it(start: float, end: float, total: int) -> None:
    for shape in (linear, cosine, polynomial):
        s = shape(start, end, over=steps(0))
        assert s.at(0) == start
        assert s.at(1) == end


def test_a_period_that_rounds_to_nothing_is_one_step() -> None:
    assert step_decay(1.0, 0.5, every="1%").at(3, 10) == 0.125
    assert exponential(1.0, 0.5, every="1%").at(3, 10) == 0.125
    assert cosine_restarts(1.0, first="1%").at(3, 10) == 1.0
    assert triangular(0.0, 1.0, up="1%").at(3, 10) == 1.0


@given(st.integers(1, 40), st.integers(0, 200))
def test_inverse_sqrt_is_transformers_formula(warmup: int, step: int) -> None:
    def transformers(timescale: int | None) -> float:
        if step < warmup:
            return (step + 1) / warmup  # theirs wastes the first update on a zero
        scale = timescale or warmup
        return 1.0 / math.sqrt((step + scale - warmup) / scale)

    assert inverse_sqrt(1.0, warmup=steps(warmup)).at(step) == pytest.approx(transformers(None), rel=1e-12)
    own = inverse_sqrt(1.0, warmup=steps(warmup), timescale=steps(7))
    assert own.at(step) == pytest.approx(transformers(7), rel=1e-12)


def test_inverse_sqrt_without_a_warmup_has_a_timescale_of_ten_thousand_steps() -> None:
    assert inverse_sqrt(1.0).at(30_000) == pytest.approx(0.5, rel=1e-15)


@pytest.mark.parametrize(("shape", "halfway"), [("linear", 0.5), ("cosine", 0.5), ("sqrt", 1 - math.sqrt(0.5))])
def test_warmup_stable_decay_climbs_holds_and_falls(shape: Any, halfway: float) -> None:
    s = warmup_stable_decay(2.0, warmup="10%", decay="20%", shape=shape)
    values = [s.at(t, 100) for t in range(101)]
    assert values[:10] == pytest.approx([0.2 * (t + 1) for t in range(10)])
    assert values[10:81] == [2.0] * 71
    assert values[90] == pytest.approx(2.0 * halfway)
    assert values[100] == 0.0


def test_a_decay_longer_than_the_curve_takes_all_of_it() -> None:
    s = warmup_stable_decay(1.0, decay="50 steps")
    assert [s.at(t, 4) for t in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


@given(points, st.integers(0, 100))
def test_piecewise_passes_through_its_points_the_last_of_each_step(drawn: Any, step: int) -> None:
    for shape in ("linear", "held"):
        s = piecewise(drawn, shape=shape)
        for when, value in dict(drawn).items():
            assert s.at(when.resolve(100), 100) == value
        assert s.at(0, 100) in ([v for w, v in drawn if w.amount == 0][-1:] or [drawn[0][1]])


def test_piecewise_is_straight_or_held_between_points_and_level_outside() -> None:
    drawn = [("10%", 1.0), ("20%", 2.0), ("20%", 5.0), ("40%", 4.0)]
    assert [piecewise(drawn).at(t, 10) for t in (0, 1, 2, 3, 4, 9)] == [1.0, 1.0, 5.0, 4.5, 4.0, 4.0]
    held = piecewise(drawn, shape="held")
    assert [held.at(t, 10) for t in (0, 1, 2, 3, 4, 9)] == [1.0, 1.0, 5.0, 5.0, 4.0, 4.0]


def test_points_of_mixed_units_whose_order_turns_out_wrong_are_an_error() -> None:
    s = piecewise([("50 steps", 1.0), ("10%", 2.0)])
    assert s.at(0, 1000) == 1.0
    with pytest.raises(ScheduleError, match=r"points out of order, at steps \[50, 10\]"):
        s.at(0, 100)


@pytest.mark.parametrize("returned", [math.nan, math.inf, "0.1", None, True])
def test_a_function_that_returns_no_finite_number_is_an_error_that_says_where(returned: Any) -> None:
    def bad(step: int) -> Any:
        return 1.0 if step < 3 else returned

    assert function(bad).at(2) == 1.0
    with pytest.raises(ScheduleError, match=r"function\(.*bad\): what it returned at step 3: .* is not a"):
        function(bad).at(3)


def test_a_function_has_one_landmark_its_first_value() -> None:
    assert function(lambda step: 7.0 - step).key_values == (7.0,)


@pytest.mark.parametrize(
    ("s", "text"),
    [
        (cosine(3e-4, warmup="5%"), "cosine(3e-4, warmup=5%)"),
        (linear(1 / 3, 0.1, over=steps(500)), "linear(0.333333, end=0.1, over=500 steps)"),
        (multi_step(0.1, 0.5, at=["50%", "75%"]), "multi_step(0.1, gamma=0.5, at=[50%, 75%])"),
        (piecewise([("0%", 1), ("1 epoch", 2)]), "piecewise([[0%, 1], [1 epoch, 2]])"),
        (one_cycle(0.1, three_phase=True), "one_cycle(0.1, three_phase=True)"),
        (constant(1).then(linear(1), at="80%"), "constant(1).then(linear(1), at=80%)"),
        (constant(1).scaled(cosine(2)).clamped(high=3), "constant(1).scaled(cosine(2)).clamped(high=3)"),
        (function(math.sqrt), "function(sqrt)"),
    ],
)
def test_a_schedule_prints_as_the_expression_that_builds_it(s: Schedule, text: str) -> None:
    assert str(s) == text


def test_repr_is_exact_and_reads_back() -> None:
    assert repr(linear(1 / 3, warmup="5%")) == "linear(0.3333333333333333, warmup='5%')"


@pytest.mark.parametrize(
    ("s", "key_values", "highest"),
    [
        (cosine(3e-4, 1e-5), (3e-4, 1e-5), 3e-4),
        (cosine(0.996, 1.0), (0.996, 1.0), 1.0),
        (one_cycle(1.0), (0.04, 1.0, 4e-6), 1.0),
        (multi_step(1.0, 0.5, at=["5%", "9%"]), (1.0, 0.5, 0.25), 1.0),
        (constant(1.0).then(linear(2.0, 0.5), at="5%"), (1.0, 2.0, 0.5), 2.0),
        (linear(1.0, 0.0).clamped(low=0.25), (1.0, 0.25), 1.0),
        (linear(1.0, 0.0).scaled(-2), (-2.0, 0.0), 0.0),
        (linear(1.0, 0.0).scaled(linear(0.0, 3.0)), (0.0, 3.0, 0.0, 0.0), 3.0),
        (exponential(0.5, 0.9), (0.5,), 0.5),
    ],
)
def test_key_values_are_start_turning_points_and_end(
    s: Schedule, key_values: tuple[float, ...], highest: float
) -> None:
    assert s.key_values == pytest.approx(key_values)
    assert s.highest == highest


@pytest.mark.parametrize("start", [-1.0, 1.0])
def test_growth_beyond_every_float_keeps_its_sign(start: float) -> None:
    grown = exponential(start, 2.0, every="1 step")
    assert grown.clamped(-5.0, 5.0).at(100_000) == 5.0 * start
    with pytest.raises(ScheduleError, match="is -inf" if start < 0 else "is inf"):
        grown.at(100_000)


def test_bounds_may_be_reached() -> None:
    assert constant(1.0).clamped(0.5, 0.5).at(0) == 0.5
    assert constant(1.0, warmup="100%").at(9, total_steps=10) == 1.0


def test_past_the_end_of_the_run_an_endless_curve_holds_too() -> None:
    halved = exponential(1.0, 0.5, every="1 step")
    assert {halved.at(step, total_steps=10) for step in (10, 11, 12, 500)} == {0.5**10}
