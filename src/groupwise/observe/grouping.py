"""What a line of a run speaks of: the optimizer's groups, or its rules or networks, which are fewer.

A group is known by its `name` where it has one, else by its place. With `by="rule"` the groups that differ by nothing
but their depth are one, with `by="network"` those of a network; that needs an optimizer which tells such things, and is
found out by looking at it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import torch

from groupwise.errors import RecordError, listed
from groupwise.records import Clip, Group

Live: TypeAlias = dict[str, Any]

NOT_VALUES: Final = frozenset({"params", "param_names", "name", "algorithm", "network", "frozen", "declared"})
"""The keys of a live group that are no hyperparameters."""


@final
@dataclass(frozen=True)
class Seen:
    """The groups of one step.

    Attributes:
        names: of what is observed; n of them.
        members: for each, the live groups that it is made of.
        params: every parameter.
        index: for each parameter, which of `names` it belongs to.
        rates: for each parameter, its learning rate.
    """

    names: tuple[str, ...]
    members: tuple[tuple[Live, ...], ...]
    params: tuple[torch.Tensor, ...]
    index: tuple[int, ...]
    rates: tuple[Any, ...]


@final
class Grouping:
    """Names the groups of an optimizer as `by` says. Raises `RecordError` if the optimizer cannot tell."""

    def __init__(self, optimizer: torch.optim.Optimizer, by: str) -> None:
        ways: Mapping[str, Callable[[Sequence[Live]], list[str]]] = {
            "group": _by_group,
            "rule": self._by_rule,
            "network": self._by_network,
        }
        if by not in ways:
            raise RecordError(f"by={by!r}: it has to be one of {listed(map(repr, ways))}")
        self.by = by
        self._optimizer = optimizer
        self._name = ways[by]

    @property
    def plan(self) -> Any:
        """What the optimizer runs, where that is a plan: another object after a `regroup`."""
        return getattr(self._optimizer, "resolution", None)

    def seen(self) -> Seen:
        """The groups that the optimizer has now."""
        live = self._optimizer.param_groups
        members: dict[str, list[Live]] = {}
        for name, group in zip(self._name(live), live, strict=True):
            members.setdefault(name, []).append(group)
        flat = [(i, group) for i, groups in enumerate(members.values()) for group in groups]
        return Seen(
            names=tuple(members),
            members=tuple(map(tuple, members.values())),
            params=tuple(p for _, group in flat for p in group["params"]),
            index=tuple(i for i, group in flat for _ in group["params"]),
            rates=tuple(group.get("lr") for _, group in flat for _ in group["params"]),
        )

    def described(self, seen: Seen) -> tuple[Group, ...]:
        """The groups as a header tells them."""
        return tuple(self._described(name, groups) for name, groups in zip(seen.names, seen.members, strict=True))

    def planned(self, live: Live) -> Any:
        """What the plan says of a live group, where there is a plan."""
        groups = getattr(self.plan, "groups", ())
        return next((group for group in groups if group.name == live.get("name")), None)

    def _described(self, name: str, groups: Sequence[Live]) -> Group:
        algorithms = dict.fromkeys(str(group.get("algorithm") or type(self._optimizer).__name__) for group in groups)
        networks = dict.fromkeys(str(group["network"]) for group in groups if group.get("network"))
        scopes = dict.fromkeys(getattr(self.planned(group), "clip", None) for group in groups)
        scope = next(iter(scopes)) if len(scopes) == 1 else None
        return Group(
            name=name,
            algorithm=", ".join(algorithms),
            tensors=sum(len(group["params"]) for group in groups),
            parameters=sum(p.numel() for group in groups for p in group["params"]),
            network=next(iter(networks)) if len(networks) == 1 else None,
            rule=_without_depth(name, self.planned(groups[0])) if self.planned(groups[0]) is not None else None,
            clip=Clip(scope.clip.kind, scope.clip.bound, scope.label) if scope is not None else None,
        )

    def _by_rule(self, live: Sequence[Live]) -> list[str]:
        planned = [self.planned(group) for group in live]
        if all(plan is None for plan in planned):
            raise RecordError(
                f"by='rule' needs an optimizer that runs a plan, and {type(self._optimizer).__name__} has none: "
                "use by='group'"
            )
        names = _by_group(live)
        return [_without_depth(name, plan) for name, plan in zip(names, planned, strict=True)]

    def _by_network(self, live: Sequence[Live]) -> list[str]:
        if not any(group.get("network") for group in live):
            raise RecordError(
                "by='network' needs groups of named networks, as in GroupedOptimizer({'actor': …, 'critic': …}, plan): "
                "use by='group'"
            )
        return [str(group.get("network") or "no network") for group in live]


def values_of(members: Sequence[Live]) -> dict[str, Any]:
    """The hyperparameters of groups, tuples flattened (`beta1`, `beta2`); where they differ, the largest."""
    found: dict[str, Any] = {}
    for group in members:
        for name, value in _flat(group):
            known = found.get(name)
            found[name] = value if known is None or isinstance(value, torch.Tensor) else max(known, value)
    return found


def _flat(group: Live) -> list[tuple[str, Any]]:
    """The numbers among the hyperparameters of a group."""
    flat: list[tuple[str, Any]] = []
    for name, value in group.items():
        if name in NOT_VALUES:
            continue
        if isinstance(value, tuple | list):
            stem = name[:-1] if name.endswith("s") else name
            flat += [(f"{stem}{i}", element) for i, element in enumerate(value, start=1)]
        else:
            flat.append((name, value))
    return [(name, value) for name, value in flat if _is_number(value)]


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


def _by_group(live: Sequence[Live]) -> list[str]:
    names = [str(group.get("name") or f"group {i}") for i, group in enumerate(live)]
    often = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({i})" if name in often else name for i, name in enumerate(names)]


def _without_depth(name: str, planned: Any) -> str:
    depth = getattr(planned, "depth", None)
    return name.removesuffix(f"depth{depth}").removesuffix("/") or name if depth is not None else name
