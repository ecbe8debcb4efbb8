"""Borrowed engines.

An engine is an instance of an algorithm's class that owns nothing. For the time of one step it is pointed at group
dicts and at the state that the `GroupedOptimizer` owns, and the class's own step runs, without the hooks that
`torch.optim.Optimizer` wraps around every `step` (the owner's step fires those, once). Hooks are registered for the
whole process, so the registries are never touched: what an engine runs is the functions inside the wrappers.
"""

from __future__ import annotations

import types
from collections import defaultdict
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch

from groupwise._torch import without_hooks

Groups = list[dict[str, Any]]


def engine_class(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The class that engines of `cls` are built from: one whose step fires no hook further in, either.

    That is `cls` itself unless its step may call a parent's, as `super().step()`, which torch wraps too. Then it is a
    subclass with the same name, in which a bare copy of every parent's step comes before that parent in the order of
    resolution.
    """
    own, *inner = _steps(cls).items()
    bare = [_subclass(base, (base,), {"step": step}) for base, step in inner if step is not own[1]]
    return _subclass(cls, (cls, *bare), {}) if _delegates(cls) else cls


def _delegates(cls: type) -> bool:
    """Whether the step of a class may call a parent's: a subclass that inherits its step, as AdamW does, calls none."""
    return len(set(_steps(cls).values())) > 1


def _steps(cls: type) -> dict[type, Callable[..., Any]]:
    """Every `step` that a class and its parents define, its own first, each without hooks; torch's base has none."""
    owners = (base for base in cls.__mro__ if "step" in vars(base) and base is not torch.optim.Optimizer)
    return {base: without_hooks(vars(base)["step"]) for base in owners}


def _subclass(like: type, bases: tuple[type, ...], body: dict[str, Any]) -> type[torch.optim.Optimizer]:
    named = {"__module__": like.__module__, "__qualname__": like.__qualname__, "__doc__": like.__doc__}
    return types.new_class(like.__name__, bases, exec_body=lambda space: space.update(named | body))


def unhooked_step(engine: torch.optim.Optimizer) -> None:
    """Run the step of an engine's class without firing any step hook."""
    without_hooks(type(engine).step)(engine)


def run_on(
    engine: torch.optim.Optimizer,
    groups: Groups,
    state: MutableMapping[torch.Tensor, Any],
    call: Callable[[torch.optim.Optimizer], None],
) -> None:
    """Run `call(engine)` while the engine is pointed at somebody else's groups, and at their part of the state."""
    own = engine.param_groups, engine.state
    local: defaultdict[Any, Any] = defaultdict(dict, _part_of(state, groups))
    engine.param_groups, engine.state = groups, local
    try:
        call(engine)
    finally:
        engine.param_groups, engine.state = own
        state.update(local)


def _part_of(state: Mapping[Any, Any], groups: Groups) -> dict[Any, Any]:
    """The entries of these parameters, and those of no parameter: a class may look through all that it finds."""
    part = {p: state[p] for group in groups for p in group["params"] if p in state}
    return part | {key: value for key, value in state.items() if not isinstance(key, torch.Tensor)}
