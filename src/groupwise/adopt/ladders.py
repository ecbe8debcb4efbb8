"""Rates that fall by one factor from level to level, as layer-wise decay makes them.

A program computes `lr * decay ** k` for the k-th level below the top; the plan computes the same product, so a ladder
counts only if it gives each rate to the last bit. Levels are those of the parameters (`ParameterInfo.depth`), or the
modules of a numbered container.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from groupwise.adopt.covers import Candidate
from groupwise.adopt.program import Key, Target, held
from groupwise.plan import Factor, layer_decay
from groupwise.plan.ladder import stated_levels
from groupwise.select import ParameterInfo

_CONTAINERS = 3  # that are tried as the levels
_DIGITS = 4  # of a decay that a person may have written


@dataclass(frozen=True)
class RateLadder:
    """Which parameters a `layer_decay` covers, and what their rates are at the top."""

    scope: Candidate
    key: Key
    decay: float
    bases: Mapping[int, float]
    levels: tuple[str, ...] = ()

    @property
    def factor(self) -> Factor:
        """What a rule declares for it."""
        return layer_decay(self.decay, levels=self.levels)

    def without(self, targets: Sequence[Target | None]) -> list[Target | None]:
        """The targets as they are before the decay multiplies them."""
        return [self._raised(target, self.bases.get(i)) for i, target in enumerate(targets)]

    def _raised(self, target: Target | None, base: float | None) -> Target | None:
        kind, name = self.key
        if target is None or base is None:
            return target
        if kind == "extra":
            return replace(target, extra={**target.extra, name: base})
        if name not in target.bases:
            return replace(target, values={**target.values, name: base})
        own = target.bases[name]
        values = {**target.values, name: own.make(base)}
        return replace(target, values=values, bases={**target.bases, name: replace(own, rate=base)})


def ladder(
    infos: Sequence[ParameterInfo], targets: Sequence[Target | None], scopes: Sequence[Candidate]
) -> RateLadder | None:
    """The ladder that leaves the fewest rates to be said; None where none leaves two fewer than there are."""
    best: tuple[int, RateLadder] | None = None
    readings = [((), [info.depth for info in infos]), *(((g,), stated_levels((g,), infos)) for g in _numbered(infos))]
    for key in dict.fromkeys(key for target in targets if target is not None for key in held(target)):
        rates = {i: own for i, target in enumerate(targets) if (own := rate(target, key)) is not None}
        if len(set(rates.values())) < 3:
            continue
        for scope, (levels, depths) in itertools.product(scopes, readings):
            for found in _ladders(infos, targets, scope, key, rates, levels, depths):
                rest = {own for i, own in rates.items() if i not in found.bases} | set(found.bases.values())
                if len(rest) + 1 < len(set(rates.values())) and (best is None or len(rest) < best[0]):
                    best = len(rest), found
    return None if best is None else best[1]


def _ladders(
    infos: Sequence[ParameterInfo],
    targets: Sequence[Target | None],
    scope: Candidate,
    key: Key,
    rates: Mapping[int, float],
    levels: tuple[str, ...],
    depths: Sequence[int],
) -> Iterator[RateLadder]:
    """The ladders over one scope, all of whose trained parameters must have a rate."""
    matched = [i for i in range(len(infos)) if scope.members >> i & 1]
    tops: dict[str, int] = {}
    for i in matched:
        tops[infos[i].network] = max(tops.get(infos[i].network, 0), depths[i])
    below = {i: tops[infos[i].network] - depths[i] for i in matched if targets[i] is not None}
    if any(i not in rates for i in below) or len(set(below.values())) < 3:
        return
    for decay in _decays(below, rates):
        bases = {i: float(f"{rates[i] / decay**k:.12g}") for i, k in below.items()}
        if all(bases[i] * decay**k == rates[i] for i, k in below.items()):
            yield RateLadder(scope, key, decay, bases, levels)


def _numbered(infos: Sequence[ParameterInfo]) -> list[str]:
    """Globs of the modules in numbered containers, the longest container first: what a program counts by itself."""
    containers: dict[str, set[str]] = {}
    for info in infos:
        parts = info.name.split(".")
        for i, part in enumerate(parts[:-1]):
            if part.isdigit() and i and not any(map(str.isdigit, parts[:i])):
                containers.setdefault(".".join(parts[:i]), set()).add(part)
    longest = sorted(
        (len(held), name) for name, held in containers.items() if len(held) > 2 and not set(name) & set("*?[")
    )
    return [f"{name}.*" for _, name in reversed(longest)][:_CONTAINERS]


def _decays(below: Mapping[int, int], rates: Mapping[int, float]) -> list[float]:
    """The factors between the usual rates of neighbouring levels, the commonest first."""
    usual = {k: Counter(rates[i] for i in below if below[i] == k).most_common(1)[0][0] for k in set(below.values())}
    found: Counter[float] = Counter()
    for k, further in itertools.pairwise(sorted(usual)):
        if usual[k] > 0 and usual[further] > 0:
            found[float(f"{(usual[further] / usual[k]) ** (1 / (further - k)):.{_DIGITS}g}")] += 1
    return [decay for decay, _ in found.most_common(3) if 0 < decay < 1]


def rate(target: Target | None, key: Key) -> float | None:
    """The number under `key`, of a schedule in proportion to its base the base; None where there is none."""
    if target is None:
        return None
    if key[0] == "values" and key[1] in target.bases:
        return target.bases[key[1]].rate
    value = held(target).get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
