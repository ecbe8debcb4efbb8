"""What is tried: a model, a plan, batches and a loss, held together so that a run of it can be made again and again."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from groupwise._spelling import shown
from groupwise.errors import ProbeError, within
from groupwise.plan import Plan
from groupwise.probing.batches import Batches
from groupwise.probing.restoring import seed_all
from groupwise.probing.single import Single
from groupwise.probing.widths import Widths

Model: TypeAlias = "torch.nn.Module | Mapping[str, torch.nn.Module | torch.Tensor]"
Loss: TypeAlias = Callable[[Any, Any], "Tensor | Mapping[str, Tensor]"]

JUDGED_ON = 8
"""Batches that every contestant is judged on, the same ones for all."""

_JUDGING = 1_000_003  # the seed of these batches


@final
@dataclass(frozen=True, eq=False)
class Job:
    """One training, as often as it is wanted.

    Attributes:
        model: a module, a mapping of names to modules or parameters, or a function without arguments that makes one.
        total_steps, steps_per_epoch: of the run that is planned.
        validation: what contestants are judged on; None for batches like those of the training.
        single: how one AdamW is made of the plan; None where that is not tried.
        widths: where the model is narrower than the one that is planned.
    """

    model: Model | Callable[[], Model]
    plan: Plan
    batches: Batches
    loss: Loss
    total_steps: int
    steps_per_epoch: int | None = None
    validation: Batches | None = None
    single: Single | None = None
    widths: Widths | None = None

    @property
    def is_made(self) -> bool:
        """Whether each seed has initial weights of its own."""
        return not isinstance(self.model, torch.nn.Module | Mapping)

    def generators(self) -> list[Any]:
        """The generators of the batches."""
        sources = [self.batches, *([self.validation] if self.validation else [])]
        return [generator for source in sources for generator in source.generators()]

    def seeded(self, seed: int) -> None:
        """Every generator as a seed has it."""
        seed_all(seed, self.generators())

    def fresh(self, seed: int) -> Model:
        """A model to train: another copy each time, or what the factory makes of a seed. Raises `ProbeError`."""
        self.seeded(seed)
        if self.is_made:
            return checked_model(self.model())  # type: ignore[operator]
        try:
            made = copy.deepcopy(self.model)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise ProbeError(
                f"the model cannot be copied ({' '.join(str(error).split())}): give a function that makes it"
            ) from error
        for tensor in tensors_of(made):
            tensor.grad = None
        return made  # type: ignore[return-value]

    def losses(self, model: Model, batch: object) -> dict[str, Tensor]:
        """The loss of each task, under "loss" where there is but one. Raises `ProbeError` for what is none."""
        return checked_losses(self.loss(model, batch))

    @torch.no_grad()
    def judged(self, model: Model) -> list[dict[str, float]]:
        """For each of the batches that all are judged on, the loss of each task; the model stays in its mode."""
        self.seeded(_JUDGING)
        source = self.validation or self.batches
        found = [self.losses(model, batch) for batch in source.take(_JUDGING, JUDGED_ON)]
        return [{task: float(loss) for task, loss in losses.items()} for losses in found]

    def take(self, seed: int, count: int) -> Iterator[Any]:
        """The batches of a run."""
        return self.batches.take(seed, count)


def checked_model(given: object) -> Model:
    """Raises `ProbeError` for what is no model, or has tensors without a shape."""
    tensors = isinstance(given, Mapping) and all(isinstance(v, torch.nn.Module | Tensor) for v in given.values())
    if not (isinstance(given, torch.nn.Module) or tensors):
        raise ProbeError(
            "model is a torch.nn.Module, a mapping of names to modules, or a function that makes one, not "
            f"{shown(given)}"
        )
    if any(map(torch.nn.parameter.is_lazy, tensors_of(given))):
        raise ProbeError("the model has parameters without a shape yet: run one batch through the lazy module first")
    return given  # type: ignore[return-value]


def checked_loss(given: object) -> Loss:
    """Raises `ProbeError` for what cannot be called with a model and a batch."""
    if not callable(given):
        raise ProbeError(f"loss is a function of a model and a batch, loss(model, batch), not {shown(given)}")
    try:
        inspect.signature(given).bind(None, None)
    except TypeError as error:
        raise ProbeError(
            f"loss is called with the model that is tried, which is a copy, and a batch: loss(model, batch) ({error})"
        ) from None
    except ValueError:  # no signature to tell
        pass
    return given


def checked_losses(found: object) -> dict[str, Tensor]:
    """The losses by task. Raises `ProbeError`."""
    tasks: Mapping[Any, Any] = found if isinstance(found, Mapping) else {"loss": found}
    if not tasks:
        raise ProbeError("loss gave an empty mapping: give a tensor, or a mapping of task to tensor")
    for task, loss in tasks.items():
        with within(f"loss, task {shown(task)}" if isinstance(found, Mapping) else "loss"):
            if not isinstance(loss, Tensor):
                raise ProbeError(f"it gave {shown(loss)}, no tensor: return the loss before .item()")
            if loss.numel() != 1:
                raise ProbeError(f"it has shape {tuple(loss.shape)}; a loss is one number: reduce it first")
    return {str(task): loss.reshape(()) for task, loss in tasks.items()}


def tensors_of(model: object) -> list[Tensor]:
    """The parameters of a model, each once."""
    parts = list(model.values()) if isinstance(model, Mapping) else [model]
    own = [p for part in parts if isinstance(part, torch.nn.Module) for p in part.parameters()]
    return list({id(p): p for p in [*own, *(p for p in parts if isinstance(p, Tensor))]}.values())
