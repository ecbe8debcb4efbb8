"""A job: what a person trains, in the five pieces that a comparison has to hold.

A comparison builds the same job again and again: for every contestant and every seed, with as many updates as the
contestant can afford. So a job is made by a function of a seed and a number of updates, and two jobs of one seed start
from the same weights and see the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, final

from torch import Tensor, nn
from torch.optim import Optimizer

from groupwise import _pickling


class Ticking(Protocol):
    """A scheduler, ours or torch's."""

    def step(self) -> None:
        """Called after every update."""


@final
@_pickling.public("groupwise.balance:Job")
@dataclass(frozen=True, eq=False)
class Job:
    """One training, ready to start.

    Attributes:
        model: trained in place.
        optimizer: over its parameters.
        batches: at least as many as there are updates.
        losses: a batch to the loss of each task, unweighted; a task that is absent from the batch is left out.
        errors: how wrong the model is now, on data for the test, by name; lower is better.
        tuning: the same on data that are neither trained on nor tested on; what static weights are chosen by.
        scheduler: stepped after every update.
    """

    model: nn.Module
    optimizer: Optimizer
    batches: Iterable[Any]
    losses: Callable[[Any], Mapping[str, Tensor]]
    errors: Callable[[], Mapping[str, float]]
    tuning: Callable[[], Mapping[str, float]]
    scheduler: Ticking | None = None


Build: TypeAlias = Callable[[int, int], Job]
"""`build(seed, updates)` makes a job; equal seeds make equal jobs, whatever ran before."""
