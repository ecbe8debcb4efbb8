"""`groupwise explain`: who had the last word about one parameter, and who spoke before."""

from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.commands import CONSTANT, MODELS, PLAN, run, written


def explained(folder: Path, parameter: str, model: str = "build", plan: str = PLAN) -> Result:
    return run("explain", written(folder, plan), parameter, "--model", f"{MODELS}:{model}", width=120)


def block(text: str, property: str) -> str:
    return next(part for part in text.split("\n\n") if part.startswith(f"{property} = "))


def test_the_parameter_is_told_with_shape_depth_group_and_roles(tmp_path: Path) -> None:
    head = explained(tmp_path, "blocks.1.weight").stdout.split("\n\n")[0]
    for words in ("blocks.1.weight", "(4, 4)", "depth 2", "in group 'body/depth2'", "matrix: "):
        assert words in head


def test_a_property_tells_what_stands_and_every_rule_that_spoke(tmp_path: Path) -> None:
    lr = block(explained(tmp_path, "blocks.0.weight").stdout, "lr")
    assert "lr = cosine(1e-3, warmup=10%) × 0.1 × 0.75" in lr
    assert lr.index("last word") < lr.index("factor")
    assert "rule 1 'base'" in lr
    assert "rule 3 'body'" in lr


def test_the_last_word_comes_before_those_that_it_overruled(tmp_path: Path) -> None:
    decay = block(explained(tmp_path, "head.bias").stdout, "weight_decay").splitlines()
    assert decay[0] == "weight_decay = 0"
    assert "last word" in decay[1]
    assert "rule 2 'norms'" in decay[1]
    assert "overridden by rule 2 'norms'" in decay[2]
    assert "linear(0, end=0.1)" in decay[2]


def test_what_no_rule_speaks_about_is_told_too(tmp_path: Path) -> None:
    last = explained(tmp_path, "head.weight").stdout.split("\n\n")[-1]
    assert last.startswith("no rule declares")
    assert "eps = 1e-08 (default of AdamW)" in last


def test_a_pattern_that_fits_one_parameter_explains_it(tmp_path: Path) -> None:
    assert explained(tmp_path, "head.w*").stdout.startswith("head.weight")


@pytest.mark.parametrize("pattern", ["blocks.*", "blocks", "*.weight"])
def test_a_pattern_that_fits_several_lists_them(tmp_path: Path, pattern: str) -> None:
    result = explained(tmp_path, pattern)
    assert result.exit_code == 2
    assert f"'{pattern}' fits" in result.stderr
    assert "explain takes one" in result.stderr
    assert "blocks.0.weight" in result.stderr


def test_a_long_list_is_cut_with_its_count(tmp_path: Path) -> None:
    result = explained(tmp_path, "blocks.*", model="many")
    assert "more" in result.stderr
    assert result.stderr.count("blocks.") < 30


@pytest.mark.parametrize(("given", "meant"), [("blocks.0.wieght", "blocks.0.weight"), ("hed.weight", "head.weight")])
def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path, given: str, meant: str) -> None:
    result = explained(tmp_path, given)
    assert result.exit_code == 2
    assert f"there is no parameter '{given}'" in result.stderr
    assert meant in result.stderr


@pytest.mark.parametrize("given", ["", ".", "//", "?", "\x1b[2J", "a" * 3000])
def test_a_name_that_is_none_is_an_error_all_the_same(tmp_path: Path, given: str) -> None:
    result = explained(tmp_path, given)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr
    assert "mistake in groupwise" not in result.stderr


def test_a_tied_parameter_answers_to_each_of_its_names(tmp_path: Path) -> None:
    for name in ("student.weight", "teacher.weight"):
        assert "also known as" in explained(tmp_path, name, model="tied", plan=CONSTANT).stdout
