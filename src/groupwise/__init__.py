"""Every part of a model, optimised its own way.

State how each part is optimised (`Plan`, `Rule`), see what that means (`str(optimizer.resolution)`), run it
(`GroupedOptimizer`, `PlanScheduler`). Names that need torch are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from groupwise.errors import GroupwiseError
from groupwise.plan import (
    Plan,
    Rule,
    after,
    clip_adaptive,
    clip_norm,
    clip_value,
    exact,
    layer_decay,
    scale,
    unfreeze_down,
    until,
)
from groupwise.schedules import epochs, percent, steps

if TYPE_CHECKING:
    from groupwise import audit
    from groupwise.balance import Balancer
    from groupwise.observe import Observer
    from groupwise.optim import GroupedOptimizer, PlanScheduler

__all__ = [
    "Balancer",
    "GroupedOptimizer",
    "GroupwiseError",
    "Observer",
    "Plan",
    "PlanScheduler",
    "Rule",
    "after",
    "audit",
    "clip_adaptive",
    "clip_norm",
    "clip_value",
    "epochs",
    "exact",
    "layer_decay",
    "percent",
    "scale",
    "steps",
    "unfreeze_down",
    "until",
]

_PACKAGES = {"audit"}
_LAZY = {
    "Balancer": "groupwise.balance",
    "GroupedOptimizer": "groupwise.optim",
    "Observer": "groupwise.observe",
    "PlanScheduler": "groupwise.optim",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"groupwise.{name}")
    raise AttributeError(f"module 'groupwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
