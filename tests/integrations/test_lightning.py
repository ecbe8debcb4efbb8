"""Lightning's Trainer, unmodified: one optimizer object, whatever mix of algorithms is behind it."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from tests.integrations.adversaries import ADVERSARIES, Adversaries, adversarial_round, plain_rounds
from tests.integrations.models import PLAN, Net, assert_equal, assert_same_state, loader, plain

SAMPLES, SIZE, EPOCHS = 64, 8, 3
UPDATES = SAMPLES // SIZE * EPOCHS
FINER = Plan([*PLAN.rules, Rule("norm", label="norm", lr=scale(0.5))])

pytestmark = [  # Lightning 2.6 beside torch 2.13, and its advice on data loaders
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]


class Module(lightning.LightningModule):
    """What a person would write."""

    def __init__(self, total_steps: int = UPDATES) -> None:
        super().__init__()
        self.net = Net()
        self.total_steps = total_steps

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        return self.net(**batch)["loss"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = GroupedOptimizer(self.net, PLAN)
        scheduler = PlanScheduler(optimizer, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def trainer(folder: Path, **options: Any) -> lightning.Trainer:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    usual = {"accelerator": "cpu", "max_epochs": EPOCHS, "default_root_dir": folder}
    return lightning.Trainer(**{**quiet, **usual, **options})


def batches(epochs: int = EPOCHS) -> list[Any]:
    return [batch for _ in range(epochs) for batch in loader(SAMPLES, SIZE)]


def test_automatic_optimisation_gives_the_weights_of_the_plain_loop(tmp_path: Path) -> None:
    module = Module()
    run = trainer(tmp_path)
    run.fit(module, loader(SAMPLES, SIZE))
    assert run.global_step == UPDATES
    assert_equal(module.net, plain(batches()))


def test_accumulation_is_one_step_and_one_tick_per_update(tmp_path: Path) -> None:
    module = Module(UPDATES // 4)
    run = trainer(tmp_path, accumulate_grad_batches=4)
    run.fit(module, loader(SAMPLES, SIZE))
    assert module.lr_schedulers().last_epoch == UPDATES // 4
    assert_equal(module.net, plain(batches(), accumulate=4))


def test_its_estimate_of_updates_is_the_plans_total(tmp_path: Path) -> None:
    class Estimating(Module):
        def configure_optimizers(self) -> OptimizerLRScheduler:
            self.total_steps = int(self.trainer.estimated_stepping_batches)
            return super().configure_optimizers()

    module = Estimating(0)
    trainer(tmp_path, accumulate_grad_batches=2).fit(module, loader(SAMPLES, SIZE))
    assert module.total_steps == UPDATES // 2
    assert_equal(module.net, plain(batches(), accumulate=2))


@pytest.mark.parametrize("stop", [1, 2])
def test_it_resumes_exactly_from_its_own_checkpoint(tmp_path: Path, stop: int) -> None:
    whole, half, again = Module(), Module(), Module()
    run, first = trainer(tmp_path), trainer(tmp_path, max_epochs=stop)
    run.fit(whole, loader(SAMPLES, SIZE))
    first.fit(half, loader(SAMPLES, SIZE))
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = trainer(tmp_path)
    resumed.fit(again, loader(SAMPLES, SIZE), ckpt_path=str(tmp_path / "half.ckpt"), weights_only=True)
    assert resumed.global_step == UPDATES
    assert_equal(again.net, whole.net)
    assert_same_state(resumed.optimizers[0], run.optimizers[0])


def test_the_monitor_names_every_group_by_its_own_name(tmp_path: Path) -> None:
    monitor = LearningRateMonitor(logging_interval="step", log_momentum=True, log_weight_decay=True)
    module = Module()
    logger = CSVLogger(tmp_path)
    with pytest.warns(RuntimeWarning, match="some optimizers do not have momentum"):
        trainer(tmp_path, callbacks=[monitor], logger=logger, log_every_n_steps=1).fit(module, loader(SAMPLES, SIZE))
    names = [group["name"] for group in module.optimizers().param_groups]
    assert len(set(names)) == len(names) > 3
    assert set(monitor.lrs) == {f"lr-GroupedOptimizer/{name}" for name in names}
    optimizer = GroupedOptimizer(Net(), PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=UPDATES)
    for update in range(UPDATES):
        for name, rate in zip(names, scheduler.get_last_lr(), strict=True):
            assert monitor.lrs[f"lr-GroupedOptimizer/{name}"][update] == rate
        optimizer.step()
        scheduler.step()


def test_its_clipping_comes_before_the_plans(tmp_path: Path) -> None:
    module = Module()
    trainer(tmp_path, gradient_clip_val=0.1).fit(module, loader(SAMPLES, SIZE))
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=UPDATES)
    for batch in batches():
        net(**batch)["loss"].backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 0.1)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert_equal(module.net, net)


def test_accumulation_that_changes_by_epoch_is_obeyed(tmp_path: Path) -> None:
    module = Module(8 + 4)
    run = trainer(tmp_path, max_epochs=2, callbacks=[GradientAccumulationScheduler({0: 1, 1: 2})])
    run.fit(module, loader(SAMPLES, SIZE))
    assert module.lr_schedulers().last_epoch == 12


class Manual(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.nets = Adversaries()

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        adversarial_round(self.nets, batch["words"], self.optimizers(), self.manual_backward)
        self.lr_schedulers().step()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = GroupedOptimizer(dict(self.nets), ADVERSARIES)
        return {"optimizer": optimizer, "lr_scheduler": PlanScheduler(optimizer, total_steps=SAMPLES // SIZE)}


def test_manual_optimisation_of_two_networks_gives_the_weights_of_the_plain_loop_and_counts_its_steps(
    tmp_path: Path,
) -> None:
    module = Manual()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, loader(SAMPLES, SIZE))
    assert run.global_step == 3 * SAMPLES // SIZE
    assert_equal(module.nets, plain_rounds(batches(1)))


def test_through_its_wrapper_a_view_is_the_same_each_time_and_steps_its_networks_alone(tmp_path: Path) -> None:
    class Once(Manual):
        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
            before = {name: p.detach().clone() for name, p in self.nets.named_parameters()}
            wrapped = self.optimizers()
            assert wrapped.only("critic") is wrapped.only("critic")
            critic, generator = self.nets.losses(batch["words"])
            self.manual_backward(critic + 3 * generator)  # a gradient for everyone
            wrapped.only("critic").step()
            moved = {name for name, p in self.nets.named_parameters() if not torch.equal(p, before[name])}
            assert moved == {"critic.weight", "critic.bias"}
            assert len(wrapped.param_groups) == len(wrapped.optimizer.param_groups) == 2

    trainer(tmp_path, max_epochs=1, limit_train_batches=1).fit(Once(), loader(SAMPLES, SIZE))


def test_regrouping_through_its_wrapper_regroups_the_optimizer_itself(tmp_path: Path) -> None:
    class Regrouped(Module):
        def on_train_epoch_start(self) -> None:
            wrapped = self.optimizers()
            wrapped.regroup(FINER)
            assert "norm" in {group["name"] for group in wrapped.optimizer.param_groups}

    module = Regrouped()
    trainer(tmp_path, max_epochs=1).fit(module, loader(SAMPLES, SIZE))
    expected = plain(batches(1), FINER, total_steps=UPDATES)
    assert_equal(module.net, expected)
