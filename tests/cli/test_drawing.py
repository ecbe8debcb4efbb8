"""What pictures are made of: scales, labels, colours, numbers."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from groupwise._spelling import counted, number
from groupwise.cli.labels import heat, label, palette
from groupwise.cli.scale import Scale, scale_of
from groupwise.plan.preview import Panel, Row

numbers = st.floats(-1e6, 1e6, allow_nan=False)
COLOUR = re.compile("#[0-9a-f]{6}")


def panel(*courses: list[float]) -> Panel:
    rows = (Row(("g",), tuple(c), (True,) * len(c), c[0], max(c), c[-1]) for c in courses)
    return Panel("lr", tuple(rows), named=False, reactive=False)


@given(st.lists(st.lists(numbers, min_size=1, max_size=20), min_size=1, max_size=5))
@example([[64.0, 5e-324]])
def test_every_value_has_a_place_on_the_scale_and_order_is_kept(courses: list[list[float]]) -> None:
    scale = scale_of(panel(*courses))
    values = sorted(value for course in courses for value in course)
    shares = [scale.share(value) for value in values]
    assert all(0 <= share <= 1 for share in shares)
    assert shares == sorted(shares)
    assert shares[-1] == 1 or scale.high <= scale.low


@given(st.floats(1e-12, 1e3), st.floats(1.5, 1e6), st.floats(0, 1), st.booleans())
def test_share_and_value_are_inverse(low: float, ratio: float, share: float, logarithmic: bool) -> None:
    scale = Scale(low, low * ratio, logarithmic)
    assert scale.share(scale.at(share)) == pytest.approx(share, abs=1e-6)


def test_rates_that_lie_decades_apart_are_drawn_on_a_logarithmic_scale() -> None:
    scale = scale_of(panel([1e-3] * 9, [1e-4] * 9, [1e-5] * 9))
    assert scale.logarithmic
    assert [scale.share(x) for x in (1e-5, 1e-4, 1e-3)] == pytest.approx([0, 0.5, 1])


def test_one_cosine_is_drawn_on_a_linear_scale_from_zero() -> None:
    scale = scale_of(panel([1.0, 0.9, 0.7, 0.4, 0.2, 0.1, 0.0]))
    assert not scale.logarithmic
    assert scale.low == 0


def test_a_narrow_range_fills_the_scale() -> None:
    scale = scale_of(panel([0.85, 0.9, 0.95]))
    assert (scale.low, scale.high) == (0.85, 0.95)


@pytest.mark.parametrize(("value", "share"), [(0.0, 0.0), (0.1, 1.0)])
def test_a_constant_is_full_unless_it_is_zero(value: float, share: float) -> None:
    assert scale_of(panel([value] * 3)).share(value) == share


@pytest.mark.parametrize(
    ("names", "room", "text"),
    [
        (["base"], 10, "base"),
        (["base", "norms"], 11, "base, norms"),
        (["base", "norms"], 10, "base +1"),
        (["base", "norms", "head"], 14, "base, norms +1"),
        (["a long name indeed"], 8, "a long…"),
        (["a long name indeed", "b"], 8, "a lo… +1"),
        (["日本日本"], 5, "日本…"),
        (["a\nb"], 5, "a b"),
    ],
)
def test_a_label_names_as_many_groups_as_fit(names: list[str], room: int, text: str) -> None:
    assert label(names, room) == text


@given(st.integers(1, 300))
def test_every_line_has_its_own_colour(n: int) -> None:
    colours = palette(n)
    assert len(colours) == n
    assert all(COLOUR.fullmatch(colour) for colour in colours)
    assert len(set(colours)) == n or n > 60


@given(st.floats(0, 1))
def test_heat_is_a_colour(share: float) -> None:
    assert COLOUR.fullmatch(heat(share))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-3, "1e-3"),
        (3e-4, "3e-4"),
        (7.5e-5, "7.5e-5"),
        (1e-3 * 0.75**9, "7.508e-5"),
        (0.05, "0.05"),
        (0.999, "0.999"),
        (0.0, "0"),
        (1.0, "1"),
        (1e-10, "1e-10"),
        (1234.6, "1235"),
        (1e6, "1e6"),
        (-2e-3, "-2e-3"),
        (-0.0, "-0"),
        (9.99999e-3, "0.01"),
        (5, "5"),
        (True, "True"),
        (None, "None"),
        ("sum", "sum"),
        ((0.9, 0.999), "(0.9, 0.999)"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: object, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e8, 1e8, allow_nan=False))
def test_a_number_keeps_four_digits(x: float) -> None:
    assert float(number(x)) == pytest.approx(x, rel=6e-4)


def test_one_is_singular() -> None:
    assert [counted(n, "step") for n in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]
