"""`groupwise probe`: words, tables and a patch that the plan takes; what cannot be used is one line and status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from groupwise import Plan
from tests.cli.commands import run

MODULE = """
import torch
from torch import nn

def model():
    return nn.Linear(4, 2)

def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(16, 4, generator=generator)
        yield x, x[:, :2].argmax(1)

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def wide(width):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

def broken(model, batch):
    raise RuntimeError("no such layer")
"""
PLAN = '[[rule]]\nmatch = "*"\noptimizer = "AdamW"\nlr = 1e-5\nweight_decay = 0.0\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a plan and a module of a name of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    name = f"probed_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    return name


def arguments(name: str, loss: str = "loss") -> list[str]:
    return ["plan.toml", "--model", f"{name}:model", "--data", f"{name}:batches", "--loss", f"{name}:{loss}"]


def test_a_patch_is_printed_written_and_taken_by_the_plan(here: str) -> None:
    more = ("--steps", "240", "--budget", "1.2", "-o", "patch.toml", "--plot", "a.svg", "--save", "a.json")
    result = run("probe", *arguments(here), *more)
    assert result.exit_code == 0, result.output
    assert "Rates: multiply the plan's by" in result.stdout
    assert "patch written to patch.toml" in result.stdout
    patched = Plan.load("plan.toml") + Plan.load("patch.toml")
    assert patched.rules[-1].label == "probe"
    assert all(Path(name).stat().st_size > 1000 for name in ("a.svg", "a.json"))


def test_a_patch_is_written_although_nobody_reads_to_the_end(here: str) -> None:
    command = [sys.executable, "-c", "from groupwise.cli import main; main()", "probe", *arguments(here)]
    more = ["--steps", "240", "--budget", "1.2", "-o", "patch.toml"]
    with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait()
    assert Plan.load("patch.toml").rules[-1].label == "probe"


def test_a_width_is_that_of_the_runs_and_of_the_run_that_is_planned(here: str) -> None:
    command = [*arguments(here), "--steps", "240", "--budget", "1.2", "--width", "4", "32"]
    command[2] = f"{here}:wide"
    refused = run("probe", *command)
    assert refused.exit_code == 2
    assert "no rate of the plan follows the width" in " ".join(refused.output.split())
    Path("plan.toml").write_text(f'{PLAN}\n[[rule]]\nmatch = "2.weight"\nlr = {{ fan_in = 4 }}\n')
    found = run("probe", *command)
    assert found.exit_code == 0, found.output
    assert "runs were of width 4" in found.stdout
    command[2] = f"{here}:model"
    assert "a function that makes a model of a width" in " ".join(run("probe", *command).output.split())


@pytest.mark.parametrize(
    ("loss", "more", "said"),
    [
        ("loss", (), "--steps N"),
        ("loss", ("--steps", "240", "--budget", "0.01"), "too small to tell rates apart"),
        ("broken", ("--steps", "240"), "no such layer"),
        ("absent", ("--steps", "240"), "absent"),
        ("loss", ("--steps", "240", "-o", "."), "--out"),
        ("broken", ("--steps", "240", "--plot", "a.pdf"), "unknown suffix of a picture '.pdf'"),  # before anything runs
    ],
)
def test_what_cannot_be_used_is_status_2_with_the_reason(
    here: str, loss: str, more: tuple[str, ...], said: str
) -> None:
    result = run("probe", *arguments(here, loss), *more)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
