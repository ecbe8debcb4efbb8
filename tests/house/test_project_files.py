"""The files around the source keep their promises: what is pinned, what the README's commands are, what CI calls."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.house.tree import ROOT

UNPINNED = {"groupwise"}  # ourselves


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in text("constraints.txt").splitlines() if line and not line.startswith("#")]
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}


def named(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {canonical(match.group()) for match in found if match}


def test_constraints_pin_every_dependency_that_the_project_names() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    bare = [line for line in text("requirements-nodeps.txt").splitlines() if not line.startswith("#")]
    missing = named([*project["dependencies"], *extras, *bare]) - pins().keys() - UNPINNED
    assert not missing


def test_every_pin_is_exact_and_portable() -> None:
    assert not {name: version for name, version in pins().items() if not re.fullmatch(r"\d[\w.]*", version)}


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readmes_commands_are_targets(command: str) -> None:
    assert command in text("README.md")
    assert re.search(rf"^{command.split()[1]}:", text("Makefile"), flags=re.MULTILINE)


def test_ci_calls_the_readmes_test_command() -> None:
    script: Path = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    assert text(".ci/run").rstrip().endswith("make test")
