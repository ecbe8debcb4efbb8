"""`groupwise new`: the list of presets, and one as a plan file."""

from pathlib import Path

import pytest

from groupwise import Plan
from groupwise.presets import names, preset
from tests.cli.commands import run


def test_without_a_name_every_preset_has_one_line() -> None:
    lines = [line.rstrip() for line in run("new").stdout.splitlines()]
    assert [line.split(maxsplit=1) for line in lines[: len(names())]] == [[n, preset(n).summary] for n in names()]
    assert "groupwise new NAME > plan.toml" in lines[-1]


@pytest.mark.parametrize("name", names())
def test_a_preset_goes_to_standard_output_as_it_is(name: str) -> None:
    done = run("new", name, width=20)
    assert (done.exit_code, done.stdout) == (0, preset(name).text)


def test_a_preset_goes_to_a_file(tmp_path: Path) -> None:
    done = run("new", "bert", "-o", tmp_path / "plan.toml")
    assert done.exit_code == 0
    assert Plan.load(tmp_path / "plan.toml") == preset("bert").plan


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "plan.toml"
    out.write_text("mine")
    done = run("new", "bert", "-o", out)
    assert done.exit_code == 2
    assert "exists already" in done.stderr
    assert out.read_text() == "mine"


def test_a_file_in_no_directory_is_refused(tmp_path: Path) -> None:
    done = run("new", "bert", "-o", tmp_path / "none" / "plan.toml")
    assert done.exit_code == 2
    assert "there is no directory" in done.stderr


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    done = run("new", "vit")
    assert done.exit_code == 2
    assert "unknown preset 'vit'" in done.stderr
    assert "groupwise new" in done.stderr
