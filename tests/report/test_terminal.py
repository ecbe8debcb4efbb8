"""The terminal view: no wider than the terminal, no character that a terminal obeys, the same words as the page."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from groupwise.report import Report, describe, view
from groupwise.report.document import Line
from groupwise.report.terminal import BLOCKS, glance, spark
from tests.report.runs import run_of


def shown(report: Report, width: int, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None,
                      highlight=False, markup=False, emoji=False)  # fmt: skip
    console.print(view(report, width))
    return out.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 160, 240])
@pytest.mark.parametrize("run", ["first", "many", "hostile"])
def test_no_line_is_wider_than_the_terminal(request: pytest.FixtureRequest, run: str, width: int) -> None:
    text = shown(describe(request.getfixturevalue(run)), width)
    assert max(cell_len(line) for line in text.split("\n")) <= width


def test_every_sentence_of_the_verdict_is_there(report: Report) -> None:
    text = " ".join(shown(report, 100).split())
    for sentence in report.runs[0].verdict:
        assert f"{sentence.head}. {sentence.text}" in text


def test_no_character_of_a_name_moves_the_cursor(hostile: Path) -> None:
    text = shown(describe(hostile), 100)
    assert all(char.isprintable() or char == "\n" for char in text)


def test_several_runs_come_one_after_the_other(first: Path, second: Path) -> None:
    text = shown(describe([first, second]), 100)
    assert text.index("What differs") < text.index("\nfirst") < text.index("\nsecond")
    assert text.count("update/weight") == 2


def test_many_groups_are_cut_with_their_number(many: Path) -> None:
    assert "and 176 more" in shown(describe(many), 100)


def test_a_run_without_records_is_a_sentence(tmp_path: Path) -> None:
    assert "Nothing is recorded yet." in shown(describe(run_of(tmp_path, [])), 80)


@pytest.mark.parametrize("height", [12, 24, 60])
def test_a_glance_is_no_higher_than_the_terminal(report: Report, many: Path, height: int) -> None:
    for run in (report.runs[0], describe(many).runs[0]):
        out = io.StringIO()
        Console(file=out, width=100).print(glance(run, 100, height))
        assert out.getvalue().count("\n") <= height


values = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60)


@given(values, st.integers(1, 40), st.booleans())
def test_a_line_of_blocks_has_at_most_its_cells_whatever_the_values(
    numbers: list[float], cells: int, logarithmic: bool
) -> None:
    text = spark(Line("a", tuple(range(len(numbers))), tuple(numbers)), cells, logarithmic)
    assert 1 <= len(text) <= cells
    assert set(text) <= {*BLOCKS, " "}


def test_blocks_rise_with_the_values() -> None:
    line = Line("a", tuple(range(8)), tuple(float(i) for i in range(8)))
    assert spark(line, 8, logarithmic=False) == BLOCKS
    assert spark(Line("a", line.steps, (0.0,) * 8), 8, logarithmic=True) == " " * 8
