"""What a line of a run is about: the optimizer's groups, its rules or networks, or the layers of the model.

A group is known by its `name` where it has one, else by its place. With `by="rule"` the groups that differ by nothing
but their depth are one, with `by="network"` those of a network; that needs an optimizer which has such facts, and is
found out by looking at it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias, final

import torch

from groupwise._shards import is_sharded
from groupwise.errors import RecordError, listed
from groupwise.observe.layers import Layers, Model, names_in
from groupwise.observe.number import Number, number_of
from groupwise.records import Clip, Group

Live: TypeAlias = dict[str, Any]

WHOLE: Final = "plan"
"""The name of a plan's own clip scope, over everything."""


@final
@dataclass(frozen=True)
class Member:
    """A live group, or the part of it that belongs to a layer: its parameters and their names, empty if unknown."""

    group: Live
    params: tuple[torch.Tensor, ...]
    names: tuple[str, ...]


@final
@dataclass(frozen=True)
class GroupSnapshot:
    """The groups of one step.

    Attributes:
        names: of what is observed; n of them.
        members: for each, the live groups, or parts of them, that it is made of.
        params: every parameter.
        index: for each parameter, which of `names` it belongs to.
        sizes: for each parameter, its entries, over all ranks.
        sharded: whether any parameter is split over ranks.
    """

    names: tuple[str, ...]
    members: tuple[tuple[Member, ...], ...]
    params: tuple[torch.Tensor, ...]
    index: tuple[int, ...]
    sizes: tuple[int, ...]
    sharded: bool

    @cached_property
    def entries(self) -> tuple[int, ...]:
        """For each of `names`, its entries."""
        entries = [0] * len(self.names)
        for group, size in zip(self.index, self.sizes, strict=True):
            entries[group] += size
        return tuple(entries)

    @cached_property
    def names_only(self) -> GroupSnapshot:
        """The names without what they are of, for a record that may wait: it keeps no parameter alive."""
        return GroupSnapshot(self.names, (), (), (), (), self.sharded)

    @property
    def rates(self) -> list[Number | None]:
        """For each parameter, its learning rate now; None if it has none. One object for each live group."""
        members = [member for members in self.members for member in members]
        rates = {key: number_of(group.get("lr")) for key, group in {id(m.group): m.group for m in members}.items()}
        return [rates[id(member.group)] for member in members for _ in member.params]


NOTHING: Final = GroupSnapshot((), (), (), (), (), sharded=False)
"""A step of no parameter."""


