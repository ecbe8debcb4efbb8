"""Groups: the classes of parameters with equal settings, and their names.

A group is never written by hand. Two parameters share one if algorithm, settings, freezing, network and clip scope are
equal. Its name comes from the labels of the rules that change something in all of its parameters and set it apart from
the other groups, plus the depth where that matters. So it survives a reordering of the parameters and stays the same
from run to run. Where several rules come to the same values, each for a part of the group, it is called "a + b".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import MappingProxyType
from typing import NamedTuple

from groupwise import _pickling
from groupwise.plan.cascade import ResolvedSettings
from groupwise.plan.clip import ClipScope
from groupwise.plan.freezing import Timeline
from groupwise.plan.joined import ResolvedPart
from groupwise.plan.rule import Rule
from groupwise.plan.setting import Setting
from groupwise.select import ParameterInfo
from groupwise.select.part import SEPARATOR


@_pickling.public("groupwise.plan:Group")
@dataclass(frozen=True)
class Group:
    """Parameters that are optimised alike.

    `algorithm` is None for frozen parameters that no rule gives one. `settings` holds what is declared; whatever else
    the algorithm has stands at its class default. `rules` are the indices of the rules that had an effect here. `parts`
    are the parts of those of its parameters that the plan takes apart, by the parameter's name.
    """

    name: str
    algorithm: str | None
    settings: Mapping[str, Setting]
    timeline: Timeline | None
    clip: ClipScope | None
    network: str
    parameters: tuple[ParameterInfo, ...]
    rules: tuple[int, ...]
    depth: int | None
    parts: Mapping[str, tuple[ResolvedPart, ...]] = field(default_factory=dict)

    @property
    def parts_as_text(self) -> tuple[str, ...]:
        """Each part of its parameters: where it lies, and by what it differs from the group; equal for equal parts."""
        return tuple(
            f"{part.info.name}: {', '.join([str(part.info.part), *(f'{k} {v!r}' for k, v in part.factors.items())])}"
            for own in self.parts.values()
            for part in own
        )

    @property
    def pieces(self) -> tuple[ParameterInfo, ...]:
        """What its algorithm sees: its parameters, and in the place of one that is taken apart, its parts."""
        if not self.parts:
            return self.parameters
        own = ([part.info for part in self.parts.get(info.name, ())] or [info] for info in self.parameters)
        return tuple(piece for pieces in own for piece in pieces)

    @property
    def by_part(self) -> tuple[Group, ...]:
        """For tables: the parts of its parameters, gathered by what they are called and how they differ from it."""
        alike: dict[tuple[str, str], list[ResolvedPart]] = {}
        for part in (part for own in self.parts.values() for part in own):
            factors = ", ".join(f"{name} {factor}" for name, factor in part.factors.items())
            alike.setdefault((_label_of(part), factors), []).append(part)
        return tuple(
            replace(
                self,
                name=label,
                settings=own[0].settings.settings,
                parameters=tuple(part.info for part in own),
                parts={},
            )
            for (label, _), own in alike.items()
        )

    def without_tensors(self, names: Collection[str]) -> Group:
        """The same, holding no tensor of the parameters of these names."""
        return replace(
            self,
            parameters=tuple(replace(i, parameter=None) if i.name in names else i for i in self.parameters),
            parts={
                name: tuple(replace(part, info=replace(part.info, parameter=None)) for part in own)
                if name in names
                else own
                for name, own in self.parts.items()
            },
        )

    @property
    def numel(self) -> int:
        """How many numbers its parameters hold together."""
        return sum(info.numel for info in self.parameters)

    @property
    def freezing(self) -> str:
        """How the table says whether and when it trains."""
        return _freezing(self.timeline, self.parameters[0])

    def trainable_at(self, step: int, total_steps: int | None = None, steps_per_epoch: int | None = None) -> bool:
        """Whether it trains at update `step`; where no rule says, whether it did when the plan was resolved."""
        if self.timeline is None:
            return self.parameters[0].requires_grad
        return self.timeline.trainable_at(step, total_steps, steps_per_epoch)


def groups_of(
    rules: Sequence[Rule],
    parameters: Sequence[ParameterInfo],
    resolved: Sequence[ResolvedSettings],
    parts: Mapping[str, tuple[ResolvedPart, ...]] = MappingProxyType({}),
) -> tuple[Group, ...]:
    """The groups, headline group (the one that the fewest special rules touch) first."""
    members: dict[object, _Members] = {}
    alike: dict[object, _Members] = {}  # the same, by what is cheaper to hash
    for info, decided in zip(parameters, resolved, strict=True):
        key = id(decided), info.requires_grad, info.network
        own = alike.get(key)
        if own is None:
            own = alike[key] = members.setdefault(_class_of(info, decided), _Members([], []))
            own.resolved.append(decided)
        own.infos.append(info)
    classes = [*members.values()]
    declaring = frozenset.intersection(*{id(decided.outcomes): decided.declaring for decided in resolved}.values())
    effective = _distinguishing(declaring, [[decided.effective for decided in own.resolved] for own in classes])
    common = declaring | frozenset.intersection(*[kind for own in classes for kind in own.visible])
    order = sorted(range(len(classes)), key=lambda i: _order(classes[i], effective[i]))
    ordered = [classes[i] for i in order]
    names = _unique(ordered, [_name(rules, own, common) for own in ordered])
    return tuple(_group(own, name, parts) for own, name in zip(ordered, names, strict=True))


def _freezing(timeline: Timeline | None, info: ParameterInfo) -> str:
    if timeline is not None:
        return str(timeline)
    return "trainable" if info.requires_grad else "frozen"


def _label_of(part: ResolvedPart) -> str:
    """What a table calls a part: `@gate, stacks of 8`."""
    place = part.info.part
    if place is None:
        return part.info.name
    split = f"{SEPARATOR}{place.name}" if place.name else ""
    stack = f"stacks of {place.count:,}" if place.stack else ""
    return ", ".join(filter(None, (split, stack, "as matrices" if place.flatten else "")))


class _Members(NamedTuple):
    """The parameters of a group, and what the rules decided for them, equal but for what brought it about."""

    infos: list[ParameterInfo]
    resolved: list[ResolvedSettings]

    @property
    def visible(self) -> list[frozenset[int]]:
        """The rules that change something, for each kind of them."""
        return list(dict.fromkeys([decided.visible for decided in self.resolved]))

    @property
    def depth(self) -> int | None:
        """The depth of all of them, where it matters and is one."""
        depth = self.resolved[0].depth
        return depth if all(decided.depth == depth for decided in self.resolved) else None


def _distinguishing(everywhere: frozenset[int], groups: Sequence[Sequence[frozenset[int]]]) -> list[tuple[int, ...]]:
    """For each group the rules with an effect on it, less those that declare or have an effect everywhere."""
    effective = [frozenset(i for rules in group for i in rules) for group in groups]
    common = everywhere | frozenset.intersection(*effective)
    return [tuple(sorted(rules - common)) for rules in effective]


def _order(members: _Members, own: tuple[int, ...]) -> tuple[object, ...]:
    first = min([info.name for info in members.infos])
    return members.resolved[0].algorithm is None, own, members.infos[0].network, -(members.depth or 0), first


def _class_of(info: ParameterInfo, decided: ResolvedSettings) -> object:
    undeclared = info.requires_grad if decided.timeline is None else None
    settings = tuple(decided.settings.items())
    return decided.algorithm, settings, decided.timeline, undeclared, decided.clip, info.network


def _group(members: _Members, name: str, parts: Mapping[str, tuple[ResolvedPart, ...]]) -> Group:
    """A group with its name and the parts of its parameters."""
    infos, first = members.infos, members.resolved[0]
    return Group(
        name=name,
        algorithm=first.algorithm,
        settings=first.settings,
        timeline=first.timeline,
        clip=first.clip,
        network=infos[0].network,
        parameters=tuple(infos),
        rules=tuple(sorted(frozenset().union(*members.visible))),
        depth=members.depth,
        parts={info.name: parts[info.name] for info in infos if info.name in parts} if parts else {},
    )


def _name(rules: Sequence[Rule], members: _Members, common: frozenset[int]) -> str:
    """A group's name; the rules that are `common` tell no groups apart."""
    kinds = members.visible
    shared = frozenset.intersection(*kinds)
    own = [kind - common for kind in kinds]
    if shared - common:
        labels = _labels(rules, shared - common)
    elif all(own):
        labels = [" + ".join(sorted("/".join(_labels(rules, kind)) for kind in own))]
    else:
        labels = []
    depth = [f"depth{members.depth}"] if members.depth is not None else []
    if labels or depth:
        return "/".join([*labels, *depth])
    return rules[max(shared)].label if shared else "frozen"


def _labels(rules: Sequence[Rule], chosen: Iterable[int]) -> list[str]:
    return list(dict.fromkeys(rules[i].label for i in sorted(chosen)))


def _unique(groups: Sequence[_Members], names: list[str]) -> list[str]:
    """Names made unique: by network, by freezing, by the sizes that factors are made of, at last by number."""
    for tell_apart in (
        lambda members: members.infos[0].network,
        lambda members: "" if _freezing(members.resolved[0].timeline, members.infos[0]) == "trainable" else "frozen",
        lambda members: " ".join(dict.fromkeys(o for s in members.resolved[0].settings.values() for o in s.sizes)),
    ):
        times = Counter(names)
        names = [
            f"{name}/{tell_apart(members)}" if times[name] > 1 and tell_apart(members) else name
            for members, name in zip(groups, names, strict=True)
        ]
    times = Counter(names)
    taken = {name for name in names if times[name] == 1}
    numbered = []
    for name in names:
        free = (own for i in count(1) if (own := f"{name}/{i}") not in taken)
        numbered.append(name if times[name] == 1 else next(free))
        taken.add(numbered[-1])
    return numbered
