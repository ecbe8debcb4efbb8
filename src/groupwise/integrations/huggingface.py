"""Hugging Face's Trainer, where it builds the optimizer itself.

`optimizers=(optimizer, scheduler)` takes ours as they are. Under FSDP, with `model_init=` and in a hyperparameter
search the Trainer wants to build both: then it takes a *factory* of optimizers, which gets the model as the Trainer
prepared it, and asks its own method `create_scheduler`, which a subclass may answer. Both are here; neither imports
`transformers`, since both are called by it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from groupwise._warning import warn
from groupwise.errors import OptimizerError, listed
from groupwise.look import Example
from groupwise.optim import GroupedOptimizer, PlanScheduler, parameters_of
from groupwise.plan import Plan
from groupwise.select.declared import Declared


class OptimizerFactory:
    """`Trainer(…, optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": plan}))` builds a `GroupedOptimizer`."""

    def __call__(
        self,
        model: torch.nn.Module,
        plan: Plan | str | os.PathLike[str],
        roles: Mapping[str, Declared] | None = None,
        tags: Mapping[str, Declared] | None = None,
        example: Example | None = None,
    ) -> GroupedOptimizer:
        """Build the optimizer; what else is given is that of `parameters_of`. Raises as `GroupedOptimizer` does."""
        return GroupedOptimizer(parameters_of(model, roles=roles, tags=tags, example=example), plan)


class PlanMixin:
    """`class PlanTrainer(PlanMixin, Trainer)`: a Trainer whose schedule is the plan's.

    The lengths are the Trainer's: all its updates, and its updates per epoch where `num_train_epochs` is whole and
    `max_steps` is not set. Warns of what only a trainer can know: gradients that are clipped by it as well as by the
    plan, and parameters that were added to the model after the plan was resolved.
    """

    args: Any  # what the Trainer, the other base, holds
    model: Any
    optimizer: Any
    lr_scheduler: Any
    _created_lr_scheduler: bool

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The Trainer's call for a scheduler; one that was handed to the Trainer stays.

        Raises:
            OptimizerError: the Trainer's optimizer is not a `GroupedOptimizer`.
            LengthError: the plan needs a length that the Trainer does not have.
        """
        if self.lr_scheduler is None:
            grouped = _unwrapped(optimizer or self.optimizer)
            _warn_of_two_clippings(grouped, self.args.max_grad_norm)
            _warn_of_orphans(grouped, self.model)
            per_epoch = _steps_per_epoch(num_training_steps, self.args)
            self.lr_scheduler = PlanScheduler(grouped, num_training_steps, per_epoch)
            self._created_lr_scheduler = True  # the next call of train() asks for another
        scheduler: torch.optim.lr_scheduler.LRScheduler = self.lr_scheduler
        return scheduler


def _unwrapped(optimizer: Any) -> GroupedOptimizer:
    """The optimizer inside Accelerate's wrapper."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if not isinstance(inner, GroupedOptimizer):
        raise OptimizerError(
            f"PlanMixin schedules a GroupedOptimizer, but the Trainer has {type(inner).__name__}: give it "
            'optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": plan}) or optimizers=(GroupedOptimizer(…), None)'
        )
    return inner


def _steps_per_epoch(updates: int, args: Any) -> int | None:
    epochs = float(args.num_train_epochs)
    whole = args.max_steps <= 0 and epochs.is_integer() and updates % max(int(epochs), 1) == 0
    return updates // int(epochs) if whole and epochs > 0 else None


def _warn_of_two_clippings(optimizer: GroupedOptimizer, bound: float | None) -> None:
    scopes = [group.clip for group in optimizer.resolution.groups if group.clip is not None]
    if bound and (scopes or optimizer.plan.clip is not None):
        _say(
            f"the Trainer clips all gradients to {bound:g} before the plan clips them by scope: "
            "set TrainingArguments(max_grad_norm=0)"
        )


def _warn_of_orphans(optimizer: GroupedOptimizer, model: torch.nn.Module) -> None:
    owned = {p for group in optimizer.param_groups for p in group["params"]}
    orphans = [name for name, p in model.named_parameters() if p.requires_grad and p not in owned]
    if orphans:
        _say(
            f"{len(orphans)} trainable parameters were added after the plan was resolved and will not be updated "
            f"({listed(orphans, 3)}): inject adapters first, or let OptimizerFactory build the optimizer"
        )


def _say(message: str) -> None:
    warn(message)
