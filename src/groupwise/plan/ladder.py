"""Ladders: the levels that a rule with a `layer_decay` or an `unfreeze_down` runs over, and which of them is its top.

The levels are those of the parameters (`ParameterInfo.depth`) unless the rule states modules by globs. Then each
module that fits is a level, in module order. A parameter outside of them belongs with the modules that share most of
its path: the last of them before it, or the first where it stands before all (the downsampling that opens a stage is
of the stage's first block, one that closes it of its last). What shares no more with one than with another is of the
level passed: 0 before the first, one above the last behind it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from groupwise._spelling import counted
from groupwise.errors import PlanError, ResolutionError, listed, within
from groupwise.plan.declarations import LayerDecay
from groupwise.plan.declared import factors_of, level_dependent
from groupwise.plan.rule import Rule, title
from groupwise.select import ParameterInfo

_STAGES = re.compile(
    r"(?P<outer>(?:[^.]*[^.\d][^.]*\.)*?(?:\w*(?:stages?|layers?|levels?)))\.(?P<stage>\d+)\."
    r"(?P<inner>blocks?|layers?)\.(?P<block>\d+)\."
)


@dataclass(frozen=True)
class Ladder:
    """The level of every parameter as one rule reads it; in each network the top of its rule, and how many levels it
    matches."""

    levels: tuple[int, ...]
    tops: Mapping[str, int]
    counts: Mapping[str, int]


def ladders_of(
    rules: Sequence[Rule], parameters: Sequence[ParameterInfo], matches: Sequence[tuple[int, ...]]
) -> dict[int, Ladder]:
    """The ladder of each rule that depends on depth, by the rule's index.

    Raises:
        PlanError: a rule reads its levels in two ways.
        ResolutionError: no module fits, or a parameter lies above the top that is declared.
    """
    found = {}
    for i, rule in enumerate(rules):
        if level_dependent(rule):
            with within(title(rules, i)):
                matched = [i in matching for matching in matches]
                found[i] = _ladder(rule, parameters, matched)
    return found


def _ladder(rule: Rule, parameters: Sequence[ParameterInfo], matched: Sequence[bool]) -> Ladder:
    decays = [factor for factor in factors_of(rule) if isinstance(factor, LayerDecay)]
    readings = {(decay.levels, decay.top) for decay in decays}
    if len(readings) > 1:
        raise PlanError("its layer_decays read the levels in several ways; write a rule for each")
    globs, top = readings.pop() if readings else ((), None)
    levels = stated_levels(globs, parameters) if globs else tuple(info.depth for info in parameters)
    tops: dict[str, int] = {}
    for info, level, counts in zip(parameters, levels, matched, strict=True):
        if counts and top is not None and level > top:
            raise ResolutionError(
                f"{info.name!r} lies on level {level}, above the top that layer_decay declares, {top}"
            )
        if counts:
            tops[info.network] = max(tops.get(info.network, 0), level) if top is None else top
    pairs = {(info.network, level) for info, level, counts in zip(parameters, levels, matched, strict=True) if counts}
    return Ladder(levels, tops, Counter(network for network, _ in pairs))


def stated_levels(globs: Sequence[str], parameters: Sequence[ParameterInfo]) -> tuple[int, ...]:
    """The level of each parameter where the modules that fit `globs` are the ladder.

    Raises `ResolutionError` for a glob that fits no module.
    """
    by_network: dict[str, _Rungs] = {}
    for info in parameters:
        by_network.setdefault(info.network, _Rungs(globs)).pass_by(info.name)
    for glob in globs:
        if not any(glob in rungs.fitted for rungs in by_network.values()):
            modules = listed(dict.fromkeys(info.name.rpartition(".")[0] for info in parameters), 4)
            raise ResolutionError(f"layer_decay's levels {glob!r} fit no module; modules are {modules}")
    return tuple(by_network[info.network].level_of(info.name) for info in parameters)


class _Rungs:
    """The modules of one network that are levels, in order, and what was passed when each parameter was met."""

    def __init__(self, globs: Sequence[str]) -> None:
        self.globs = globs
        self.fitted: set[str] = set()
        self.rungs: dict[str, int] = {}
        self.passed: dict[str, int] = {}

    def pass_by(self, name: str) -> None:
        if (rung := self._rung_of(name)) is not None:
            self.rungs.setdefault(rung, len(self.rungs) + 1)
        self.passed.setdefault(name, len(self.rungs))

    def level_of(self, name: str) -> int:
        if (rung := self._rung_of(name)) is not None:
            return self.rungs[rung]
        common = {rung: _common(name, rung) for rung in self.rungs}
        most, least = max(common.values(), default=0), min(common.values(), default=0)
        before = self.passed[name]
        if most > least:
            near = [self.rungs[rung] for rung, shared in common.items() if shared == most]
            return max([level for level in near if level <= before], default=near[0])
        return before + (before == len(self.rungs) and before > 0)

    def _rung_of(self, name: str) -> str | None:
        for glob in self.globs:
            if found := _compiled(glob).match(name):
                self.fitted.add(glob)
                return found[1]
        return None


@lru_cache(maxsize=256)
def _compiled(glob: str) -> re.Pattern[str]:
    parts = [re.escape(part).replace(r"\*", "[^.]*").replace(r"\?", "[^.]") for part in glob.strip(".").split(".")]
    return re.compile(r"((?:[^.]+\.)*?" + r"\.".join(parts) + r")(?=\.|$)")


def _common(one: str, other: str) -> int:
    """How many leading parts two dotted names share."""
    shared = 0
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if a != b:
            break
        shared += 1
    return shared


def distinct_levels(ladder: Ladder, parameters: Sequence[ParameterInfo], matched: Iterable[bool]) -> list[set[int]]:
    """The levels that a rule matches, network by network."""
    found: dict[str, set[int]] = {}
    for info, level, counts in zip(parameters, ladder.levels, matched, strict=True):
        if counts:
            found.setdefault(info.network, set()).add(level)
    return list(found.values())


def readings_of(
    rules: Sequence[Rule],
    parameters: Sequence[ParameterInfo],
    matches: Sequence[tuple[int, ...]],
    ladders: Mapping[int, Ladder],
) -> tuple[str, ...]:
    """For each rule whose levels are stated, or could be read in another way, which reading was taken."""
    sentences = []
    for i, ladder in ladders.items():
        matched = [i in matching for matching in matches]
        count = sum(map(len, distinct_levels(ladder, parameters, matched)))
        globs = [glob for part in factors_of(rules[i]) if isinstance(part, LayerDecay) for glob in part.levels]
        if globs:
            sentences.append(
                f"{title(rules, i)} counts levels by {listed(dict.fromkeys(globs))}: {counted(count, 'level')}"
            )
        else:
            infos = [info for info, counts in zip(parameters, matched, strict=True) if counts]
            sentences += [
                f"{title(rules, i)} counts {stages} stages ({outer}) as levels; layer_decay(…, levels={inner!r}) "
                f"counts the {blocks} blocks in them"
                for outer, stages, inner, blocks in _nested(infos)
            ]
    return tuple(sentences)


def tops_of_parts(
    rules: Sequence[Rule], parameters: Sequence[ParameterInfo], ladders: Mapping[int, Ladder]
) -> tuple[str, ...]:
    """A sentence for each `layer_decay` that counts from the top of what is certain to be a part of a model: nothing in
    its network is below level 2, as in a stage of a pipeline, which keeps the numbers of its blocks."""
    lowest: dict[str, int] = {}
    for info in parameters:
        lowest[info.network] = min(lowest.get(info.network, info.depth), info.depth)
    sentences = []
    for i, ladder in ladders.items():
        decays = [factor for factor in factors_of(rules[i]) if isinstance(factor, LayerDecay)]
        parts = [network for network in ladder.tops if lowest[network] > 1]
        if parts and any(decay.top is None and not decay.levels and decay.decay != 1.0 for decay in decays):
            first, top = lowest[parts[0]], ladder.tops[parts[0]]
            sentences.append(
                f"{title(rules, i)}: the model begins at level {first}, so it is a part of one (a stage of a pipeline, "
                f"say), and layer_decay counts from the top of this part, level {top}; layer_decay(…, top=…) states "
                "the top of the whole model, for every part alike"
            )
    return tuple(sentences)


def _nested(infos: Sequence[ParameterInfo]) -> list[tuple[str, int, str, int]]:
    """Stages that hold numbered blocks: pattern of the stages, how many, pattern of the blocks, how many."""
    layers: dict[tuple[str, str], dict[str, set[str]]] = {}
    depths: dict[str, dict[str, int]] = {}
    for info in infos:
        found = _STAGES.match(info.name)
        if found is None or info.ndim < 2 or info.roles & {"embedding", "expert", "norm", "bias"}:
            continue
        container, stage, inner, block = found["outer"], found["stage"], found["inner"], found["block"]
        outer = f"{container}.*"
        blocks = layers.setdefault((outer, f"{outer}.{inner}.*"), {})
        blocks.setdefault(f"{stage}.{block}", set()).add(info.name.rpartition(".")[0])
        depths.setdefault(outer, {})[stage] = info.depth
    return [
        (outer, len(depths[outer]), inner, len(blocks))
        for (outer, inner), blocks in layers.items()
        if len(set(depths[outer].values())) > 1
        and len(blocks) > len(depths[outer])
        and all(len(own) > 1 for own in blocks.values())
    ]
