"""What can be seen before any run: what the audit finds of the plan on the model, and the rate of each group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch

from groupwise._finding import Finding
from groupwise.audit import inspect
from groupwise.optim import GroupedOptimizer, PlanScheduler
from groupwise.plan import Resolution
from groupwise.probing.job import Job
from groupwise.probing.measuring import Seen
from groupwise.probing.widths import rates_of

_DENSE: Final = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop")
_EMPTY: Final = 0.9
"""An embedding that gets so few rows of a gradient is one for a sparse algorithm."""


@final
@dataclass(frozen=True)
class Inspected:
    """The plan on the model.

    Attributes:
        findings: of the audit, worst first.
        rates: by group, its highest learning rate as the plan has it, at the width of the run that is planned.
        tables: by layer, the parameters of embeddings that a dense algorithm steps.
        modes: "train", "eval" or "both": the modes of the modules as they were handed in.
    """

    findings: tuple[Finding, ...]
    rates: Mapping[str, float]
    tables: Mapping[str, str]
    modes: str


def inspected(job: Job) -> Inspected:
    """On a copy of its own, with the first batch of the first seed."""
    model = job.fresh(1)
    optimizer = GroupedOptimizer(model, job.plan)
    scheduler = PlanScheduler(optimizer, total_steps=job.total_steps, steps_per_epoch=job.steps_per_epoch)
    batch = next(job.take(1, 1))
    found = inspect(model, optimizer, scheduler, losses=lambda: job.losses(model, batch))
    parts = list(model.values()) if isinstance(model, Mapping) else [model]
    modes = {module.training for part in parts if isinstance(part, torch.nn.Module) for module in part.modules()}
    mode = "both" if len(modes) > 1 else "eval" if modes == {False} else "train"
    resolution = optimizer.resolution
    rates = rates_of(resolution) if job.widths is None else job.widths.rates
    findings = [*found.findings, *(() if job.widths is None else job.widths.findings())]
    return Inspected(tuple(findings), rates, dict(_tables(resolution)), mode)


def _tables(resolution: Resolution) -> Iterator[tuple[str, str]]:
    for group in resolution.groups:
        if group.algorithm in _DENSE:
            for info in group.parameters:
                if "embedding" in info.roles:
                    yield info.name.rpartition(".")[0], info.name


def mostly_empty(tables: Mapping[str, str], seen: Seen) -> list[str]:
    """The embeddings of which an update sees few rows, though a dense algorithm steps all of them."""
    empty = {layer.name for layer in seen.layers if layer.zero > _EMPTY}
    return [name for layer, name in tables.items() if layer in empty]
