"""Blocks of a model whose layers lie flat in one graph, as those of `keras.applications` do.

A ResNet50 of Keras is 177 layers in a row: nothing is nested and nothing is numbered but the layers' names. So blocks
are found here, and put into the tree as one numbered container, from which depth is read as from any other:

1. By name, where at least two names carry a block's number: `block_3_expand`, `conv2_block1_1_conv`,
   `convnext_tiny_stage_0_block_2_layernorm`, `transformer_layer_5`.
2. Else by the graph: wherever a single tensor connects what comes before with what comes after, the model could be cut;
   what lies between two neighbouring cuts and branches is a block (Inception's).

What comes before the first block is the stem, what comes after the last the head, and a layer between two belongs to
the block just passed. Blocks on parallel paths share a level: the level of a block is the length of the longest chain
of blocks that it depends on, as far as the graph is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from groupwise.select.tree import Node

_BLOCK = re.compile(
    r"(?P<block>.*(?:(?:block|layer|unit|cell|stage|group)_?\d+[a-z]?|expanded_conv(?:_\d+)?))(?:_|$)", re.IGNORECASE
)
_PAIR = re.compile(r"conv_(?:dw|pw)_(?P<block>\d+)(?:_|$)")
_LEAST = 2


def with_blocks(path: str, parts: Sequence[tuple[Any, Node]]) -> tuple[Node, ...]:
    """The children of a graph model at `path`, blocks put together; `parts` are its layers and nodes, in order."""
    nodes = [node for _, node in parts]
    if any(map(_has_numbers, nodes)):
        return tuple(nodes)
    inputs = _inputs_of([layer for layer, _ in parts])
    blocks = _named(nodes) or _between_cuts(inputs)
    weighted = {blocks[i] for i, node in enumerate(nodes) if node.has_parameters and blocks[i] is not None}
    if len(weighted) < _LEAST:
        return tuple(nodes)
    return _nested(path, nodes, [block if block in weighted else None for block in blocks], inputs)


def _named(nodes: Sequence[Node]) -> list[str | None]:
    """For each layer the block that its name tells; empty where too few are told."""
    matches = (_PAIR.match(node.name) or _BLOCK.match(node.name) for node in nodes)
    found = [match["block"] if match else None for match in matches]
    named = [block is not None for node, block in zip(nodes, found, strict=True) if node.has_parameters]
    return found if len({*found} - {None}) >= _LEAST and 2 * sum(named) >= len(named) else []


def _between_cuts(inputs: Sequence[set[int] | None]) -> list[str | None]:
    """For each layer the block of the graph that it lies in, None for one in a plain row."""
    if None in inputs:
        return [None] * len(inputs)
    last_use = list(range(len(inputs)))
    for i, of in enumerate(inputs):
        for j in of or ():
            last_use[j] = i
    found: list[str | None] = []
    reach = -1
    for i, last in enumerate(last_use):
        if reach <= i:  # nothing before this layer is used after it: the model can be cut here
            start = len(found)
            found += [f"<{start}>" if i > start else None] * (i + 1 - start)
        reach = max(reach, last)
    return found + [None] * (len(inputs) - len(found))


def _nested(
    path: str, nodes: Sequence[Node], blocks: Sequence[str | None], inputs: Sequence[set[int] | None]
) -> tuple[Node, ...]:
    first = next(i for i, block in enumerate(blocks) if block is not None)
    last = len(blocks) - 1 - next(i for i, block in enumerate(reversed(blocks)) if block is not None)
    before = [None if of is None else {j - first for j in of if j >= first} for of in inputs[first : last + 1]]
    levels = _levels(blocks[first : last + 1], before)
    by_level: dict[int, list[Node]] = {}
    for level, node in zip(levels, nodes[first : last + 1], strict=True):
        by_level.setdefault(level, []).append(node)
    inner = f"{path}.<blocks>" if path else "<blocks>"
    children = tuple(Node(str(i), f"{inner}.{i}", (), (), tuple(by_level[i])) for i in sorted(by_level))
    return (*nodes[:first], Node("<blocks>", inner, (), (), children), *nodes[last + 1 :])


def _levels(blocks: Sequence[str | None], inputs: Sequence[set[int] | None]) -> list[int]:
    """The level of each layer's block: the longest chain of blocks before it; their order where the graph is not known.

    A layer without a block belongs to the highest block that it takes something from, or else to the one just passed.
    """
    if None in inputs:
        order = list(dict.fromkeys(block for block in blocks if block is not None))
        passed = [next(b for b in reversed(blocks[: i + 1]) if b is not None) for i in range(len(blocks))]
        return [order.index(block) for block in passed]
    level: dict[str, int] = {}
    found: list[str] = []
    for block, of in zip(blocks, inputs, strict=True):
        before = {found[j] for j in of or ()}
        own = block or max(before, key=level.__getitem__, default=found[-1] if found else "")
        level[own] = max([level.get(own, 0), *(level[other] + 1 for other in before - {own})])
        found.append(own)
    return [level[own] for own in found]


def _inputs_of(layers: Sequence[Any]) -> list[set[int] | None]:
    """For each layer the places of those whose outputs it takes; None where Keras does not tell."""
    made: dict[int, int] = {}
    found: list[set[int] | None] = []
    for i, layer in enumerate(layers):
        try:
            taken, given = _tensors(layer.input), _tensors(layer.output)
        except (AttributeError, ValueError):  # not called, or called several times
            found.append(None)
            continue
        places = [made.get(id(tensor)) for tensor in taken]
        known = isinstance(layer, keras.layers.InputLayer) or None not in places
        found.append({place for place in places if place is not None} if known else None)
        made.update((id(tensor), i) for tensor in given)
    return found


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return _flat(value.values())
    return _flat(value) if isinstance(value, list | tuple) else [value]


def _flat(values: Iterable[Any]) -> list[Any]:
    return [tensor for value in values for tensor in _tensors(value)]


def _has_numbers(node: Node) -> bool:
    """Whether a numbered container that carries parameters lies at `node` or below."""
    numbered = node.children and all(child.name.isdigit() for child in node.children)
    return bool(numbered and node.has_parameters) or any(map(_has_numbers, node.children))
