"""The Markdown: tables that stay tables, links that lead on, names that are text."""

import re
from pathlib import Path

import pytest

from groupwise.report import Report, describe, rendered


@pytest.mark.parametrize("run", ["first", "hostile", "many"])
def test_every_row_of_a_table_has_the_cells_of_its_heading(request: pytest.FixtureRequest, run: str) -> None:
    lines = rendered(describe(request.getfixturevalue(run)), "md").split("\n")
    width = None
    for line in lines:
        cells = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) if line.startswith(("| ", "|--")) else None
        assert cells is None or width is None or cells == width, line
        width = cells


def test_no_name_is_markup(hostile: Path) -> None:
    text = rendered(describe(hostile), "md")
    outside = re.sub(r"```text\n.*?\n```", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<", outside)
    assert "\x1b" not in outside


def test_every_link_leads_to_a_heading(report: Report) -> None:
    text = rendered(report, "md")
    headings = {
        re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^##? (.*)$", text, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#(.*?)\)", text))
    assert links
    assert links <= headings


def test_several_runs_have_a_heading_each_in_every_panel(first: Path, second: Path) -> None:
    text = rendered(describe([first, second]), "md")
    panels = len(describe(first).runs[0].panels)
    assert text.count("\n### first\n") == text.count("\n### second\n") == panels
