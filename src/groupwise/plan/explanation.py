"""Why a parameter is optimised as it is: the cascade's words, property by property."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import Treatment
from groupwise.plan.group import Group
from groupwise.plan.rule import Rule
from groupwise.plan.setting import Several
from groupwise.plan.words import Word, title
from groupwise.select import ParameterInfo


@dataclass(frozen=True)
class Explained:
    """One property: what stands, and what each rule said about it, in the plan's order."""

    property: str
    value: str
    words: tuple[tuple[str, Word], ...]

    def __str__(self) -> str:
        lines = [f"{self.property} = {self.value}"]
        lines += [f"    {who}: {word.text}  [{word.verdict}]" for who, word in self.words]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """The whole story of one parameter; `str()` prints it."""

    info: ParameterInfo
    group: str
    properties: tuple[Explained, ...]

    def __str__(self) -> str:
        others = f" (also {', '.join(self.info.names[1:])})" if len(self.info.names) > 1 else ""
        head = f"{self.info.name}{others}: {tuple(self.info.shape)}, depth {self.info.depth}, group {self.group!r}"
        roles = [f"  role {role}: {why}" for role, why in sorted(self.info.reasons.items())]
        return "\n".join([head, *roles, *map(str, self.properties)])


def explain(
    rules: Sequence[Rule], group: Group, info: ParameterInfo, treatment: Treatment, algorithms: Mapping[str, Algorithm]
) -> Explanation:
    """The explanation of one parameter of `group`."""
    heard = {slot for slot, said in treatment.words.items() if any(word.heard for word in said)}
    standing = _standing(group, algorithms, heard)
    names = [*treatment.words, *(name for name in standing if name not in treatment.words)]
    properties = []
    for name in names:
        words = tuple((_name_of(rules, word), word) for word in treatment.words.get(name, ()))
        properties.append(Explained(name, standing.get(name, f"none ({group.algorithm or 'no optimizer'})"), words))
    return Explanation(info, group.name, tuple(properties))


def _name_of(rules: Sequence[Rule], word: Word) -> str:
    by = "" if word.silenced_by is None else f" → {title(rules, word.silenced_by)}"
    return f"{title(rules, word.rule)}{by}"


def _standing(group: Group, algorithms: Mapping[str, Algorithm], declared: Collection[str]) -> dict[str, str]:
    """What stands, by property; what is not `declared` stands at its class default."""
    values = {
        "optimizer": group.algorithm or "none",
        "trainable": group.freezing,
        "clip": str(group.clip.clip if group.clip else "none"),
    }
    if group.algorithm is None:
        return values
    algorithm = algorithms[group.algorithm]
    for name in algorithm.defaults:
        setting = group.settings.get(name)
        for i, slot in enumerate(algorithm.slots(name)):
            one = setting.elements[i] if isinstance(setting, Several) else setting
            default = f"{algorithm.default(slot)!r} (default of {algorithm.name})"
            values[slot] = default if one is None or slot not in declared else str(one)
    return values
