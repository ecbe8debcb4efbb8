"""Every benchmark runs, and what it finds gets to its place on the page."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES, main
from benchmarks.growth import exponent
from benchmarks.measure import Table, Timing, race
from benchmarks.page import PAGE, blocks_of, markdown, rewrite, rewritten

FOUND = Table("A title", ["what", "ratio"], [["ours", "0.50 ± 0.01"]])
TEXT = """Prose.
<!-- benchmark: one -->
old
<!-- end of benchmark -->
More.
<!-- benchmark: two -->
<!-- end of benchmark -->
"""


@pytest.mark.parametrize("name", NAMES)
def test_each_of_them_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--only", name])
    assert f"[1/1] {name}" in capsys.readouterr().out


def test_the_command_runs_those_that_are_named_in_their_order() -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "cuda", "solvers"]
    done = subprocess.run(command, cwd=PAGE.parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("[1/2] cuda") < done.stdout.index("[2/2] solvers")


def test_every_benchmark_has_one_place_on_the_page() -> None:
    assert sorted(blocks_of(PAGE.read_text(encoding="utf-8"))) == sorted(NAMES)


def test_a_block_is_replaced_and_all_else_stays() -> None:
    found = rewritten(TEXT, {"one": [FOUND]}, "*here*")
    assert found == TEXT.replace("old\n", f"{markdown(FOUND)}\n\n*here*\n")
    assert rewritten(found, {"one": [FOUND]}, "*here*") == found


def test_a_table_is_markdown_under_its_title() -> None:
    assert markdown(FOUND) == "**A title**\n\n| what | ratio |\n| --- | --- |\n| ours | 0.50 ± 0.01 |"


def test_a_benchmark_without_a_place_is_an_error_and_leaves_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TEXT, encoding="utf-8")
    with pytest.raises(ValueError, match="no <!-- benchmark: … --> on the page for three"):
        rewrite(page, {"three": [FOUND]}, "*here*")
    assert page.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_that_power(power: float) -> None:
    times = {size: Timing(3e-6 * size**power, 1.0) for size in (10, 100, 1000, 10_000)}
    assert math.isclose(exponent(times), power)


def test_a_ratio_is_the_median_of_its_rounds_and_not_the_ratio_of_medians() -> None:
    clock = iter([0, 1, 1, 3, 3, 7, 7, 9, 9, 10, 10, 11])  # one, other; other, one; one, other
    found = race({"one": list, "other": list}, "one", 0.0, clock=lambda: float(next(clock)))
    assert (found["one"].ratio, found["other"].ratio) == (1.0, 2.0)
