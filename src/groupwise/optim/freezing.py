"""Freezing, in the one way that survives momentum, weight decay and several processes.

A frozen group is passed over by the step and its gradients are dropped, so nothing moves it. In one process (and under
FSDP2) its parameters stop requiring gradients as well, which saves their backward. Under DistributedDataParallel the
set of parameters that require gradients must not change after wrapping (ranks drift silently, or raise), so there
`requires_grad` stays as it is and the gradient is computed, reduced and then dropped. A part frozen for good is no part
of that set if it is frozen before the model is wrapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from groupwise import _ranks
from groupwise._shards import is_sharded
from groupwise.errors import OptimizerError, listed
from groupwise.optim.borrowed import Groups
from groupwise.optim.live import names_of
from groupwise.select import ParameterInfo


def freeze(group: dict[str, Any], frozen: bool, for_good: bool = False) -> None:
    """Freeze or unfreeze a live group. One frozen `for_good` never needs its gradients, whatever the process count.

    Raises `OptimizerError` if it cannot be unfrozen, as `check_unfreeze` does; nothing has changed then.
    """
    if not frozen and not for_good:
        check_unfreeze(group)
    group["frozen"] = frozen
    for p in group["params"]:
        if for_good or may_flip(p):
            p.requires_grad_(not frozen)
        if frozen:
            p.grad = None


def restore_requires_grad(parameters: Iterable[ParameterInfo]) -> None:
    """Let parameters train again that an earlier plan had frozen, and that the present one is silent about."""
    for info in parameters:
        p = info.parameter
        if info.requires_grad and not p.requires_grad and may_flip(p):
            p.requires_grad_(True)


def check_unfreeze(group: Mapping[str, Any]) -> None:
    """Raise `OptimizerError` if a parameter of the group does not require gradients and never may again."""
    for name, p in zip(group["param_names"], group["params"], strict=True):
        if not p.requires_grad and not may_flip(p):
            raise OptimizerError(
                f"{name!r} is to be trained, but it requires no gradient, and among several processes that cannot be "
                "changed any more: it was frozen before the process group existed, or before the model was wrapped. "
                "Call init_process_group first, then build the optimizer, then wrap the model"
            )


def drop_gradients(groups: Sequence[dict[str, Any]]) -> tuple[Groups, list[str]]:
    """The groups that a step may update; the gradients of the frozen ones are dropped.

    The names are those of frozen parameters that had a gradient, although freezing had switched it off: something has
    set `requires_grad` again.
    """
    active, unfrozen = [group for group in groups if not group.get("frozen", False)], list[str]()
    for group in (group for group in groups if group.get("frozen", False)) if len(active) < len(groups) else ():
        for name, p in zip(names_of(group), group["params"], strict=True):
            if p.grad is not None:
                p.grad = None
                if p.requires_grad and may_flip(p):
                    unfrozen.append(name)
    return active, unfrozen


def unfrozen_by_hand(names: Sequence[str]) -> str:
    """What is to be said of frozen parameters that got gradients all the same; nothing if there are none."""
    if not names:
        return ""
    return (
        f"the plan has frozen {listed(names, 3)}, and requires_grad was set to True since, by something else: the "
        "gradient is computed and dropped, and the weights stay. Let the plan say when it trains (trainable=after(…), "
        "or a rule with trainable=True and regroup()), or leave requires_grad alone"
    )


def may_flip(p: torch.Tensor) -> bool:
    """Whether `requires_grad` may change in mid-run: alone, and for shards."""
    return _ranks.world() is None or is_sharded(p)


def is_wrapped(model: object) -> bool:
    """Whether there is a DistributedDataParallel in what an optimizer is built from."""
    parts = list(model.values()) if isinstance(model, Mapping) else [model]
    modules = (module for part in parts if isinstance(part, torch.nn.Module) for module in part.modules())
    return any(isinstance(module, DistributedDataParallel) for module in modules)
