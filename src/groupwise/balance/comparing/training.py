"""One run: a method trains a job, and what it was worth and how often its tasks disagreed is kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from groupwise.balance.balancer import Balancer
from groupwise.balance.comparing.job import Job
from groupwise.balance.method import Method
from groupwise.errors import GroupwiseError


@final
@dataclass(frozen=True)
class Run:
    """How one run ended.

    Attributes:
        errors: on the test data, by name; empty where the run failed.
        tuning: the same on the data that static weights are chosen by.
        conflicts: the share of the updates looked at in which the gradients of some two tasks had a cosine below 0.
        cosine: the lowest cosine between two tasks, averaged over these updates; nan where there was no pair.
        failed: why the run did not end, or nothing.
    """

    errors: Mapping[str, float]
    tuning: Mapping[str, float]
    conflicts: float
    cosine: float
    failed: str = ""


def train(job: Job, method: Method, updates: int, probe: int) -> Run:
    """Train a job; look at the tasks' gradients before every `probe`-th update, which is not part of the method."""
    balancer, lowest = Balancer(method), list[float]()
    try:
        for number, batch in enumerate(itertools.islice(job.batches, updates)):
            losses = job.losses(batch)
            if number % probe == 0:
                lowest.extend(lowest_cosine(job.model, losses))
            update(job, balancer, losses)
        errors, tuning = dict(job.errors()), dict(job.tuning())
    except GroupwiseError as error:
        return Run({}, {}, math.nan, math.nan, str(error))
    share = sum(cosine < 0 for cosine in lowest) / len(lowest) if lowest else 0.0
    return Run(errors, tuning, share, sum(lowest) / len(lowest) if lowest else math.nan)


def update(job: Job, balancer: Balancer, losses: Mapping[str, Tensor]) -> None:
    """One update: gradients, optimizer, scheduler."""
    job.optimizer.zero_grad()
    balancer.backward(losses)
    job.optimizer.step()
    if job.scheduler is not None:
        job.scheduler.step()


def step(job: Job, balancer: Balancer, batch: Any) -> None:
    """One whole step, as it is timed: the forward too."""
    update(job, balancer, job.losses(batch))


def lowest_cosine(model: nn.Module, losses: Mapping[str, Tensor]) -> list[float]:
    """The lowest cosine between the gradients of two tasks, on the parameters that both reach; nothing for one task."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = [torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True) for x in losses.values()]
    found = [_cosine(a, b) for a, b in itertools.combinations(rows, 2)]
    known = [cosine for cosine in found if math.isfinite(cosine)]
    return [min(known)] if known else []


def _cosine(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> float:
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    inner = _dot(pairs)
    size = math.sqrt(_dot((x, x) for x, _ in pairs) * _dot((y, y) for _, y in pairs))
    return inner / size if size > 0 else math.nan


def _dot(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    return sum(float((x * y).sum(dtype=torch.float64)) for x, y in pairs)
