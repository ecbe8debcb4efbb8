"""`--example`: what the model is run on, to see roles and depth in place of guessing them."""

from pathlib import Path

import pytest

from tests.cli.commands import CONSTANT, MODELS, run, written

SEEN = "roles and depth: 4 of 6 tensors seen in a forward on the meta device; 2 guessed, unused by the example"


@pytest.mark.parametrize("example", ["EXAMPLE", "make_example", "run_on_example"])
def test_every_command_that_takes_a_model_takes_an_example(tmp_path: Path, example: str) -> None:
    plan, given = written(tmp_path, CONSTANT), ("--model", f"{MODELS}:Backwards", "--example", f"{MODELS}:{example}")
    shown = run("show", plan, *given, width=200)
    assert SEEN in shown.stdout, shown.stderr
    explained = run("explain", plan, "last.weight", *given, width=200)
    assert "depth 2" in explained.stdout
    assert "roles and depth: seen in a forward on the meta device" in explained.stdout
    assert "roles and depth: guessed" in run("explain", plan, "spare.weight", *given, width=200).stdout


def test_an_example_that_does_not_fit_is_told_with_the_way_out(tmp_path: Path) -> None:
    result = run(
        "show", written(tmp_path, CONSTANT), "--model", f"{MODELS}:build", "--example", f"{MODELS}:EXAMPLE", width=300
    )
    assert result.exit_code == 2
    assert "example: the model cannot be run on it" in result.stderr
    assert "without example= roles and depth are guessed from names" in result.stderr


def test_an_example_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    result = run(
        "show", written(tmp_path, CONSTANT), "--model", f"{MODELS}:Backwards", "--example", f"{MODELS}:make_exampel",
        width=300,
    )  # fmt: skip
    assert result.exit_code == 2
    assert "--example" in result.stderr
    assert "make_example" in result.stderr


def test_the_audit_takes_an_example_beside_the_program() -> None:
    result = run("audit", "tests.cli.programs:clean", "--example", "tests.cli.programs:X", width=200)
    assert result.exit_code == 0, result.stderr
    assert "example=" not in result.stdout, "the check that needs it ran"
