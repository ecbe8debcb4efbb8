"""Every part of a model, optimised its own way.

State how each part is optimised (`Plan`, `Rule`), see what that means (`str(optimizer.resolution)`), run it
(`GroupedOptimizer`, `PlanScheduler`). Whoever trains with a balancer alone needs no plan, and whoever states a plan no
torch: each name and each package is loaded on first use. After `import groupwise` alone, `groupwise.balance.PCGrad()`
is there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from groupwise._adopting import hand_in as _hand_in
from groupwise.errors import GroupwiseError, GroupwiseWarning

if TYPE_CHECKING:
    from groupwise import adopt as adopt
    from groupwise import audit
    from groupwise import balance as balance
    from groupwise import checkpoint as checkpoint
    from groupwise import demos as demos
    from groupwise import integrations as integrations
    from groupwise import keras as keras
    from groupwise import observe as observe
    from groupwise import optim as optim
    from groupwise import plan as plan
    from groupwise import probing as probing
    from groupwise import records as records
    from groupwise import report as report
    from groupwise import schedules as schedules
    from groupwise import select as select
    from groupwise import testing as testing
    from groupwise.balance import Balancer
    from groupwise.observe import Observer
    from groupwise.optim import GroupedOptimizer, PlanScheduler
    from groupwise.plan import (
        Parts,
        Plan,
        Rule,
        after,
        blocks,
        clip_adaptive,
        clip_norm,
        clip_value,
        exact,
        fan_in,
        fan_out,
        gradient_share,
        layer_decay,
        scale,
        trust_ratio,
        unfreeze_down,
        until,
        update_ratio,
    )
    from groupwise.probing import probe
    from groupwise.schedules import epochs, percent, steps

    __version__: str

__all__ = [
    "Balancer",
    "GroupedOptimizer",
    "GroupwiseError",
    "GroupwiseWarning",
    "Observer",
    "Parts",
    "Plan",
    "PlanScheduler",
    "Rule",
    "__version__",
    "after",
    "audit",
    "blocks",
    "clip_adaptive",
    "clip_norm",
    "clip_value",
    "epochs",
    "exact",
    "fan_in",
    "fan_out",
    "gradient_share",
    "layer_decay",
    "percent",
    "probe",
    "scale",
    "steps",
    "trust_ratio",
    "unfreeze_down",
    "until",
    "update_ratio",
]

_PACKAGES = {
    "adopt",
    "audit",
    "balance",
    "checkpoint",
    "demos",
    "integrations",
    "keras",
    "look",
    "observe",
    "optim",
    "plan",
    "presets",
    "probing",
    "records",
    "report",
    "schedules",
    "select",
    "testing",
}
_LAZY = {
    "Balancer": "groupwise.balance",
    "GroupedOptimizer": "groupwise.optim",
    "Observer": "groupwise.observe",
    "PlanScheduler": "groupwise.optim",
    "probe": "groupwise.probing",
    "Parts": "groupwise.plan",
    "Plan": "groupwise.plan",
    "Rule": "groupwise.plan",
    "after": "groupwise.plan",
    "blocks": "groupwise.plan",
    "clip_adaptive": "groupwise.plan",
    "clip_norm": "groupwise.plan",
    "clip_value": "groupwise.plan",
    "exact": "groupwise.plan",
    "fan_in": "groupwise.plan",
    "fan_out": "groupwise.plan",
    "gradient_share": "groupwise.plan",
    "layer_decay": "groupwise.plan",
    "scale": "groupwise.plan",
    "trust_ratio": "groupwise.plan",
    "unfreeze_down": "groupwise.plan",
    "until": "groupwise.plan",
    "update_ratio": "groupwise.plan",
    "epochs": "groupwise.schedules",
    "percent": "groupwise.schedules",
    "steps": "groupwise.schedules",
}


def _adopt(model: Any, optimizer: Any, schedulers: Any, schedulers_step: Any, example: Any) -> Any:
    from groupwise.adopt import adopt

    return adopt(model, optimizer, schedulers, schedulers_step=schedulers_step, example=example)


_hand_in(_adopt)


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _PACKAGES:
        return _package(name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'groupwise' has no attribute {name!r}")


def _package(name: str) -> object:
    """A package. What lacks something that is not installed (Keras or its backend) is no attribute, so that `help` and
    `inspect.getmembers`, which ask for all that `dir` lists, pass over it; to import it is the same error as ever."""
    try:
        return importlib.import_module(f"groupwise.{name}")
    except ImportError as error:
        raise AttributeError(f"groupwise.{name} cannot be imported: {error}") from error


def __dir__() -> list[str]:
    return sorted({*__all__, *_PACKAGES})


def _version() -> str:
    """The version that is installed; "unknown" for a source tree that is not."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("groupwise")
    except PackageNotFoundError:
        return "unknown"
