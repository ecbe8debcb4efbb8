"""The runner of the pages: what it runs, what it compares, what it refuses."""

from pathlib import Path

import pytest

from groupwise import GroupwiseError
from tests.docs.pages import Block, blocks_of
from tests.docs.running import agrees, comparisons

PYTHON = "```python\nx = 2\nprint(x)\n```\n"


def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> list[Block]:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return blocks_of(page)


def test_an_output_is_compared_with_the_code_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = blocks(tmp_path, monkeypatch, f"{PYTHON}Prose.\n\n```output\n2\n```\n```python\nprint(x + 1)\n```\n")
    assert [(shown.text, printed) for shown, printed in comparisons(page)] == [("2\n", "2\n")]


def test_blocks_share_a_namespace_and_a_page_starts_with_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = "```python\nprint(x + 1)\n```\n```output\n3\n```\n"
    assert [printed for _, printed in comparisons(blocks(tmp_path, monkeypatch, PYTHON + again))] == ["3\n"]
    with pytest.raises(NameError, match="'x' is not defined"):
        list(comparisons(blocks(tmp_path, monkeypatch, again)))


def test_a_warning_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = blocks(tmp_path, monkeypatch, '```python\nimport warnings\nwarnings.warn("careful")\n```\n')
    with pytest.raises(UserWarning, match="careful"):
        list(comparisons(page))


def test_toml_is_a_plan_unless_it_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GroupwiseError, match="unknown table 'tool'"):
        list(comparisons(blocks(tmp_path, monkeypatch, "```toml\n[tool]\nx = 1\n```\n")))
    assert not list(comparisons(blocks(tmp_path, monkeypatch, "```toml not-a-plan\n[tool]\nx = 1\n```\n")))


def test_a_named_block_is_a_file_that_the_code_below_can_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "```python parts_of_a_page.py\ny = 5\n```\n```python\nimport parts_of_a_page\nprint(parts_of_a_page.y)\n```\n"
    )
    page = blocks(tmp_path, monkeypatch, f"{text}```output\n5\n```\n")
    assert [printed for _, printed in comparisons(page)] == ["5\n"]


@pytest.mark.parametrize(
    ("printed", "shown", "agree"),
    [
        ("a  \nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("a\nb\nc\n", "a\n…\nc\n", True),
        ("a\nc\n", "a\n…\nc\n", True),
        ("a\nb\n", "a\n…\nc\n", False),
        ("", "", True),
    ],
)
def test_outputs_agree_line_by_line(printed: str, shown: str, agree: bool) -> None:
    assert agrees(printed, shown) is agree


def test_a_fence_that_is_never_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"page\.md:1: the fence is never closed"):
        blocks(tmp_path, monkeypatch, "```python\nx = 1\n")
