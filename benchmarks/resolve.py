"""Resolving a plan:  python -m benchmarks --only resolve

10,000 tensors on the `meta` device, 20 rules. The parts are those of `resolve`: the walk over the model, the matching
of every rule against every parameter, the cascade, and the probe of each distinct group on a tiny tensor. The floor of
the walk is `list(model.named_parameters())`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.measure import Scale, Table, Work, milliseconds, race
from groupwise import Plan, Rule, clip_norm, layer_decay
from groupwise import scale as times
from groupwise.optim import parameters_of, resolve
from groupwise.optim.algorithms import TorchAlgorithms
from groupwise.optim.probe import probe
from groupwise.plan.group import groups_of
from groupwise.plan.ladder import ladders_of
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.resolve import matches_of, resolve_parameters
from groupwise.schedules import cosine
from groupwise.select import depth, inside, kind, ndim, role, shape, size

BLOCKS = 833


def model(layers: int = BLOCKS) -> nn.Module:
    """833 transformer layers of 12 tensors, an embedding, a norm and a head."""
    with torch.device("meta"):
        blocks = nn.ModuleList(nn.TransformerEncoderLayer(64, 4, 128) for _ in range(layers))
        parts = {"embed": nn.Embedding(1000, 64), "blocks": blocks, "norm": nn.LayerNorm(64)}
        return nn.ModuleDict({**parts, "head": nn.Linear(64, 1000)})


def plan(decay: bool) -> Plan:
    """20 rules. With layer decay every level has groups of its own, five thousand together; without, a few dozen."""
    rules = [
        Rule("*", optimizer="AdamW", lr=cosine(3e-4, warmup="5%"), weight_decay=0.05, clip=clip_norm(1.0)),
        Rule("*", lr=layer_decay(0.999) if decay else times(0.5)),
        Rule(role("norm", "bias"), weight_decay=0.0),
        Rule(role("matrix") & "blocks", optimizer="Muon", lr=cosine(0.02), weight_decay=0.1),
        Rule("embed", lr=times(2.0)),
        Rule("head", clip=clip_norm(0.1)),
        Rule(inside("MultiheadAttention"), lr=times(0.5)),
        Rule(kind("LayerNorm"), lr=times(0.9)),
        Rule(depth(max=10), lr=times(0.8)),
        Rule(ndim(1) & "blocks.7*", lr=times(0.7)),
    ]
    shapes = [Rule(shape((None, 64 + i)), optional=True, lr=times(0.99)) for i in range(4)]
    names = [Rule(f"blocks.{i}*.linear1.*", lr=times(0.98)) for i in range(1, 5)]
    sizes = [Rule(size(min=i), optional=True, eps=1e-7) for i in (10, 10**5)]
    return Plan([*rules, *shapes, *names, *sizes[:1], Rule("norm", weight_decay=0.0, optional=True)])


def race_parts(network: nn.Module, decay: bool, scale: Scale) -> Table:
    """The parts of one resolution, beside the whole."""
    chosen = plan(decay)
    infos = parameters_of(network)
    algorithms = TorchAlgorithms(chosen)
    resolution, mistakes = chosen.resolve(infos, algorithms), Mistakes()
    rules, known = chosen.rules, resolution.algorithms
    matches = matches_of(rules, infos)
    ladders = ladders_of(rules, infos, matches)
    resolved = resolve_parameters(rules, infos, matches, ladders, known, mistakes)
    works: dict[str, Work] = {
        "floor of the walk: named_parameters": lambda: list(network.named_parameters()),
        "walk: parameters_of": lambda: parameters_of(network),
        "match: every rule on every parameter": lambda: matches_of(rules, infos),
        "levels of each rule": lambda: ladders_of(rules, infos, matches),
        "cascade: each class of parameters": lambda: resolve_parameters(
            rules, infos, matches, ladders, known, mistakes
        ),
        "groups and their names": lambda: groups_of(rules, infos, resolved),
        "probe": lambda: probe(resolution, algorithms, mistakes),
        "the whole: resolve": lambda: resolve(network, chosen),
    }
    results = race(works, "the whole: resolve", scale.seconds(5.0))
    rows = [[name, milliseconds(own.seconds), f"{own.ratio:.2f} ± {own.spread:.2f}"] for name, own in results.items()]
    title = f"{len(infos):,} tensors, {len(chosen.rules)} rules, {len(resolution.groups):,} groups"
    return Table(title, ["part", "time", "of the whole"], rows)


def tables(scale: Scale) -> Iterator[Table]:
    """A plan with few groups, and one with a group per level."""
    network = model(8 if scale.quick else BLOCKS)
    yield race_parts(network, False, scale)
    yield race_parts(network, True, scale)
