"""`groupwise audit`: what it prints, how it leaves, and what it says of a factory that gives no program."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import command, run

PROGRAMS = "tests.cli.programs"

REFUSED = {
    "lonely": "it gave a Linear; it must return a tuple (model, optimizers, schedulers, …), a mapping with some",
    "lengthy": "it gave a tuple of 6; it must return a tuple",
    "modelless": "what it returned has no 'model' (there is: optimizers)",
    "misspelt": "unknown part 'optimizer'; did you mean 'optimizers'? (there is: model, optimizers, schedulers, losses",
    "swapped": "programs:swapped: optimizers: this Linear is no optimizer",
    "stumbling": "programs:stumbling: step raised RuntimeError: mat1 and mat2 shapes",
    "misshapen": "programs:misshapen: losses raised RuntimeError: mat1 and mat2 shapes",
    "standing": "'step' is a int; it must be a function",
    "missing": "unknown factory 'missing'",
}


def test_a_clean_program_leaves_with_0() -> None:
    result = run("audit", f"{PROGRAMS}:clean")
    assert result.exit_code == 0
    assert "nothing found; 8 checks ran" in result.stdout


def test_none_stands_for_what_a_program_does_not_have() -> None:
    result = run("audit", f"{PROGRAMS}:unscheduled")
    assert result.exit_code == 0
    assert "not run without schedulers=: foreign-scheduler" in result.stdout
    assert "shared-unowned" not in result.stdout


def test_a_note_leaves_with_0() -> None:
    result = run("audit", f"{PROGRAMS}:frozen")
    assert result.exit_code == 0
    assert "note frozen-owned" in result.stdout


def test_an_error_leaves_with_1_and_shows_the_way_out() -> None:
    result = run("audit", f"{PROGRAMS}:headless")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[2:5] == [
        "error unowned",
        "  no optimizer owns 1.* (2 tensors): they are trainable and never change",
        '  fix: optimizer.add_param_group({"params": model.get_submodule("1").parameters()}); or say that',
    ]
    assert "1 error; 11 checks ran" in result.stdout


def test_a_step_is_run_and_watched() -> None:
    result = run("audit", f"{PROGRAMS}:looping", "--steps", "2", "--format", "json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert [(each["check"], each["severity"]) for each in said["findings"]] == [
        ("kept-gradients", "error"),
        ("unreached", "warning"),
    ]
    assert said["findings"][1]["parameters"] == ["0.weight", "0.bias"]
    assert set(said["skipped"]) == {"foreign-scheduler", "overwritten-lr", "uneven-schedule"}
    assert not set(said["ran"]) & set(said["skipped"])


@pytest.mark.parametrize(("program", "words"), REFUSED.items(), ids=REFUSED)
def test_what_is_no_program_is_one_message_and_2(program: str, words: str) -> None:
    result = run("audit", f"{PROGRAMS}:{program}")
    assert result.exit_code == 2
    assert not result.stdout
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "mistake in groupwise" not in result.stderr


def test_steps_without_a_step_are_refused() -> None:
    result = run("audit", f"{PROGRAMS}:clean", "--steps", "3")
    assert result.exit_code == 2
    assert "--steps 3: there is nothing to run; return 'step'" in result.stderr


@pytest.mark.parametrize("arguments", [("--steps", "0"), ("--format", "xml")])
def test_a_bad_option_leaves_with_2(arguments: tuple[str, str]) -> None:
    assert run("audit", f"{PROGRAMS}:clean", *arguments).exit_code == 2


def test_the_help_tells_the_exit_statuses() -> None:
    said = " ".join(run("audit", "--help").stdout.split())
    assert "0 if no finding is an error, 1 if one is, 2 if there is nothing" in said


def test_a_program_is_found_where_a_person_works(tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text("from tests.cli.programs import headless as build\n", encoding="utf-8")
    done = command("audit", "training:build", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error unowned" in done.stdout
