"""Lengths: the unit is part of the value, and text is the same thing as the constructors."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import LengthError, ScheduleError
from groupwise.schedules import Length, epochs, length, percent, steps
from tests.schedules.samplers import lengths

BARE = r"a bare number is never a length: write steps\(500\), epochs\(2\), percent\(5\) or '500 steps'"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("500 steps", steps(500)),
        ("1 step", steps(1)),
        ("10_000 steps", steps(10_000)),
        ("2 epochs", epochs(2)),
        ("1 epoch", epochs(1)),
        ("0.5 epochs", epochs(0.5)),
        ("5%", percent(5)),
        ("5 %", percent(5)),
        (" 12.5 percent ", percent(12.5)),
        ("1e3steps", steps(1000)),
    ],
)
def test_text_means_what_it_says(text: str, meant: Length) -> None:
    assert length(text) == meant


@given(lengths())
def test_the_text_of_a_length_parses_back_to_it(value: Length) -> None:
    assert length(str(value)) == value
    assert length(value) is value


@pytest.mark.parametrize(("value", "text"), [(steps(1), "1 step"), (epochs(2.0), "2 epochs"), (percent(5), "5%")])
def test_the_text_reads_well(value: Length, text: str) -> None:
    assert str(value) == text


@pytest.mark.parametrize("bare", [5, 0.5, True, "5", " 1e3 "])
def test_a_bare_number_is_never_a_length(bare: object) -> None:
    with pytest.raises(ScheduleError, match=BARE):
        length(bare)  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [None, [], "", "soon", "five steps", "1.2.3 steps", object()])
def test_what_is_no_length_at_all_is_refused_with_the_forms_that_are(other: object) -> None:
    with pytest.raises(ScheduleError, match=r"is not a (length: write steps\(500\)|number)"):
        length(other)  # type: ignore[arg-type]


def test_an_unknown_unit_is_answered_with_the_nearest() -> None:
    with pytest.raises(ScheduleError, match="unknown unit 'stepps'; did you mean 'steps'"):
        length("5 stepps")
    with pytest.raises(ScheduleError, match="unknown unit 'epoch'; did you mean 'epochs'"):
        Length(1, "epoch")  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [-1, -0.5, math.nan, math.inf, 1e300, 10**400, True, "5", None])
@pytest.mark.parametrize("build", [steps, epochs, percent])
def test_an_amount_is_a_finite_number_of_at_least_zero(build: type, amount: object) -> None:
    with pytest.raises(ScheduleError, match=r"is not a (finite )?number|below zero or longer than any run"):
        build(amount)


def test_steps_are_whole_and_percents_end_at_a_hundred() -> None:
    with pytest.raises(ScheduleError, match=r"2\.5 steps is not a whole number of steps"):
        steps(2.5)  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match=r"101 percent is more than the whole|101\.0 percent is more"):
        percent(101)


@given(st.integers(0, 400), st.integers(0, 5000))
def test_resolving_rounds_half_up(eighths: int, size: int) -> None:
    half_up = math.floor(Fraction(eighths, 8) * size + Fraction(1, 2))
    assert epochs(eighths / 8).resolve(steps_per_epoch=size) == half_up
    half_up = math.floor(Fraction(eighths, 4 * 100) * size + Fraction(1, 2))
    assert percent(eighths / 4).resolve(total_steps=size) == half_up


@given(st.integers(0, 10**9))
def test_steps_resolve_to_themselves_without_any_size(n: int) -> None:
    assert steps(n).resolve() == n


def test_a_missing_size_is_named() -> None:
    with pytest.raises(LengthError, match="'5%' needs total_steps"):
        percent(5).resolve(steps_per_epoch=10)
    with pytest.raises(LengthError, match="'2 epochs' needs steps_per_epoch"):
        epochs(2).resolve(total_steps=10)


@given(lengths())
def test_needs_is_exactly_what_resolve_cannot_do_without(value: Length) -> None:
    sizes = {"total_steps": 50, "steps_per_epoch": 7}
    needed = {name: sizes[name] for name in value.needs}
    assert value.resolve(**needed) == value.resolve(**sizes)
    for name in value.needs:
        with pytest.raises(LengthError, match=name):
            value.resolve(**{key: size for key, size in sizes.items() if key != name})
