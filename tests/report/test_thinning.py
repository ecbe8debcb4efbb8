"""Thinning keeps what one looks for: the ends, every extreme, whatever is not finite."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.report.thinning import binned, thinned

values = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=300)
most = st.integers(6, 60)


@given(values, most)
def test_there_are_at_most_as_many_as_asked_in_order_with_both_ends(values: list[float], most: int) -> None:
    at = thinned(values, most)
    assert len(at) <= most
    assert at == sorted(set(at))
    assert (at[0], at[-1]) == (0, len(values) - 1)


@given(values, most)
def test_the_lowest_the_highest_and_the_first_that_is_not_finite_stay(values: list[float], most: int) -> None:
    shown = [values[i] for i in thinned(values, most)]
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        assert min(finite) in shown
        assert max(finite) in shown
    if len(finite) < len(values):
        assert any(not math.isfinite(value) for value in shown)


@given(values)
def test_a_short_line_is_kept_whole(values: list[float]) -> None:
    assert thinned(values, len(values)) == list(range(len(values)))


def test_every_stretch_keeps_its_extremes() -> None:
    line = [math.sin(i) * i for i in range(1000)]
    at = set(thinned(line, 302))
    for start in range(0, 1000, 10):
        stretch = range(start, start + 10)
        assert {min(stretch, key=line.__getitem__), max(stretch, key=line.__getitem__)} <= at


@given(st.lists(st.integers(0, 99), unique=True, min_size=1).map(sorted), st.integers(1, 20))
def test_a_bin_holds_the_median_of_its_steps(steps: list[int], count: int) -> None:
    edges = [100 * i // count for i in range(count + 1)]
    found = binned(steps, [float(step) for step in steps], edges)
    assert len(found) == count
    for i, value in enumerate(found):
        inside = [step for step in steps if edges[i] <= step < edges[i + 1]]
        assert value == inside[len(inside) // 2] if inside else math.isnan(value)


def test_what_is_not_finite_is_in_no_bin() -> None:
    assert binned([0, 1, 2], [math.nan, 1.0, math.inf], [0, 3]) == pytest.approx([1.0])
