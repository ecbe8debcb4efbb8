"""The shortest selector for a set of parameters.

A set is a number whose bit i stands for parameter i, so inclusion is one operation. What a person would write is tried:
a role, a number of dimensions, a level, a class, a network, the globs that names suggest; then two of these (both; one
without the other), then several of them side by side, and names alone at last. A selector has to match all of `must`
and nothing outside of `may`.
"""

from __future__ import annotations

import glob
import heapq
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from groupwise.select import ROLES, ParameterInfo, Selector, depth, inside, kind, name, ndim, network, role, selector
from groupwise.select.selectors import any_of

_NUMBERED = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")
_WILDEST = 300  # globs with numbers left open that are tried
_PAIRED = 60  # selectors that are tried in pairs
_LONGEST = 200
_NAMELESS = frozenset({"Module", "object"})


@dataclass(frozen=True)
class Candidate:
    """A selector, the set that it matches, and how much there is to read: 1 for a word."""

    match: Selector
    members: int
    cost: float


class Covers:
    """Selectors for sets of these parameters."""

    def __init__(self, infos: Sequence[ParameterInfo]) -> None:
        self.infos = infos
        self.all = (1 << len(infos)) - 1
        self._found: dict[tuple[int, int], Candidate] = {}
        self._names = [Candidate(name(glob.escape(info.name)), 1 << i, 1.5) for i, info in enumerate(infos)]
        made = [Candidate(selector("*"), self.all, 0.5), *_facts(infos), *_globs(infos)]
        best: dict[int, Candidate] = {}
        for each in sorted(made, key=lambda candidate: candidate.cost):
            if each.members:
                best.setdefault(each.members, each)
        self._candidates = list(best.values())

    @property
    def scopes(self) -> list[Candidate]:
        """What a `layer_decay` may run over: everything, a network, or all below a module."""
        return sorted((c for c in self._candidates if c.cost <= 1.02), key=lambda c: -c.members.bit_count())[:_PAIRED]

    def find(self, must: int, may: int) -> Candidate:
        """The cheapest selector that matches all of `must` and nothing outside of `may`, as far as was looked."""
        key = must, may | must
        if key not in self._found:
            single = min(self._single(*key), key=lambda candidate: candidate.cost, default=None)
            pair = self._both(*key, below=math.inf if single is None else single.cost)
            tried = [each for each in (single, pair, self._several(*key)) if each is not None]
            self._found[key] = min(tried, key=lambda candidate: candidate.cost)
        return self._found[key]

    def _single(self, must: int, may: int) -> Iterator[Candidate]:
        yield from (each for each in self._candidates if not must & ~each.members and not each.members & ~may)

    def _both(self, must: int, may: int, below: float) -> Candidate | None:
        """One selector and another, or one without another, at less than a cost; candidates stand by cost."""
        around = [each for each in self._candidates if not must & ~each.members and each.members != self.all]
        around = sorted(around, key=lambda each: each.members.bit_count())[:_PAIRED]
        found: Candidate | None = None
        for one, other in itertools.combinations(around, 2):
            cost = one.cost + other.cost + 0.1
            if cost < below and not one.members & other.members & ~may:
                found, below = Candidate(one.match & other.match, one.members & other.members, cost), cost
        beside = [each for each in self._candidates if not each.members & must]
        for one in [*around, *(each for each in self._candidates[:1] if not must & ~each.members)]:
            rest = one.members & ~may
            for other in beside:
                cost = one.cost + other.cost + 0.2
                if cost >= below:
                    break
                if not rest & ~other.members:
                    match = ~other.match if one.members == self.all else one.match & ~other.match
                    found, below = Candidate(match, one.members & ~other.members, cost), cost
        return found

    def _several(self, must: int, may: int) -> Candidate:
        """Several side by side: at each turn the one that says most for its length; single parameters at last."""
        pool = [each for each in self._candidates if each.members & must and not each.members & ~may]
        pool += self._crossed(must, may) + [self._names[i] for i in bits(must)]
        left, chosen = must, list[Candidate]()
        heap = [(-(each.members & must).bit_count() / each.cost, i) for i, each in enumerate(pool)]
        heapq.heapify(heap)
        while left:
            _, i = heapq.heappop(heap)
            worth = -(pool[i].members & left).bit_count() / pool[i].cost  # it can only have become less
            if heap and worth > heap[0][0]:
                heapq.heappush(heap, (worth, i))
                continue
            chosen.append(pool[i])
            left &= ~pool[i].members
        chosen = _needed(chosen, must)
        match = any_of([each.match for each in chosen]) if len(chosen) > 1 else chosen[0].match
        return Candidate(match, _union(chosen), sum(each.cost for each in chosen) + 0.05 * (len(chosen) - 1))

    def _crossed(self, must: int, may: int) -> list[Candidate]:
        """Pairs of which each alone matches too much."""
        wide = [each for each in self._candidates if each.members & must and each.members & ~may]
        wide = sorted(wide, key=lambda each: -(each.members & must).bit_count())[:_PAIRED]
        return [
            Candidate(one.match & other.match, one.members & other.members, one.cost + other.cost + 0.1)
            for one, other in itertools.combinations(wide, 2)
            if one.members & other.members & must and not one.members & other.members & ~may
        ]


