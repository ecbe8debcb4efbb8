"""`--model package.module:factory`: found where a person works, called as it is, and blamed with the line at fault."""

from pathlib import Path

import pytest

from tests.cli.commands import CONSTANT, MODELS, command, run, written


def refused(folder: Path, model: str) -> str:
    result = run("show", written(folder, CONSTANT), "--model", model)
    assert result.exit_code == 2
    assert not result.stdout
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "mistake in groupwise" not in result.stderr
    return str(result.stderr)


def test_a_factory_that_raises_is_told_with_class_text_and_line(tmp_path: Path) -> None:
    message = refused(tmp_path, f"{MODELS}:broken")
    assert f"--model {MODELS}:broken: the factory raised TypeError: " in message
    assert "found element of type str" in message
    assert "from models.py:" in message


def test_a_long_complaint_of_a_factory_becomes_one_line(tmp_path: Path) -> None:
    assert "raised RuntimeError: first line second line�[31m (models.py:" in refused(tmp_path, f"{MODELS}:garrulous")


def test_a_factory_that_leaves_does_not_take_us_along(tmp_path: Path) -> None:
    assert "the factory raised SystemExit: 0" in refused(tmp_path, f"{MODELS}:leaves")


def test_a_factory_that_needs_arguments_is_refused_before_it_is_called(tmp_path: Path) -> None:
    assert "it is called without arguments, but needs width" in refused(tmp_path, f"{MODELS}:needy")


@pytest.mark.parametrize(("name", "kind"), [("nothing", "None"), ("MODELS", "a list"), ("nn", "a Python module")])
def test_what_is_no_model_is_told_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.setattr(f"{MODELS}.MODELS", ["a"], raising=False)
    assert f"it gave {kind}; a model is a torch.nn.Module" in refused(tmp_path, f"{MODELS}:{name}")


def test_a_model_without_parameters_is_refused(tmp_path: Path) -> None:
    assert "the model has no parameters" in refused(tmp_path, f"{MODELS}:bare")


def test_a_name_that_the_module_lacks_is_answered_with_the_nearest(tmp_path: Path) -> None:
    assert "unknown factory 'biuld'; did you mean 'build'?" in refused(tmp_path, f"{MODELS}:biuld")


def test_a_module_that_is_nowhere_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    message = refused(tmp_path, "nowhere.to_be:found")
    assert "there is no module 'nowhere'" in message
    assert str(Path.cwd()) in message


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("models", "must have the form package.module:factory"),
        (":build", "must have the form"),
        ("models:", "must have the form"),
        ("models:build()", "must have the form"),
        ("models:import os", "must have the form"),
        ("", "must have the form"),
        ("models.py:build", "name the module, not its file"),
        ("models/vit:build", "name the module, not its file"),
    ],
)
def test_another_form_is_answered_with_the_form(tmp_path: Path, model: str, words: str) -> None:
    assert words in refused(tmp_path, model)


def test_the_current_directory_comes_first(tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Linear(3, 3)\n", encoding="utf-8"
    )
    done = command("show", written(tmp_path, CONSTANT), "--model", "colorsys:build", cwd=tmp_path)
    assert done.returncode == 2, "a name that was imported before stays what it was"
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Linear(3, 3)\n", encoding="utf-8"
    )
    done = command("show", "plan.toml", "--model", "mine:build", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 parameters" in done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nump_y\n", "raised ModuleNotFoundError: No module named 'nump_y' (mine.py:1)"),
        ("def build(:\n", "raised SyntaxError: invalid syntax (mine.py:1)"),
        ("\n\n1 / 0\n", "raised ZeroDivisionError: division by zero (mine.py:3)"),
        ("import sys\nsys.exit('usage: …')\n", "raised SystemExit: usage: … (mine.py:2)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    done = command("show", written(tmp_path, CONSTANT), "--model", "mine:build", cwd=tmp_path)
    assert done.returncode == 2
    assert not done.stdout
    assert f"--model mine:build: importing mine {words}" in done.stderr
    assert done.stderr.count("\n") == 1
