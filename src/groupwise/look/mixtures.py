"""Mixtures of experts: a router is what chooses among experts, and experts are what it chooses among.

A product gives scores, as many as there are experts. A softmax or a top-k of them chooses which expert a token goes
to (the token's vector is gathered by what was chosen, or an expert's matrix is), or weights what the experts give.
Experts are the matrices of a stack of so many, with whatever else of that length is held beside them, or the members of
a container of so many that do not feed each other. A gate of one score beside a router (of a shared expert) is one too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from groupwise.look.dependence import Parts, layers
from groupwise.look.provenance import bits, indices
from groupwise.select import Node


@final
@dataclass(slots=True)
class Mixtures:
    """The parameters of all experts and routers of one network."""

    experts: int = 0
    routers: int = 0


def mixtures_of(root: Node, parts: Parts) -> Mixtures:
    """What a run showed of mixtures in one tree."""
    found = Mixtures()
    if not any(record.chosen_by for record in parts.dependence.records):
        return found
    for node in layers(root):
        _stacked(node, parts, found)
        _listed(node, parts, found)
    if not found.routers:
        return found
    for node in layers(root):
        found.routers |= _gates(node, parts, found.routers)
    found.routers |= _biases(parts, found.routers)
    return found


def _stacked(node: Node, parts: Parts, found: Mixtures) -> None:
    """Stacks of as many matrices as there were scores."""
    records, held = parts.dependence.records, indices(parts.dependence.own(node))
    for i in held:
        record = records[i]
        if len(record.shape) < 3 or {"stack", "wide"}.isdisjoint(record.uses):
            continue
        if routers := _that_choose(parts, record.chosen_by, record.shape[0]):
            found.routers |= routers
            beside = bits(j for j in held if records[j].shape[:1] == record.shape[:1])
            found.experts |= beside & ~routers


def _listed(node: Node, parts: Parts, found: Mixtures) -> None:
    """Members of which there are as many as there were scores, each of them chosen."""
    members = [child for child in node.children if child.has_parameters]
    reached = parts.members(node)
    if len(members) < 2 or not reached:
        return
    routers = -1
    for member in reached:
        chosen = 0
        for i in indices(parts.mask(member)):
            chosen |= parts.dependence.records[i].chosen_by
        routers &= chosen
        if not routers:
            return
    routers = _that_choose(parts, routers, len(members)) & ~parts.mask(node)
    if routers and not parts.in_series(reached):
        found.routers |= routers
        found.experts |= parts.mask(node) & ~parts.dependence.own(node)


def _that_choose(parts: Parts, scores: int, among: int) -> int:
    return bits(i for i in indices(scores) if parts.dependence.records[i].gives == among)


def _gates(node: Node, parts: Parts, routers: int) -> int:
    """Products beside a router that give one score, which weights something."""
    own = [parts.dependence.own(child) for child in node.children]
    if not any(mask & routers for mask in own):
        return 0
    weighting = 0
    for i in indices(parts.mask(node)):
        weighting |= parts.dependence.records[i].chosen_by
    return bits(
        i for mask in own for i in indices(mask & weighting) if parts.dependence.records[i].gives == 1
    )  # fmt: skip


def _biases(parts: Parts, routers: int) -> int:
    records = parts.dependence.records
    return bits(
        i for i, r in enumerate(records) if r.beside & routers and "bias" in r.uses and len(r.shape) == 1
    )  # fmt: skip