def _needed(chosen: Sequence[Candidate], must: int) -> list[Candidate]:
    """Without those that the others make needless."""
    once = twice = 0
    for each in chosen:
        twice |= once & each.members
        once |= each.members
    alone = [each for each in chosen if each.members & must & ~twice]
    return alone if not must & ~_union(alone) else list(chosen)


def _union(candidates: Iterable[Candidate]) -> int:
    union = 0
    for each in candidates:
        union |= each.members
    return union


def bits(members: int) -> Iterator[int]:
    """The parameters of a set, by their places."""
    yield from (i for i in range(members.bit_length()) if members >> i & 1)


def members_of(infos: Sequence[ParameterInfo], matches: Callable[[ParameterInfo], bool]) -> int:
    """The set of the parameters for which `matches` is true."""
    return sum(1 << i for i, info in enumerate(infos) if matches(info))


def _facts(infos: Sequence[ParameterInfo]) -> Iterator[Candidate]:
    """Selectors on what parameters are."""
    ranks = sorted({info.ndim for info in infos})
    kinds = dict.fromkeys(word for info in infos for place in info.occurrences for word in place.kinds[:1])
    around = dict.fromkeys(word for info in infos for place in info.occurrences for word in sorted(place.ancestors))
    networks = dict.fromkeys(place.network for info in infos for place in info.occurrences if place.network)
    made: list[tuple[Selector, float]] = [(network(key), 0.9) for key in networks]
    made += [(role(word), 1.0) for word in ROLES if any(word in info.roles for info in infos)]
    made += [(ndim(rank), 1.0) for rank in ranks]
    made += [(ndim(max=rank), 1.0) for rank in ranks[:-1]] + [(ndim(min=rank), 1.0) for rank in ranks[1:]]
    yield from (Candidate(match, members_of(infos, match.matches), cost) for match, cost in made)
    yield from _levels(infos)
    made = [(kind(word), 1.1) for word in kinds if word not in _NAMELESS]
    made += [(inside(word), 1.25) for word in around if word not in _NAMELESS and word.isidentifier()]
    yield from (Candidate(match, members_of(infos, match.matches), cost) for match, cost in made)


def _levels(infos: Sequence[ParameterInfo]) -> Iterator[Candidate]:
    """Selectors on depth: a level, those up to it, those from it on; each set is the one before it and a level more."""
    at: dict[int, int] = {}
    for i, info in enumerate(infos):
        for occurrence in info.occurrences:
            at[occurrence.depth] = at.get(occurrence.depth, 0) | 1 << i
    levels = sorted(at)
    below = dict(zip(levels, itertools.accumulate((at[level] for level in levels), operator.or_), strict=True))
    above = dict(
        zip(levels[::-1], itertools.accumulate((at[level] for level in levels[::-1]), operator.or_), strict=True)
    )
    yield from (Candidate(depth(level), at[level], 1.1) for level in levels)
    yield from (Candidate(depth(max=level), below[level], 1.2) for level in levels[:-1])
    yield from (Candidate(depth(min=level), above[level], 1.2) for level in levels[1:])


def _globs(infos: Sequence[ParameterInfo]) -> Iterator[Candidate]:
    """Globs that the names suggest: everything below a module, every leaf of that name, the same in every block."""
    found: dict[str, tuple[float, int]] = {}
    open_numbers: dict[str, None] = {}
    for i, info in enumerate(infos):
        for dotted in (*info.names, *info.aliases):
            if len(dotted) > _LONGEST:
                continue
            for pattern, cost in _patterns(dotted):
                known = found.get(pattern, (cost, 0))
                found[pattern] = (known[0], known[1] | 1 << i)
            if _NUMBERED.search(dotted):
                open_numbers |= dict.fromkeys(_with_open_numbers(dotted))
    for pattern, (cost, members) in found.items():
        yield Candidate(name(pattern), members, cost)
    for pattern in list(open_numbers)[:_WILDEST]:
        match = name(pattern)
        yield Candidate(match, members_of(infos, match.matches), 1.15)


def _patterns(dotted: str) -> Iterator[tuple[str, float]]:
    """Globs without open numbers that a name fits, as exactly as `*` between whole parts can tell."""
    parts = [glob.escape(part) for part in dotted.split(".")]
    n = len(parts)
    for i in range(1, n):
        yield f"{'.'.join(parts[:i])}.*", 1.0 + 0.01 * i
    for j in range(1, min(3, n - 1) + 1):
        yield f"*.{'.'.join(parts[-j:])}", 1.03 + 0.03 * j
    for part in parts[1:-1]:
        if not part.isdigit():
            yield f"*.{part}.*", 1.1
    for i, j in itertools.product((1, 2), (1, 2)):
        if i + j < n:
            yield f"{'.'.join(parts[:i])}.*.{'.'.join(parts[-j:])}", 1.15 + 0.03 * (i + j)


def _with_open_numbers(dotted: str) -> Iterator[str]:
    parts = ["*" if part.isdigit() else glob.escape(part) for part in dotted.split(".")]
    for i in range(2, len(parts)):
        if "*" in parts[:i] and parts[i - 1] != "*":
            yield f"{'.'.join(parts[:i])}.*"
    if parts[-1] != "*":
        yield ".".join(parts)
