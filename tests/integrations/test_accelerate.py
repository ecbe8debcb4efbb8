"""Accelerate, unmodified: `prepare` takes the plain objects, and the weights are those of our plain loop."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DataLoaderConfiguration

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.errors import OptimizerError
from tests.integrations.models import (
    CONSTANT,
    PLAN,
    Net,
    Words,
    assert_equal,
    assert_same_state,
    collated,
    loader,
    plain,
)

BATCHES = 24
ROOT = Path(__file__).resolve().parents[2]


class Run:
    """Model, optimizer, batches and scheduler, prepared."""

    def __init__(self, accelerator: Accelerator, total_steps: int = BATCHES) -> None:
        self.accelerator = accelerator
        self.net = Net()
        optimizer = GroupedOptimizer(self.net, PLAN)
        scheduler = PlanScheduler(optimizer, total_steps=total_steps)
        prepared = accelerator.prepare(self.net, optimizer, loader(8 * BATCHES), scheduler)
        self.model, self.optimizer, self.loader, self.scheduler = prepared

    def train(self, first: int = 0, last: int = BATCHES) -> Any:
        """The loop of Accelerate's documentation, on the batches `first` to `last`."""
        for i, batch in enumerate(self.loader):
            if first <= i < last:
                with self.accelerator.accumulate(self.model):
                    self.accelerator.backward(self.model(**batch)["loss"])
                    self.optimizer.step()
                    self.scheduler.step()
                    self.optimizer.zero_grad()
        return self


def cpu(**options: Any) -> Accelerator:
    return Accelerator(cpu=True, **options)


def test_prepared_as_they_are_they_give_the_weights_of_the_plain_loop() -> None:
    run = Run(cpu()).train()
    assert_equal(run.net, plain(loader(8 * BATCHES)))


@pytest.mark.parametrize("stop", [1, 11, 23])
def test_it_resumes_exactly_from_its_own_checkpoint(stop: int, tmp_path: Path) -> None:
    whole, half, again = (Run(cpu()) for _ in range(3))
    whole.train()
    half.train(last=stop)
    half.accelerator.save_state(str(tmp_path))
    again.accelerator.load_state(str(tmp_path))
    assert set(torch.load(tmp_path / "optimizer.bin", weights_only=True)) == {"state", "param_groups"}
    again.train(first=stop)
    assert_equal(again.net, whole.net)
    assert_same_state(again.optimizer.optimizer, whole.optimizer.optimizer)


def test_accumulation_is_one_step_and_one_tick_per_update() -> None:
    run = Run(cpu(gradient_accumulation_steps=4), total_steps=BATCHES // 4).train()
    assert run.scheduler.scheduler.last_epoch == BATCHES // 4
    assert_equal(run.net, plain(loader(8 * BATCHES), accumulate=4))


@pytest.mark.parametrize(("split", "ticks"), [(False, 2), (True, 1)])
def test_it_ticks_once_per_process_and_update_unless_batches_are_split(
    split: bool, ticks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DataLoaderConfiguration(split_batches=split)
    run = Run(cpu(dataloader_config=options), total_steps=BATCHES * ticks)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)  # what the scheduler reads at each tick
    run.train()
    assert run.scheduler.scheduler.last_epoch == BATCHES * ticks
    assert_equal(run.net, plain(loader(8 * BATCHES), ticks=ticks))


def test_it_ticks_once_per_call_where_schedulers_are_not_stepped_with_the_optimizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(cpu(step_scheduler_with_optimizer=False))
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)
    run.train()
    assert_equal(run.net, plain(loader(8 * BATCHES)))


def test_a_plan_without_lengths_ticks_under_it_too() -> None:
    accelerator, net = cpu(), Net()
    optimizer = GroupedOptimizer(net, CONSTANT)
    scheduler = accelerator.prepare(optimizer, PlanScheduler(optimizer))[1]
    for _ in range(3):
        scheduler.step()
    assert scheduler.scheduler.last_epoch == 3


def test_its_scaler_unscales_once_and_a_skipped_step_does_not_tick() -> None:
    accelerator = cpu()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)  # it makes one for accelerators alone
    run = Run(accelerator)
    for i, batch in enumerate(run.loader):
        if i == 5:
            accelerator.backward(run.model(**batch)["loss"] * float("inf"))
        else:
            accelerator.backward(run.model(**batch)["loss"])
        run.optimizer.step()
        assert run.optimizer.step_was_skipped == (i == 5)
        run.scheduler.step()
        run.optimizer.zero_grad()
    kept = [batch for i, batch in enumerate(loader(8 * BATCHES)) if i != 5]
    assert run.scheduler.scheduler.last_epoch == BATCHES - 1
    assert_equal(run.net, plain(kept, total_steps=BATCHES))


def test_a_scheduler_built_after_prepare_takes_the_optimizer_inside() -> None:
    optimizer = cpu().prepare(GroupedOptimizer(Net(), PLAN))
    with pytest.raises(OptimizerError, match=r"not AcceleratedOptimizer: give it the one inside, at \.optimizer"):
        PlanScheduler(optimizer, total_steps=10)
    assert PlanScheduler(optimizer.optimizer, total_steps=10).last_epoch == 0


def test_training_and_evaluation_modes_reach_a_schedule_free_engine() -> None:
    net = Net()
    plan = Plan([Rule("*", optimizer="pytorch_optimizer:ScheduleFreeSGD", lr=0.5)])
    optimizer = cpu().prepare(GroupedOptimizer(net, plan))
    optimizer.train()
    for batch in loader(16):
        net(**batch)["loss"].backward()
        optimizer.step()
    trained = net.head.weight.detach().clone()
    optimizer.eval()
    assert not torch.allclose(net.head.weight, trained)
    optimizer.train()
    torch.testing.assert_close(net.head.weight.detach(), trained)


SCRIPT = """
import sys
import torch
from accelerate import Accelerator
from groupwise import GroupedOptimizer, PlanScheduler
from tests.integrations.models import PLAN, Net, loader

accelerator = Accelerator(cpu=True)
net = Net()
optimizer = GroupedOptimizer(net, PLAN)
scheduler = PlanScheduler(optimizer, total_steps=24)  # 12 updates, 2 ticks each
net, optimizer, batches, scheduler = accelerator.prepare(net, optimizer, loader(192), scheduler)
for batch in batches:
    accelerator.backward(net(**batch)["loss"])
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
torch.save(accelerator.unwrap_model(net).state_dict(), f"{sys.argv[1]}/{accelerator.process_index}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_real_processes_give_the_weights_of_one_on_the_joint_batches(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    words = Words(192)
    joint = [collated([words[i] for i in range(start, start + 16)]) for start in range(0, 192, 16)]
    expected = plain(joint, ticks=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, p in expected.named_parameters():
            torch.testing.assert_close(found[name], p.detach(), rtol=0, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
