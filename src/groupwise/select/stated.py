"""What the caller knows better: roles and tags that are stated, not guessed.

An entry that matches nothing is a mistake, with one exception: models hand out *sets* of names (`no_weight_decay()`)
that are written for a family of models, so a set only needs one of its names, and an empty one states nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TypeAlias

from groupwise.errors import SelectorError, listed, unknown, within
from groupwise.select.describe import resettled
from groupwise.select.hints import nearest
from groupwise.select.info import ParameterInfo
from groupwise.select.roles import ROLES
from groupwise.select.selectors import Selector, selector

Stated: TypeAlias = "str | Selector | Sequence[str | Selector] | AbstractSet[str]"

Infos = tuple[ParameterInfo, ...]


def with_roles(infos: Infos, roles: Mapping[str, Stated]) -> Infos:
    """`infos` with the stated roles added; where heads are stated for a network, none are guessed in it."""
    for role in _keys("roles", roles):
        if role not in ROLES:
            raise SelectorError(f"{unknown('role', role, ROLES)}; for words of your own there is tags=")
    chosen = {role: _chosen(infos, f"roles[{role!r}]", stated) for role, stated in roles.items()}
    networks = {occurrence.network for i in chosen.get("head", ()) for occurrence in infos[i].occurrences}
    return tuple(_stated(info, [r for r in ROLES if i in chosen.get(r, ())], networks) for i, info in enumerate(infos))


def tagged(infos: Infos, tags: Mapping[str, Stated]) -> Infos:
    """`infos` with the stated tags."""
    chosen = {tag: _chosen(infos, f"tags[{tag!r}]", tags[tag]) for tag in _keys("tags", tags)}
    return tuple(
        replace(info, tags=info.tags | {tag for tag in chosen if i in chosen[tag]}) for i, info in enumerate(infos)
    )


def _stated(info: ParameterInfo, roles: list[str], headed: set[str]) -> ParameterInfo:
    """The roles added to every place of one parameter, and its guessed head dropped in the networks `headed`."""
    if not roles and "head" not in info.roles:
        return info
    kept = [
        [
            pair
            for pair in occurrence.reasons
            if pair[0] not in roles and not (pair[0] == "head" and occurrence.network in headed)
        ]
        for occurrence in info.occurrences
    ]
    return resettled(info, [(*reasons, *((role, "the caller said so") for role in roles)) for reasons in kept])


def _chosen(infos: Infos, where: str, stated: Stated) -> set[int]:
    with within(where):
        parts = _parts(stated)
        found = [{i for i, info in enumerate(infos) if part.matches(info)} for part in parts]
        tolerant = isinstance(stated, AbstractSet)
        missed = [part for part, matched in zip(parts, found, strict=True) if not matched]
        if missed and (not tolerant or len(missed) == len(parts)):
            close = listed(nearest(missed[0], infos)) or "none"
            raise SelectorError(f"{missed[0]} matches no parameter (nearest: {close})")
    return set().union(*found)


def _parts(stated: Stated) -> list[Selector]:
    if isinstance(stated, str | Selector):
        return [selector(stated)]
    if isinstance(stated, Mapping) or not isinstance(stated, Collection):
        raise SelectorError(f"give a glob, a selector, or a list or set of them, not a {type(stated).__name__}")
    return [selector(part) for part in (sorted(stated, key=str) if isinstance(stated, AbstractSet) else stated)]


def _keys(what: str, given: Mapping[str, Stated]) -> list[str]:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise SelectorError(f"{what}= takes a mapping from a {what[:-1]} to what has it, as {{'head': 'task*.*'}}")
    return list(given)
