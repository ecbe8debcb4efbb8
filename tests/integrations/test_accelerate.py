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

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after
from groupwise.errors import GroupwiseWarning, OptimizerError
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
                    if self.accelerator.step_scheduler_with_optimizer or self.accelerator.sync_gradients:
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


def test_a_scheduler_that_is_stepped_once_per_process_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(cpu(), total_steps=2 * BATCHES)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)  # what the scheduler reads at each step
    with pytest.warns(
        GroupwiseWarning, match=r"stepped 2 times .* over after 24 updates.*with_optimizer=False"
    ) as said:
        run.train()
    assert len(said) == 1
    assert run.scheduler.scheduler.last_epoch == 2 * BATCHES


def test_it_is_stepped_once_per_update_where_batches_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(cpu(dataloader_config=DataLoaderConfiguration(split_batches=True)))
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)
    assert_equal(run.train().net, plain(loader(8 * BATCHES)))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_it_is_stepped_once_per_update_by_the_documented_loop(accumulate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = cpu(step_scheduler_with_optimizer=False, gradient_accumulation_steps=accumulate)
    run = Run(accelerator, total_steps=BATCHES // accumulate)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)
    run.train()
    assert run.scheduler.scheduler.last_epoch == BATCHES // accumulate
    assert_equal(run.net, plain(loader(8 * BATCHES), accumulate=accumulate))


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
from groupwise import GroupedOptimizer, PlanScheduler, Rule, after
from tests.integrations.models import PLAN, Net, loader

def train(folder, accumulate):
    accelerator = Accelerator(cpu=True, step_scheduler_with_optimizer=False, gradient_accumulation_steps=accumulate)
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN + [Rule("head.bias", trainable=after("2 steps"))])
    scheduler = plan_scheduler = PlanScheduler(optimizer, total_steps=12 // accumulate)
    net, optimizer, batches, scheduler = accelerator.prepare(net, optimizer, loader(192), scheduler)
    for batch in batches:
        with accelerator.accumulate(net):
            accelerator.backward(net(**batch)["loss"])
            optimizer.step()
            if accelerator.sync_gradients:
                scheduler.step()
            optimizer.zero_grad()
    accelerator.save_state(f"{folder}/state")
    accelerator.wait_for_everyone()
    accelerator.load_state(f"{folder}/state")
    counted = {"counted": plan_scheduler.last_epoch}
    torch.save(accelerator.unwrap_model(net).state_dict() | counted, f"{folder}/{accelerator.process_index}.pt")
    accelerator.wait_for_everyone()
    accelerator.free_memory()


for accumulate in (1, 2):
    train(f"{sys.argv[1]}/{accumulate}", accumulate)
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two real processes left what they trained, below a folder for each number of accumulated batches."""
    folder = tmp_path_factory.mktemp("two_processes")
    script = folder / "train.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run"]
    done = subprocess.run(
        [*launch, "--nproc-per-node=2", "--standalone", str(script), str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "GroupwiseWarning" not in done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_real_processes_give_the_weights_of_one_on_the_joint_batches(accumulate: int, two_processes: Path) -> None:
    words = Words(192)
    joint = [collated([words[i] for i in range(start, start + 16)]) for start in range(0, 192, 16)]
    more = Rule("head.bias", trainable=after("2 steps"))
    expected = plain(joint, accumulate=accumulate, plan=PLAN + [more])
    for rank in range(2):
        found = torch.load(two_processes / f"{accumulate}/{rank}.pt", weights_only=True)
        assert found["counted"] == 12 // accumulate
        for name, p in expected.named_parameters():
            torch.testing.assert_close(found[name], p.detach(), rtol=0, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
