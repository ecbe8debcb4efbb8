"""What the caller knows better: roles, tags and levels that are stated, not guessed.

An entry that matches nothing is a mistake, with one exception: models hand out *sets* of names (`no_weight_decay()`)
that are written for a family of models, so a set only needs one of its names, and an empty one states nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TypeAlias

from groupwise.errors import SelectorError, listed, unknown, within
from groupwise.select.hints import nearest
from groupwise.select.info import ROLES, ParameterInfo
from groupwise.select.selectors import Selector, selector

Declared: TypeAlias = "str | Selector | Sequence[str | Selector] | AbstractSet[str]"

DeclaredDepth: TypeAlias = "Mapping[str, int] | Callable[[str], int | None]"

Infos = tuple[ParameterInfo, ...]


def with_roles(infos: Infos, roles: Mapping[str, Declared]) -> Infos:
    """`infos` with the stated roles added; where heads are stated for a network, none are guessed in it."""
    for role in _keys("roles", roles):
        if role not in ROLES:
            raise SelectorError(f"{unknown('role', role, ROLES)}; for words of your own there is tags=")
    chosen = {role: _chosen(infos, f"roles[{role!r}]", declared) for role, declared in roles.items()}
    networks = {occurrence.network for i in chosen.get("head", ()) for occurrence in infos[i].occurrences}
    return tuple(
        _declared(info, [r for r in ROLES if i in chosen.get(r, ())], networks) for i, info in enumerate(infos)
    )


def tagged(infos: Infos, tags: Mapping[str, Declared]) -> Infos:
    """`infos` with the stated tags."""
    chosen = {tag: _chosen(infos, f"tags[{tag!r}]", tags[tag]) for tag in _keys("tags", tags)}
    return tuple(
        replace(info, tags=info.tags | {tag for tag in chosen if i in chosen[tag]}) for i, info in enumerate(infos)
    )


def with_depths(infos: Infos, depth: object) -> Infos:
    """`infos` with the levels of a `DeclaredDepth`; what none is stated for keeps its guessed one."""
    levels: dict[int, int] = {}
    if isinstance(depth, Mapping):
        levels = stated_levels(infos, depth)
    elif callable(depth):
        depths = {i: depth(info.name) for i, info in enumerate(infos)}
        levels = {i: checked_level(repr(infos[i].name), level) for i, level in depths.items() if level is not None}
    else:
        given = type(depth).__name__
        raise SelectorError(f"depth= takes {{glob: level}} or a function from name to level, not {given}")
    return tuple(_at_level(info, levels[i]) if i in levels else info for i, info in enumerate(infos))


def stated_levels(infos: Sequence[ParameterInfo], depth: Mapping[str, int]) -> dict[int, int]:
    """By index, the levels that a table of globs states; the last entry that matches a parameter counts.

    Raises `SelectorError` for an entry that matches nothing, and for a level that is no whole number from 0 upward.
    """
    levels: dict[int, int] = {}
    for glob, level in depth.items():
        levels |= dict.fromkeys(_chosen(infos, "depth", glob), checked_level(repr(glob), level))
    return levels


def _at_level(info: ParameterInfo, level: int) -> ParameterInfo:
    return replace(info, occurrences=tuple(replace(occurrence, depth=level) for occurrence in info.occurrences))


def checked_level(of: str, level: object) -> int:
    """`level`, or a `SelectorError` if it is none."""
    if isinstance(level, bool) or not isinstance(level, int) or level < 0:
        raise SelectorError(f"depth of {of}: a level is a whole number from 0 (the input) upward, not {level!r}")
    return level


def _declared(info: ParameterInfo, roles: list[str], headed: set[str]) -> ParameterInfo:
    """The roles added to every place of one parameter, and its guessed head dropped in the networks `headed`."""
    if not roles and "head" not in info.roles:
        return info
    from groupwise.select.described import with_reasons  # a plan's own depth needs nothing of it

    kept = [
        [
            pair
            for pair in occurrence.reasons
            if pair[0] not in roles and not (pair[0] == "head" and occurrence.network in headed)
        ]
        for occurrence in info.occurrences
    ]
    return with_reasons(info, [(*reasons, *((role, "the caller said so") for role in roles)) for reasons in kept])


def _chosen(infos: Sequence[ParameterInfo], where: str, declared: Declared) -> set[int]:
    with within(where):
        parts = _parts(declared)
        found = [{i for i, info in enumerate(infos) if part.matches(info)} for part in parts]
        tolerant = isinstance(declared, AbstractSet)
        missed = [part for part, matched in zip(parts, found, strict=True) if not matched]
        if missed and (not tolerant or len(missed) == len(parts)):
            close = listed(nearest(missed[0], infos)) or "none"
            raise SelectorError(f"{missed[0]} matches no parameter (nearest: {close})")
    return set().union(*found)


def _parts(declared: Declared) -> list[Selector]:
    if isinstance(declared, str | Selector):
        return [selector(declared)]
    if isinstance(declared, Mapping) or not isinstance(declared, Collection):
        raise SelectorError(f"give a glob, a selector, or a list or set of them, not a {type(declared).__name__}")
    return [selector(part) for part in (sorted(declared, key=str) if isinstance(declared, AbstractSet) else declared)]


def _keys(what: str, given: Mapping[str, Declared]) -> list[str]:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise SelectorError(f"{what}= takes a mapping from a {what[:-1]} to what has it, as {{'head': 'task*.*'}}")
    return list(given)
