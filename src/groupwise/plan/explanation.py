"""Why a parameter is optimised as it is: the outcome of every declaration, property by property."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from groupwise import _pickling
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import ResolvedSettings
from groupwise.plan.group import Group
from groupwise.plan.joined import ResolvedPart
from groupwise.plan.outcomes import Outcome
from groupwise.plan.parts import name_of_whole
from groupwise.plan.rule import Rule, property_of, title
from groupwise.plan.setting import Setting, TupleSetting
from groupwise.select import ParameterInfo
from groupwise.select.part import SEPARATOR


@_pickling.public("groupwise.plan:Explained")
@dataclass(frozen=True)
class Explained:
    """One property: the value that stands, and each rule's declaration with its outcome, in the plan's order."""

    property: str
    value: str
    outcomes: tuple[tuple[str, Outcome], ...]

    def __str__(self) -> str:
        lines = [f"{self.property} = {self.value}"]
        lines += [f"    {who}: {outcome.text}  [{outcome.status}]" for who, outcome in self.outcomes]
        return "\n".join(lines)


@_pickling.public("groupwise.plan:Explanation")
@dataclass(frozen=True)
class Explanation:
    """Every property of one parameter; `str()` prints it."""

    info: ParameterInfo
    group: str
    properties: tuple[Explained, ...]
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = other_names(self.info)
        others = f" (also {', '.join(names)})" if names else ""
        stated = " (as the plan states)" if self.info.occurrences[0].depth_without_plan is not None else ""
        place = f"depth {self.info.depth}{stated}, group {self.group!r}"
        head = f"{self.info.name}{others}: {tuple(self.info.shape)}, {place}"
        part = [] if self.info.part is None else [f"  part of {name_of_whole(self.info)}: {self.info.part}"]
        roles = [f"  role {role}: {why}" for role, why in sorted(self.info.reasons.items())]
        basis = [] if self.info.basis is None else [f"  roles and depth: {self.info.basis}"]
        parts = [f"  part {text}" for text in self.parts]
        return "\n".join([head, *part, *basis, *roles, *parts, *map(str, self.properties)])


def explain(
    rules: Sequence[Rule],
    group: Group,
    info: ParameterInfo,
    decided: ResolvedSettings,
    algorithms: Mapping[str, Algorithm],
    parts: Sequence[ResolvedPart] = (),
) -> Explanation:
    """The explanation of one parameter of `group`, or of a part of one; `parts` are those of the parameter."""
    effective = {slot for slot, outcomes in decided.outcomes.items() if any(o.effective for o in outcomes)}
    values = _values(group, algorithms, effective, decided.settings if info.part is not None else group.settings)
    names = [*decided.outcomes, *(name for name in values if name not in decided.outcomes)]
    properties = []
    for name in names:
        outcomes = tuple((_rules_of(rules, outcome), outcome) for outcome in decided.outcomes.get(name, ()))
        properties.append(Explained(name, values.get(name, f"none ({group.algorithm or 'no optimizer'})"), outcomes))
    return Explanation(info, group.name, tuple(properties), tuple(map(_part, parts)))


def other_names(info: ParameterInfo) -> tuple[str, ...]:
    """The other names of a parameter; of a part, not those of the whole, which it shares with the other parts."""
    names = (*info.names[1:], *info.aliases)
    split = info.part is not None and info.part.name
    return tuple(name for name in names if SEPARATOR in name) if split else names


def _part(part: ResolvedPart) -> str:
    factors = [f"{name} × {factor} of the group's" for name, factor in part.factors.items()]
    return ", ".join([f"{part.info.name}: {part.info.shape}", str(part.info.part), *factors])


def _rules_of(rules: Sequence[Rule], outcome: Outcome) -> str:
    by = "" if outcome.overridden_by is None else f" → {title(rules, outcome.overridden_by)}"
    return f"{title(rules, outcome.rule)}{by}"


def _values(
    group: Group, algorithms: Mapping[str, Algorithm], declared: Collection[str], settings: Mapping[str, Setting]
) -> dict[str, str]:
    """The value of every property; what is not `declared` has its class default."""
    values = {
        "optimizer": group.algorithm or "none",
        "trainable": group.freezing,
        "clip": str(group.clip.clip if group.clip else "none"),
    }
    if group.algorithm is None:
        return values
    algorithm = algorithms[group.algorithm].with_extra(settings)
    for name in algorithm.defaults:
        setting = settings.get(name)
        for i, slot in enumerate(algorithm.slots(name)):
            one = setting.elements[i] if isinstance(setting, TupleSetting) else setting
            default = f"{algorithm.default(slot)!r} (default of {algorithm.name})"
            known = property_of(slot)
            values[known] = default if one is None or known not in declared else str(one)
    return values
