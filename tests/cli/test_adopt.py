"""`groupwise adopt`: the plan of a program, to the terminal or to a file."""

from pathlib import Path

from groupwise import Plan
from tests.cli.commands import MODELS, run

PROGRAMS = "tests.cli.programs"


def test_the_plan_goes_to_standard_output_with_its_remarks_as_comments() -> None:
    done = run("adopt", f"{PROGRAMS}:headless", width=20)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"# Adopted from {PROGRAMS}:headless: SGD, 1 group, 2 parameters.\n")
    assert "# - no optimizer has 1.weight, 1.bias" in done.stdout
    assert Plan.loads(done.stdout).rules[0].optimizer == "SGD"


def test_the_plan_goes_to_a_file_that_the_other_commands_take(tmp_path: Path) -> None:
    out = tmp_path / "plan.toml"
    assert run("adopt", f"{PROGRAMS}:clean", "-o", out).exit_code == 0
    assert run("show", out, "--model", f"{MODELS}:build").exit_code == 0


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "plan.toml"
    out.write_text("mine")
    done = run("adopt", f"{PROGRAMS}:clean", "-o", out)
    assert (done.exit_code, out.read_text()) == (2, "mine")
    assert "exists already" in done.stderr


def test_schedulers_may_step_once_an_epoch() -> None:
    done = run("adopt", f"{PROGRAMS}:headless", "--schedulers-step", "epoch")
    assert 'every = "5 epochs"' in done.stdout


def test_a_program_that_is_none_is_told_with_its_place() -> None:
    done = run("adopt", f"{PROGRAMS}:lengthy")
    assert done.exit_code == 2
    assert f"error: {PROGRAMS}:lengthy: it gave a tuple of 6" in done.stderr
