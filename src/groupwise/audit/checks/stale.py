"""An optimizer that was built before the model was: it holds what the model's parameters used to be.

`nn.Module.to` keeps a parameter's identity; a new head, `to_empty` after `meta`, a second `Net()`, sharding and some
re-initialisations do not. The sign is a pair: a tensor in an optimizer that the model lacks, and a trainable parameter
that no optimizer has, alike by name, by shape, or by place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from groupwise.audit.checks.check import Check
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Group, Program, names
from groupwise.select import ParameterInfo

Pair = tuple[ParameterInfo, torch.Tensor]


def pairs(program: Program) -> list[Pair]:
    """Each parameter that no optimizer owns beside the tensor that some optimizer holds in its place."""
    free = {id(info): info for info in program.unowned}
    groups = [group for owner in program.optimizers for group in owner.groups] if free else []
    called = {name: info for info in free.values() for name in info.names}
    placed, found = _by_place(program, groups), []
    for group in groups:
        for position, tensor in enumerate(group.tensors):
            if id(tensor) not in program.by_tensor:
                likely = called.get(_name(group, position)), placed.get(id(tensor))
                info = _nearest(tensor, likely, free)
                if info is not None:
                    del free[id(info)]
                    found.append((info, tensor))
    return found


def _name(group: Group, position: int) -> str:
    return group.names[position] if position < len(group.names) else ""


def _by_place(program: Program, groups: Sequence[Group]) -> Mapping[int, ParameterInfo]:
    """Parameters by the tensors at their positions, where the one group holds as many tensors as the model has."""
    if len(groups) != 1 or len(groups[0].tensors) != len(program.parameters):
        return {}
    both = zip(program.parameters, groups[0].tensors, strict=True)
    return {id(tensor): info for info, tensor in both if info.ndim == tensor.ndim}


def _nearest(
    tensor: torch.Tensor, likely: Sequence[ParameterInfo | None], free: Mapping[int, ParameterInfo]
) -> ParameterInfo | None:
    """The first that is likely and free, else the first of the same shape."""
    known = next((info for info in likely if info is not None and id(info) in free), None)
    return known or next((info for info in free.values() if info.shape == tuple(tensor.shape)), None)


def _stale(program: Program) -> Iterator[Finding]:
    found = [info for info, _ in pairs(program)]
    if found:
        holders = {id(t): owner for owner in program.optimizers for t in owner.tensors}
        owner = next(holders[id(tensor)] for _, tensor in pairs(program))
        yield Finding(
            "stale", "error", names(found),
            f"{owner} holds what {program.brief(found)} used to be: the model got new tensors after the "
            "optimizer was built, and these are never updated",
            f"build {owner.name} last, after every change of the model, and its schedulers after that",
        )  # fmt: skip


STALE: Iterable[Check] = (
    Check(
        "stale", "error", (), "an optimizer built before the model was replaced, re-initialised or materialised",
        "the old tensors are updated, or lie idle, and the new ones keep their initial values",
        "build the optimizer last", _stale,
    ),
)  # fmt: skip
