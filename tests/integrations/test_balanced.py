"""A balancer inside the trainers: where each calls backward the balancer does, and the weights are a plain loop's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from groupwise import Balancer, GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.balance import PCGrad
from groupwise.integrations import PlanMixin
from groupwise.schedules import cosine

PLAN = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=0.01), Rule("trunk", lr=cosine(3e-3))])
SIZE, UPDATES = 4, 6


class Tasks(nn.Module):
    """A trunk and two heads that want different things of it; losses by task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(5, 8)
        self.heads = nn.ModuleDict({"sign": nn.Linear(8, 1), "size": nn.Linear(8, 1)})

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The loss of each task, for x of shape [n, 5]."""
        features = torch.tanh(self.trunk(x))
        wanted = {"sign": x.sum(1).sign(), "size": -x.sum(1)}
        return {task: (head(features)[:, 0] - wanted[task]).square().mean() for task, head in self.heads.items()}


INPUTS = torch.randn(SIZE * UPDATES, 5, generator=torch.Generator().manual_seed(1))
DATA = [{"x": x, "labels": torch.tensor(0)} for x in INPUTS]


def batches() -> DataLoader[Any]:
    return DataLoader(DATA, batch_size=SIZE)  # type: ignore[arg-type]  # a list serves as a dataset


def by_loop() -> list[torch.Tensor]:
    """The weights that a plain loop comes to."""
    model = Tasks()
    optimizer, balancer = GroupedOptimizer(model, PLAN), Balancer(PCGrad())
    scheduler = PlanScheduler(optimizer, total_steps=UPDATES)
    for batch in batches():
        balancer.backward(model(**batch))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return [p.detach() for p in model.parameters()]


def assert_same_as_the_loop(model: nn.Module) -> None:
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), by_loop(), strict=True))


class BalancedTrainer(PlanMixin, Trainer):
    """Hugging Face's, whose step asks a balancer."""

    balancer = Balancer(PCGrad())

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One batch, forward and back."""
        model.train()
        losses = model(**self._prepare_inputs(inputs))
        self.balancer.backward(losses)
        return sum(loss.detach() for loss in losses.values())  # type: ignore[return-value]  # of tensors

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(DATA)  # in the order of the loop


def test_hugging_faces_trainer_takes_a_balancer(tmp_path: Path) -> None:
    arguments = TrainingArguments(
        str(tmp_path), max_steps=UPDATES, per_device_train_batch_size=SIZE, max_grad_norm=0, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    model = Tasks()
    optimizer = GroupedOptimizer(model, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=UPDATES)
    BalancedTrainer(model, arguments, train_dataset=DATA, optimizers=(optimizer, scheduler)).train()
    assert_same_as_the_loop(model)


def test_accelerate_takes_a_balancer() -> None:
    accelerator = Accelerator(cpu=True, step_scheduler_with_optimizer=False)
    model, balancer = Tasks(), Balancer(PCGrad())
    optimizer = GroupedOptimizer(model, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=UPDATES)
    net, stepping, loader, ticking = accelerator.prepare(model, optimizer, batches(), scheduler)
    for batch in loader:
        balancer.backward(net(**batch), scaler=accelerator.scaler)
        stepping.step()
        ticking.step()
        stepping.zero_grad()
    assert_same_as_the_loop(model)


class Module(lightning.LightningModule):
    """Lightning's, optimised by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.balancer = Tasks(), Balancer(PCGrad())

    def training_step(self, batch: Any, index: int) -> None:
        """One update."""
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        self.balancer.backward(self.net(**batch))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        """The plan's."""
        optimizer = GroupedOptimizer(self.net, PLAN)
        return [optimizer], [PlanScheduler(optimizer, total_steps=UPDATES)]


@pytest.mark.filterwarnings("ignore::Warning:lightning")
def test_lightning_takes_a_balancer(tmp_path: Path) -> None:
    module = Module()
    lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    ).fit(module, batches())  # fmt: skip
    assert_same_as_the_loop(module.net)