@final
class Grouping:
    """Names the groups of an optimizer as `by` says. Raises `RecordError` if the optimizer does not have them."""

    def __init__(self, optimizer: torch.optim.Optimizer, by: str, model: Model | None = None) -> None:
        ways: Mapping[str, Callable[[Sequence[Live]], list[str]]] = {
            "group": _by_group,
            "rule": self._by_rule,
            "network": self._by_network,
            "layer": _by_group,
        }
        if by not in ways:
            raise RecordError(f"by={by!r}: it has to be one of {listed(map(repr, ways))}")
        if model is not None and by != "layer":
            raise RecordError(f"model= is for by='layer', which names layers by it; by={by!r} does not use it")
        self.by = by
        self._layers = Layers(optimizer, model) if by == "layer" else None
        self._optimizer = optimizer
        self._name = ways[by]
        self._known: list[tuple[Any, ...]] = []
        self._seen = NOTHING

    @property
    def plan(self) -> Any:
        """What the optimizer runs, where that is a plan: another object after a `regroup`."""
        return getattr(self._optimizer, "resolution", None)

    @property
    def has_networks(self) -> bool:
        """Whether the optimizer has several networks, which may take turns."""
        return len({network for group in self._optimizer.param_groups if (network := group.get("network"))}) > 1

    def snapshot(self) -> GroupSnapshot:
        """The groups that the optimizer has now; the same object as long as they hold the same parameters."""
        live = self._optimizer.param_groups
        now = [(id(group), group.get("name"), group.get("network"), *map(id, group["params"])) for group in live]
        if now != self._known:
            self._known, self._seen = now, self._look(live)
        return self._seen

    def _look(self, live: Sequence[Live]) -> GroupSnapshot:
        members: dict[str, list[Member]] = {}
        for name, member in self._by_layer(live) if self._layers is not None else self._whole(live):
            members.setdefault(name, []).append(member)
        flat = [(i, p) for i, parts in enumerate(members.values()) for member in parts for p in member.params]
        return GroupSnapshot(
            names=tuple(members),
            members=tuple(map(tuple, members.values())),
            params=tuple(p for _, p in flat),
            index=tuple(i for i, _ in flat),
            sizes=tuple(p.numel() for _, p in flat),
            sharded=any(is_sharded(p) for _, p in flat),
        )

    def _whole(self, live: Sequence[Live]) -> Iterator[tuple[str, Member]]:
        for name, group in zip(self._name(live), live, strict=True):
            yield name, Member(group, tuple(group["params"]), tuple(names_in(group)))

    def _by_layer(self, live: Sequence[Live]) -> Iterator[tuple[str, Member]]:
        """The layers in the order of the model, each in as many parts as it has groups."""
        layers = self._layers.of(live) if self._layers is not None else {}
        parts: dict[tuple[str, int], list[tuple[torch.Tensor, str]]] = {}
        for i, group in enumerate(live):
            for p, name in zip(group["params"], names_in(group), strict=True):
                parts.setdefault((layers[id(p)], i), []).append((p, name))
        order = {layer: place for place, layer in enumerate(dict.fromkeys(layers.values()))}
        for (layer, i), held in sorted(parts.items(), key=lambda part: (order[part[0][0]], part[0][1])):
            yield layer, Member(live[i], tuple(p for p, _ in held), tuple(name for _, name in held))

    def moving_statistics(self) -> list[str]:
        """The frozen norms whose running statistics move, where the layers of a model are observed."""
        return self._layers.moving_statistics() if self._layers is not None else []

    def described(self, snapshot: GroupSnapshot) -> tuple[Group, ...]:
        """The groups as a header states them."""
        return tuple(
            self._described(name, groups) for name, groups in zip(snapshot.names, snapshot.members, strict=True)
        )

    def planned(self, live: Live) -> Any:
        """What the plan says of a live group, where there is a plan."""
        groups = getattr(self.plan, "groups", ())
        return next((group for group in groups if group.name == live.get("name")), None)

    def _described(self, name: str, members: Sequence[Member]) -> Group:
        groups, params = [member.group for member in members], [p for member in members for p in member.params]
        algorithms = dict.fromkeys(str(group.get("algorithm") or type(self._optimizer).__name__) for group in groups)
        networks = dict.fromkeys(str(group["network"]) for group in groups if group.get("network"))
        scopes = dict.fromkeys(getattr(self.planned(group), "clip", None) for group in groups)
        scope = next(iter(scopes)) if len(scopes) == 1 else None
        return Group(
            name=name,
            algorithm=", ".join(algorithms),
            tensors=len(params),
            parameters=sum(p.numel() for p in params),
            network=next(iter(networks)) if len(networks) == 1 else None,
            rule=self._rule(name, groups),
            clip=self._clip(scope) if len(scopes) == 1 else None,
            frozen=sum(not p.requires_grad for p in params),
        )

    def _rule(self, name: str, groups: Sequence[Live]) -> str | None:
        """The rule of a group; of a layer, the groups that its parameters are in."""
        if self._layers is not None:
            live = self._optimizer.param_groups
            called = {id(group): name for name, group in zip(_by_group(live), live, strict=True)}
            return ", ".join(called[id(group)] for group in groups if id(group) in called)
        planned = self.planned(groups[0])
        return None if planned is None else self._without_depth(name, planned)

    def _clip(self, scope: Any) -> Clip | None:
        """A group's own clip scope, or the plan's over everything."""
        whole = getattr(self.plan, "clip", None)
        clip, label = (scope.clip, scope.label) if scope is not None else (whole, WHOLE)
        return None if clip is None else Clip(clip.kind, clip.bound, label, _joint_set(clip))

    def _by_rule(self, live: Sequence[Live]) -> list[str]:
        planned = [self.planned(group) for group in live]
        if all(plan is None for plan in planned):
            raise RecordError(
                f"by='rule' needs an optimizer that runs a plan, and {type(self._optimizer).__name__} has none: "
                "use by='group'"
            )
        names = _by_group(live)
        return [self._without_depth(name, plan) for name, plan in zip(names, planned, strict=True)]

    def _without_depth(self, name: str, planned: Any) -> str:
        """The name of a planned group less its depth; where nothing stands before that, its last rule does."""
        parts, depth = name.split("/"), f"depth{getattr(planned, 'depth', None)}"
        if depth not in parts:
            return name
        at = len(parts) - 1 - parts[::-1].index(depth)
        rules = [self.plan.rules[max(planned.rules)].label] if at == 0 and planned.rules else []
        return "/".join([*parts[:at], *rules, *parts[at + 1 :]])

    def _by_network(self, live: Sequence[Live]) -> list[str]:
        if not any(group.get("network") for group in live):
            raise RecordError(
                "by='network' needs groups of named networks, as in GroupedOptimizer({'actor': …, 'critic': …}, plan): "
                "use by='group'"
            )
        return [str(group.get("network") or "no network") for group in live]


def _by_group(live: Sequence[Live]) -> list[str]:
    names = [str(group.get("name") or f"group {i}") for i, group in enumerate(live)]
    often = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({i})" if name in often else name for i, name in enumerate(names)]


def _joint_set(clip: Any) -> str | None:
    """The set whose norm a clip bounds, as records call it; only a norm is of a set."""
    return None if clip.kind != "norm" else {"rule": "scope"}.get(clip.per, str(clip.per))
