"""The other process is a real one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from groupwise import Plan, Rule, clip_norm, unfreeze_down
from groupwise.checkpoint import load, save
from groupwise.schedules import cosine, plateau
from tests.checkpoint.runs import STEPS, Run, differences

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="25%"), weight_decay=0.05, clip=clip_norm(0.5)),
        Rule("*linear.weight", optimizer="Muon", lr=plateau(0.02, patience=0), momentum=0.9, weight_decay=0.01),
        Rule("*embed.*", optimizer="SparseAdam", lr=0.05, weight_decay=0.0),
        Rule("*blocks.*", trainable=unfreeze_down("2 steps")),
    ]
)
CONTINUE = """
import sys
from pathlib import Path
import torch
from groupwise import Plan
from tests.checkpoint.runs import STEPS, Run
plan, stop, twice, amp, directory = sys.argv[1:]
run = Run(Plan.load(plan), True, twice == "True", amp == "True", 50)
run.load(Path(directory) / "run.pt")
run.train(range(int(stop), STEPS))
torch.save(run.everything(), Path(directory) / "end.pt")
"""
SAVE_FOR_EVER = """
import itertools, sys
import torch
from groupwise.checkpoint import save
for count in itertools.count():
    save(sys.argv[1], model=torch.nn.ParameterDict({"w": torch.full((1 << 21,), float(count))}), extra=count)
"""


def python(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(("stop", "twice", "amp"), [(3, False, True), (5, True, False)])
def test_a_run_goes_on_in_a_fresh_process_bit_for_bit(tmp_path: Path, stop: int, twice: bool, amp: bool) -> None:
    PLAN.dump(tmp_path / "plan.toml")
    straight = Run(PLAN, True, twice, amp)
    straight.train(range(stop))
    straight.save(tmp_path / "run.pt")
    straight.train(range(stop, STEPS))
    other = python(CONTINUE, tmp_path / "plan.toml", stop, twice, amp, tmp_path)
    assert other.wait(120) == 0
    assert not differences(straight.everything(), torch.load(tmp_path / "end.pt"))


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_a_kill_in_the_middle_of_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    delays = torch.rand(6, generator=torch.Generator().manual_seed(0)) * 0.1
    last = -1
    for delay in delays.tolist():
        path.unlink(missing_ok=True)
        saver = python(SAVE_FOR_EVER, path)
        while not path.exists() and saver.poll() is None:
            time.sleep(0.002)
        time.sleep(delay)
        saver.send_signal(signal.SIGKILL)
        saver.wait(30)
        model = torch.nn.ParameterDict({"w": torch.zeros(1 << 21)})
        last = load(path, model=model).extra
        assert torch.equal(model["w"], torch.full((1 << 21,), float(last)))
    save(path, model=model, extra=last)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.pt"]
