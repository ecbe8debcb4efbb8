"""What a forward pass showed of a model's parameters, as a value: facts in place of guesses.

Whoever can run the model (`groupwise.look`) makes a `Usage`; here it is only put into the infos. A role that was seen
replaces the guessed ones of that parameter. What an expert is and what a router is guessed from names only where no
mixture of experts was seen. What the pass did not reach keeps its guesses, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import final

from groupwise import _pickling
from groupwise.errors import listed
from groupwise.select.described import with_occurrences
from groupwise.select.info import Basis, Occurrence, ParameterInfo, Reasons

_NAMED = frozenset({"expert", "router"})


@_pickling.public("groupwise.select:Usage")
@final
@dataclass(frozen=True, slots=True)
class Usage:
    """What a forward pass showed, by name.

    Args:
        roles: (role, reason) pairs of each parameter that an operation used, by its first name.
        products: how a product was seen to multiply by a parameter as a matrix, by its first name.
        depth: levels, by the name of each occurrence.
        unreached: first names of the parameters that no operation used.
        opaque: first names of those that only operations used that tell no role, with the operation.
        guessed: whether an answer that depends on values had to be guessed, as the meta device has none.
        where: the device that it ran on: "meta", "cpu".
        mixtures: whether experts were seen, and what chooses among them, so that no name is asked for these.
    """

    roles: Mapping[str, Reasons] = field(default_factory=dict)
    products: Mapping[str, str] = field(default_factory=dict)
    depth: Mapping[str, int] = field(default_factory=dict)
    unreached: frozenset[str] = frozenset()
    opaque: Mapping[str, str] = field(default_factory=dict)
    guessed: bool = False
    where: str = ""
    mixtures: bool = False


def with_usage(infos: Iterable[ParameterInfo], usage: Usage) -> tuple[ParameterInfo, ...]:
    """`infos` with what was seen in place of what was guessed; each says in `basis` which of the two it is.

    Where heads were seen, what was not reached is guessed to be none.
    """
    no_guess = frozenset({"head"} if any(role == "head" for found in usage.roles.values() for role, _ in found) else ())
    return tuple(_seen(info, usage, no_guess) for info in infos)


def looked_at(infos: Iterable[ParameterInfo]) -> str:
    """One sentence on what was looked at and what was guessed; empty where there was no look."""
    looked = [(info.name, info.basis) for info in infos if info.basis is not None]
    if not looked:
        return ""
    why = Counter(basis.guessed for _, basis in looked if basis.guessed)
    where = looked[0][1].where
    used = f"roles and depth: {len(looked) - why.total()} of {len(looked)} tensors seen in a forward on {where}"
    parts = [
        f"{count} guessed, {reason} ({listed((name for name, basis in looked if basis.guessed == reason), 4)})"
        for reason, count in why.items()
    ]
    return "; ".join([used, *parts])


def _seen(info: ParameterInfo, usage: Usage, no_guess: frozenset[str]) -> ParameterInfo:
    where = "the meta device" if usage.where == "meta" else usage.where
    basis = Basis(where, _why_guessed(info.name, usage), info.name not in usage.unreached)
    used = not basis.guessed
    reasons, product = usage.roles.get(info.name, ()), usage.products.get(info.name, "")
    occurrences = [
        _at(o, usage, reasons, product) if used else _guessed(_level(o, usage), no_guess) for o in info.occurrences
    ]
    return replace(with_occurrences(info, occurrences), basis=basis)


def _why_guessed(name: str, usage: Usage) -> str:
    if name in usage.unreached:
        return "not reached by the example" if usage.guessed else "unused by the example"
    return f"used by {usage.opaque[name]}, which tells no role" if name in usage.opaque else ""


def _at(occurrence: Occurrence, usage: Usage, reasons: Reasons, product: str) -> Occurrence:
    named = () if usage.mixtures else tuple((role, why) for role, why in occurrence.reasons if role in _NAMED)
    return replace(_level(occurrence, usage), reasons=(*reasons, *named), multiplied=product)


def _guessed(occurrence: Occurrence, no_guess: frozenset[str]) -> Occurrence:
    """What stays guessed."""
    return replace(occurrence, reasons=tuple(pair for pair in occurrence.reasons if pair[0] not in no_guess))


def _level(occurrence: Occurrence, usage: Usage) -> Occurrence:
    level = usage.depth.get(occurrence.name)
    return occurrence if level is None else replace(occurrence, depth=level)
