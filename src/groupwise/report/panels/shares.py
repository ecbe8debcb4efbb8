"""Which task owns which group: shares of the gradient norm, at a few moments of the run."""

from __future__ import annotations

import math
from typing import Final

from groupwise.report.document import Figure, Heat, Panel
from groupwise.report.panels.plots import MOST
from groupwise.report.reading import Reading

MOMENTS: Final = 4
"""At so many moments the matrix is shown, the first and the last record among them."""


def panel(reading: Reading) -> Panel:
    """A matrix of groups and tasks at each moment."""
    counted = ", task weights included" if reading.weighted else ", before any task weights"
    lead = f"How the gradient of each group divides among the tasks{counted}; a task above 0.9 owns the group."
    if not reading.shares:
        how = "Call `observer.tasks(losses)` before backward, or log a balancer that sees the gradients."
        if reading.tasks("weight"):
            how = (
                "An observer takes them at the cadence of `tasks` where `balancer.backward(losses)` weights losses, "
                "but not of parameters that are split over ranks, nor of micro-batches that are accumulated."
            )
        return Panel("shares", "Task shares", lead, missing=reading.no_record("hold no task shares", f". {how}"))
    steps = sorted({step for groups in reading.shares.values() for found in groups.values() for step in found.steps})
    count = min(MOMENTS, len(steps))
    chosen = [steps[i * (len(steps) - 1) // max(count - 1, 1)] for i in range(count)]
    return Panel("shares", "Task shares", lead, tuple(_at(reading, step) for step in chosen))


def _at(reading: Reading, step: int) -> Figure:
    found = {
        task: {group: dict(zip(*series, strict=True)) for group, series in groups.items()}
        for task, groups in reading.shares.items()
    }
    groups = list(dict.fromkeys(group for inner in found.values() for group in inner))[:MOST]
    cells = tuple(tuple(inner.get(group, {}).get(step, math.nan) for inner in found.values()) for group in groups)
    return Heat(f"Shares at step {step:,}", "share", tuple(groups), tuple(found), cells, across="task")
