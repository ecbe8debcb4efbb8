"""`groupwise report`: as a person calls it."""

import json
from pathlib import Path

import pytest

from groupwise.report import Report, rendered
from tests.cli.commands import command, run


def test_a_run_is_its_verdict_its_numbers_and_the_way_to_the_page(first: Path) -> None:
    result = run("report", first)
    assert result.exit_code == 0, result.output
    assert "'embed' did not move" in result.stdout
    assert "update/weight" in result.stdout
    assert f"groupwise report {first} -o report.html" in result.stdout.replace("\n", " ")
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_a_file_is_written_and_named(tmp_path: Path, first: Path, report: Report, form: str) -> None:
    out = tmp_path / f"r.{form}"
    result = run("report", first, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"wrote {out}\n"
    assert out.read_text(encoding="utf-8").strip() == rendered(report, form).strip()


def test_text_formats_go_to_a_pipe(first: Path, second: Path, report: Report) -> None:
    assert run("report", first, "--format", "md").stdout == rendered(report, "md")
    assert len(json.loads(run("report", first, second, "--format", "json").stdout)["runs"]) == 2


def test_a_page_is_shown_again_from_its_file(tmp_path: Path, first: Path) -> None:
    run("report", first, "-o", tmp_path / "r.html")
    again = run("report", tmp_path / "r.html")
    assert again.exit_code == 0, again.output
    assert "'embed' did not move" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{run}", "--format", "html"], "add -o report.html"),
        (["{run}", "-o", "{folder}/missing/r.html"], "there is no directory"),
        (["{run}", "-o", "{folder}"], "unknown suffix"),
        (["{run}", "-o", "{folder}/r.gif"], "unknown suffix of a report '.gif'"),
        (["{run}", "--follow", "-o", "r.html"], "goes with neither"),
        (["{run}", "{run}", "--follow"], "give one"),
        (["{folder}/nowhere"], "there is no run at"),
        (["{folder}"], "is no run"),
    ],
)
def test_bad_input_is_one_message(tmp_path: Path, first: Path, arguments: list[str], words: str) -> None:
    filled = [text.format(run=first, folder=tmp_path) for text in arguments]
    result = run("report", *filled)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_an_unknown_format_is_refused_with_those_there_are(first: Path) -> None:
    result = run("report", first, "--format", "pdf")
    assert result.exit_code == 2
    assert "html" in result.stderr


def test_a_finished_run_is_followed_to_its_end_at_once(first: Path) -> None:
    result = run("report", first, "--follow")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("step 399 of 400, 100 % done; 50 ms a step: The loss fell")


def test_a_person_at_a_shell_sees_the_same_and_torch_is_not_loaded(tmp_path: Path, hostile: Path) -> None:
    done = command("report", hostile, cwd=tmp_path, PYTHONUTF8="0", PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
