"""Borrowed engines.

An engine is an instance of an algorithm's class that owns nothing. For the time of one step it is pointed at group
dicts and at the state that the `GroupedOptimizer` owns, and the class's own step runs, without the hooks that
`torch.optim.Optimizer` wraps around every `step` (the owner's step fires those, once).
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch.optim import optimizer as torch_optimizer

Groups = list[dict[str, Any]]


def unhooked_step(engine: torch.optim.Optimizer) -> None:
    """Run the class's step without firing any step hook.

    A hooked step is unwrapped; one that calls a hooked parent's step has the global hooks held back meanwhile.
    """
    cls = type(engine)
    step = cls.step
    if getattr(step, "hooked", False):
        step = step.__wrapped__  # type: ignore[attr-defined]
    with _hooks_held() if _delegates(cls) else contextlib.nullcontext():
        step(engine)


def lend(
    engine: torch.optim.Optimizer,
    groups: Groups,
    state: MutableMapping[torch.Tensor, Any],
    call: Callable[[torch.optim.Optimizer], None],
) -> None:
    """Run `call(engine)` while the engine is pointed at somebody else's groups, and at their part of the state."""
    own = engine.param_groups, engine.state
    lent: defaultdict[Any, Any] = defaultdict(dict, _part_of(state, groups))
    engine.param_groups, engine.state = groups, lent
    try:
        call(engine)
    finally:
        engine.param_groups, engine.state = own
        state.update(lent)


def _part_of(state: Mapping[Any, Any], groups: Groups) -> dict[Any, Any]:
    """The entries of these parameters, and those of no parameter: a class may look through all that it finds."""
    part = {p: state[p] for group in groups for p in group["params"] if p in state}
    return part | {key: value for key, value in state.items() if not isinstance(key, torch.Tensor)}


def build(
    cls: type[torch.optim.Optimizer], group: Mapping[str, Any], arguments: Mapping[str, object]
) -> torch.optim.Optimizer:
    """An engine for groups like `group`: the class on a placeholder, with what the group holds of its arguments."""
    placeholder = torch.nn.Parameter(torch.zeros((2, 2)))
    values = {name: group[name] for name in arguments if name in group}
    engine = cls([placeholder], **values)
    engine.state.clear()
    return engine


def _delegates(cls: type) -> bool:
    owners = [owner for owner in cls.__mro__ if "step" in owner.__dict__ and owner is not torch.optim.Optimizer]
    return len(owners) > 1


@contextlib.contextmanager
def _hooks_held() -> Iterator[None]:
    registries: tuple[dict[int, Any], ...] = (
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
    )
    held = [dict(registry) for registry in registries]
    for registry in registries:
        registry.clear()
    try:
        yield
    finally:
        for registry, hooks in zip(registries, held, strict=True):
            registry.update(hooks)
