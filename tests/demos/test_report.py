"""What the report says of the demo's contestants is what happened: who fails and why, and that the others do not."""

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from groupwise.demos import demo
from groupwise.records import read
from groupwise.report import RunReport, describe

STEPS = 151  # four records of the tasks' shares


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    demo(steps=STEPS, console=Console(file=io.StringIO(), width=200), out=out)
    return out


@pytest.fixture(scope="module")
def reports(folder: Path) -> Mapping[str, RunReport]:
    return {key: describe(folder / key).runs[0] for key in ("raw-sum", "tuned", "plan")}


def looks(report: RunReport) -> list[str]:
    return [sentence.head for sentence in report.verdict if sentence.tone == "look"]


def test_the_raw_sum_fails_because_the_sum_drowns_the_digits(reports: Mapping[str, RunReport]) -> None:
    head, *_ = looks(reports["raw-sum"])
    assert head.startswith("Task 'sum' drowns 'left' and 'right' (")
    assert head.endswith(" times their gradient)")
    assert head in reports["raw-sum"].summary


@pytest.mark.parametrize("key", ["tuned", "plan"])
def test_of_the_contestants_that_learn_nothing_is_to_be_looked_at(reports: Mapping[str, RunReport], key: str) -> None:
    assert looks(reports[key]) == []
    assert any(s.rule == "task-learned" and "'left', 'right' and 'sum'" in s.head for s in reports[key].verdict)
    assert any(s.rule == "no-owner" for s in reports[key].verdict)


@pytest.mark.parametrize("key", ["tuned", "plan"])
def test_norms_are_those_before_clipping(folder: Path, key: str) -> None:
    run = read(folder / key)
    norms = [run.series("groups", group.name, "grad_norm").values for group in run.groups]
    joint = max(sum(norm**2 for norm in at) ** 0.5 for at in zip(*norms, strict=True))
    assert joint > 2.0, "clipped to 1, no norm would lie above it"
    factors = run.series("groups", run.groups[0].name, "clip_factor").values
    assert min(factors) < 0.5


def test_shares_are_those_of_the_weights_in_use(folder: Path) -> None:
    first = {key: read(folder / key).series("shares", "sum", "group 0").values[0] for key in ("raw-sum", "tuned")}
    assert first["raw-sum"] > 0.95
    assert first["tuned"] < 0.9
