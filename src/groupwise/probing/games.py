"""Two losses that work against one another, as those of a GAN: neither falls in a good run, so neither judges one.

Their gradients reach no parameter in common, each depends on what the other trains all the same, and a small step that
lowers one raises the other. At initial weights that need not hold both ways: a discriminator begins with its bias.
Tasks that share parameters may disagree as well, but their sum is what is minimised; a head on detached features does
not move them; a codebook and its encoder lower one another's loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import torch
from torch import Tensor

from groupwise.errors import ProbeError
from groupwise.probing.job import Job, tensors_of

STEP: Final = 0.01
"""How far a step goes, as a share of the weights' norm."""

MOVED: Final = 1e-4
"""By what share of itself a loss has to change."""

Gradients = Mapping[int, Tensor]


def check_no_game(job: Job) -> None:
    """Raises `ProbeError` if two of the losses work against one another."""
    model = job.fresh(1)
    trained = [tensor for tensor in tensors_of(model) if tensor.requires_grad]
    losses = _losses(job, model)
    reached = {task: _reached(loss, trained) for task, loss in losses.items() if loss.requires_grad}
    values = {task: float(loss.detach()) for task, loss in losses.items()}
    for one, other in combinations(reached, 2):
        apart = reached[one] and reached[other] and not reached[one].keys() & reached[other].keys()
        both = ((one, other), (other, one))
        moved = [_moved(job, model, trained, reached[a], b, values[b]) for a, b in both] if apart else [0.0]
        if all(abs(each) > MOVED for each in moved) and max(moved) > MOVED:
            raise ProbeError(
                f"the losses of {one!r} and {other!r} train parameters of their own, and a step that lowers one raises "
                "the other, as in a GAN: neither falls in a good run, so short runs cannot be judged by them. Choose "
                "their rates by what the networks make"
            )


def _losses(job: Job, model: Any) -> dict[str, Tensor]:
    """On the first batch, with the same random numbers each time."""
    batch = next(job.take(1, 1))
    job.seeded(1)
    return job.losses(model, batch)


def _reached(loss: Tensor, trained: Sequence[Tensor]) -> Gradients:
    """The gradient of each parameter that a loss reaches, by its place."""
    found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
    return {i: gradient.to_dense() for i, gradient in enumerate(found) if gradient is not None}


@torch.no_grad()
def _moved(job: Job, model: Any, trained: Sequence[Tensor], gradients: Gradients, task: str, before: float) -> float:
    """By what share of itself the loss of a task changes with a small step down some gradients; the weights stay."""
    kept = {i: trained[i].clone() for i in gradients}
    size, slope = (sum(float(x.square().sum()) for x in each.values()) ** 0.5 for each in (kept, gradients))
    for i, gradient in gradients.items():
        trained[i].sub_(gradient, alpha=STEP * size / slope if slope > 0 else 0.0)
    after = float(_losses(job, model)[task])
    for i, value in kept.items():
        trained[i].copy_(value)
    return (after - before) / abs(before) if before else 0.0
