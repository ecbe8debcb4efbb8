"""Lightning Fabric, unmodified: `setup` takes the plain objects, `save` and `load` resume exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from torch import nn

from groupwise import GroupedOptimizer, PlanScheduler
from tests.integrations.adversaries import ADVERSARIES, Adversaries, adversarial_round, plain_rounds
from tests.integrations.models import PLAN, Net, assert_equal, assert_same_state, loader, plain

BATCHES = 24


class Run:
    """Model and optimizer, set up; the scheduler on the optimizer before or after."""

    def __init__(self, fabric: Fabric, scheduler_first: bool = True) -> None:
        self.fabric, self.net = fabric, Net()
        optimizer = GroupedOptimizer(self.net, PLAN)
        before = PlanScheduler(optimizer, total_steps=BATCHES) if scheduler_first else None
        self.model, self.optimizer = fabric.setup(self.net, optimizer)
        self.scheduler = before or PlanScheduler(self.optimizer, total_steps=BATCHES)

    def train(self, first: int = 0, last: int = BATCHES) -> Any:
        for batch in list(loader(8 * BATCHES))[first:last]:
            self.fabric.backward(self.model(**batch)["loss"])
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
        return self

    @property
    def objects(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}


def cpu(**options: Any) -> Fabric:
    return Fabric(accelerator="cpu", devices=1, **options)


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_set_up_as_they_are_they_give_the_weights_of_the_plain_loop(scheduler_first: bool) -> None:
    run = Run(cpu(), scheduler_first).train()
    assert_equal(run.net, plain(loader(8 * BATCHES)))


@pytest.mark.parametrize("stop", [1, 11, 23])
def test_it_resumes_exactly_from_what_it_saved(stop: int, tmp_path: Path) -> None:
    whole, half, again = (Run(cpu()) for _ in range(3))
    whole.train()
    half.train(last=stop)
    half.fabric.save(tmp_path / "run.ckpt", half.objects)
    assert torch.load(tmp_path / "run.ckpt", weights_only=True)["scheduler"]["last_epoch"] == stop
    again.fabric.load(tmp_path / "run.ckpt", again.objects)
    again.train(first=stop)
    assert_equal(again.net, whole.net)
    assert_same_state(again.optimizer, whole.optimizer)


def test_two_networks_give_the_weights_of_the_plain_loop() -> None:
    fabric, nets = cpu(), Adversaries()
    optimizer = GroupedOptimizer(dict(nets), ADVERSARIES)
    scheduler = PlanScheduler(optimizer, total_steps=8)
    optimizer = fabric.setup_optimizers(optimizer)
    batches = list(loader(64))
    for batch in batches:
        adversarial_round(nets, batch["words"], optimizer, fabric.backward)
        scheduler.step()
    assert_equal(nets, plain_rounds(batches))


def test_its_scaler_unscales_each_view_once_and_a_skipped_step_does_not_tick() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    fabric, nets = cpu(plugins=MixedPrecision("16-mixed", "cpu", scaler)), Adversaries()
    inner = GroupedOptimizer(dict(nets), ADVERSARIES)
    scheduler = PlanScheduler(inner, total_steps=8, scaler=scaler)
    optimizer = fabric.setup_optimizers(inner)
    before = nets["critic"].weight.detach().clone()
    words = next(iter(loader(8)))["words"]
    for broken in (float("inf"), 1.0):
        with optimizer.only("critic") as critics:
            critic_loss = nets.losses(words)[0]
            (scaler.scale(critic_loss) * broken).backward()
            critics.step()
            scheduler.step()
            assert torch.equal(nets["critic"].weight, before) == (broken != 1.0)
            critics.zero_grad()
    assert scheduler.last_epoch == 1
    reference = Adversaries()
    plainly = GroupedOptimizer(dict(reference), ADVERSARIES)
    PlanScheduler(plainly, total_steps=8)
    reference.losses(words)[0].backward()
    plainly.only("critic").step()
    nn_close(nets["critic"], reference["critic"])


def nn_close(a: nn.Module, b: nn.Module) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
