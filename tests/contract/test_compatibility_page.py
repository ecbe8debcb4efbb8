"""The compatibility page counts the generic cases that the tests run, and links to the tests there are."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "compatibility.md").read_text(encoding="utf-8")


def section(start: str, end: str) -> str:
    return PAGE.partition(start)[2].partition(end)[0]


def cases(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


def run_here() -> set[str]:
    sources = [path.read_text(encoding="utf-8") for path in HERE.glob("test_optim_db_*.py")]
    docstrings = [line for source in sources for line in source.splitlines() if '"""PyTorch\'s' in line]
    return cases("\n".join(docstrings))


def test_the_page_says_how_many_generic_cases_are_run_and_pass() -> None:
    assert re.findall(r"(\d+) of the cases pass", PAGE) == [str(len(run_here()))]


def test_the_page_gives_a_reason_for_every_case_that_is_not_run() -> None:
    left_out = cases(section("These apply in part", "\0")) - run_here()
    assert len(left_out) == 13
    assert not [row for row in section("These apply in part", "\0").splitlines() if row.rstrip().endswith("| |")]


def test_every_file_of_tests_is_linked() -> None:
    linked = set(re.findall(r"tests/contract/(test_\w+)\.py", PAGE))
    own = {path.stem for path in HERE.glob("test_*.py")} - {"test_compatibility_page", "test_equality"}
    assert linked == own
