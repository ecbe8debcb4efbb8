"""The door: help without torch, one message for what went wrong, a quiet end when interrupted, warnings on a line."""

import errno
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import typer

from groupwise.cli.exit_status import exit_status, printable, raised
from groupwise.errors import GroupwiseError
from tests.cli.commands import CONSTANT, MODELS, command, run, written
from tests.house.tree import ROOT


@pytest.mark.parametrize(
    "arguments", [["--help"], ["show", "--help"], ["explain", "-h"], ["demo", "-h"], ["--version"]]
)
def test_help_and_version_load_neither_torch_nor_a_drawing_library(arguments: list[str]) -> None:
    code = """
import sys
from groupwise.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as leaving:
    heavy = [name for name in ("torch", "numpy", "matplotlib", "plotly", "sklearn") if name in sys.modules]
    sys.exit(leaving.code or ", ".join(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_the_package() -> None:
    from importlib import metadata

    assert run("--version").stdout == f"groupwise {metadata.version('groupwise')}\n"


def test_help_names_the_commands_and_where_to_start() -> None:
    text = run("--help").stdout
    for word in ("demo", "show", "explain", "groupwise demo"):
        assert word in text


@pytest.mark.parametrize("name", ["demo", "show", "explain", "audit", "report"])
def test_no_help_prints_a_type_where_a_flag_takes_no_value(name: str) -> None:
    assert "bool" not in run(name, "--help", width=140).stdout.lower()


@pytest.mark.parametrize("name", ["demo", "show", "explain"])
def test_every_command_has_an_example_in_its_help(name: str) -> None:
    text = run(name, "--help", width=140).stdout
    assert f"Example:  groupwise {name} " in text


def test_no_flag_repeats_a_field_of_a_plan() -> None:
    text = run("show", "--help", width=140).stdout + run("explain", "--help", width=140).stdout
    for field in ("--lr", "--optimizer", "--match", "--clip", "--trainable", "--weight", "--rule"):
        assert field not in text


@pytest.mark.parametrize("arguments", [[], ["show"], ["explain", "plan.toml"], ["shwo"], ["show", "--lr", "1"]])
def test_a_wrong_call_has_status_2_and_says_how_to_call(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("flag", ["--steps", "--epoch-steps"])
@pytest.mark.parametrize("number", ["0", "-3", "9" * 30])
def test_a_length_that_is_none_is_refused(tmp_path: Path, flag: str, number: str) -> None:
    result = run("show", written(tmp_path), "--model", f"{MODELS}:build", flag, number)
    assert result.exit_code == 2
    assert f"{flag} {number}: a number of steps lies between" in result.stderr


@pytest.mark.parametrize(("flag", "number"), [("--seeds", "0"), ("--steps", "0")])
def test_a_demo_of_nothing_is_refused(flag: str, number: str) -> None:
    result = run("demo", flag, number)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("flag", ["--seeds", "--steps"])
@pytest.mark.parametrize("name", ["characters", "shift"])
def test_every_demo_refuses_none(name: str, flag: str) -> None:
    result = run("demo", name, flag, "0")
    assert result.exit_code == 2
    assert "at least one seed and one step" in result.stderr


def test_the_demos_are_listed_with_what_they_show() -> None:
    result = run("demo", "--list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[:3]] == ["two-digits", "characters", "shift"]


def test_an_unknown_demo_is_answered_with_the_nearest() -> None:
    result = run("demo", "two_digits")
    assert result.exit_code == 2
    assert "did you mean 'two-digits'?" in result.stderr


@pytest.mark.slow
def test_the_demo_runs(tmp_path: Path) -> None:
    done = command("demo", "--steps", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the plan" in done.stdout


def test_an_interruption_is_quiet_and_has_its_own_status(tmp_path: Path) -> None:
    result = run("show", written(tmp_path, CONSTANT), "--model", f"{MODELS}:interrupted")
    assert result.exit_code == 130
    assert not result.output


def test_a_warning_is_one_line_on_stderr(tmp_path: Path) -> None:
    plan, arguments = written(tmp_path, CONSTANT), ("--model", f"{MODELS}:warns")
    code = "from groupwise.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "show", str(plan), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr.startswith("warning: this factory is old (UserWarning, models.py:")
    assert done.stderr.count("\n") == 1


def test_a_mistake_of_ours_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit, match="2"), exit_status():
        printable(cast(str, 5))
    message = capsys.readouterr().err
    assert message.startswith("error: raised AttributeError: ")
    assert "please report it" in message


def own_mistake() -> None:
    _ = {}["no such key"]


def of_a_library() -> None:
    json.loads("{")


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "page.html")


def unreadable() -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "plan.toml")


def missing_package() -> None:
    importlib.import_module("a_package_that_is_not")


def full_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (own_mistake, "raised KeyError: 'no such key' (test_door.py:"),
        (of_a_library, "raised JSONDecodeError: "),
        (full_disk, "the system refuses: [Errno 28] No space left on device: 'page.html'"),
        (unreadable, "the system refuses: [Errno 13] Permission denied: 'plan.toml'"),
        (missing_package, "an import failed: No module named 'a_package_that_is_not'"),
        (full_memory, "the memory is full"),
        (lambda: sys.exit(0), "raised SystemExit: 0 (test_door.py:"),
    ],
)
def test_what_is_no_mistake_of_ours_is_not_called_one(
    capsys: pytest.CaptureFixture[str], mistake: Callable[[], None], said: str
) -> None:
    with pytest.raises(typer.Exit, match="2"), exit_status():
        mistake()
    message = capsys.readouterr().err
    assert message.startswith(f"error: {said}")
    assert "mistake in groupwise" not in message
    assert message.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_the_output_is_an_error_of_the_system(tmp_path: Path) -> None:
    code = "from groupwise.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "show", str(written(tmp_path, CONSTANT)), "--model", f"{MODELS}:build"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "mistake in groupwise" not in done.stderr
    assert "Traceback" not in done.stderr


def test_code_that_leaves_behind_our_back_does_not_look_like_success() -> None:
    with pytest.raises(typer.Exit, match="2"), exit_status():
        sys.exit(0)


def test_an_error_of_ours_is_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit, match="2"), exit_status():
        raise GroupwiseError("rule 1: [bold] is no :smile:\nat all")
    assert capsys.readouterr().err == "error: rule 1: [bold] is no :smile: at all\n"


def test_leaving_through_the_door_is_no_error() -> None:
    with pytest.raises(typer.Exit, match="0"), exit_status():
        raise typer.Exit(0)


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    code = f"from groupwise.cli import main; import sys; sys.argv[1:] = ['show', {str(written(tmp_path))!r}, "
    code += f"'--model', '{MODELS}:many', '--steps', '1000']; main()"
    shell = f'"{sys.executable}" -c "$CODE" | head -n 1'
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, check=False, env={"CODE": code, "PATH": "/usr/bin:/bin"}
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "shown"),
    [("plain", "plain"), ("a\nb\tc", "a b c"), ("\x1b[2J", "�[2J"), ("\u202eabc", "�abc"), ("日本 ×", "日本 ×")],
)
def test_only_what_can_be_printed_is_printed(given: str, shown: str) -> None:
    assert printable(given) == shown


def test_an_error_without_text_is_its_class() -> None:
    assert raised(ValueError()) == "raised ValueError"


def test_a_reader_that_has_gone_is_no_mistake(tmp_path: Path) -> None:
    plan = written(tmp_path, CONSTANT)
    code = "from groupwise.cli import main; main()"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "show", str(plan), "--model", f"{MODELS}:build"],
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1
