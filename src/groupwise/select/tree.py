"""A model as a tree of named layers: all that roles, heads and depth need to know of it.

Whatever a framework's walk has to see through (wrappers, parametrizations, lists of parameters) it sees through when it
builds this tree; everything above reads the tree alone, so a tree built by hand, or from Keras layers, is described in
the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, final


class OwnParameter(NamedTuple):
    """A parameter as its layer holds it: its name below the layer, its telling last word, the tensor, other names."""

    name: str
    leaf: str
    tensor: Any
    aliases: tuple[str, ...] = ()


@final
@dataclass(slots=True)
class Node:
    """A layer: its own parameters, and the layers below it, both in order of registration.

    Args:
        name: its name in its parent, empty at the root.
        path: its dotted name from the root of its network.
        kinds: class names, its own first, then its bases'.
        held: its own parameters.
        children: the layers below.
        features: sizes in and out of a linear layer, None where they are unknown.
        sparse: whether its gradients will be sparse.
    """

    name: str
    path: str
    kinds: tuple[str, ...]
    held: tuple[OwnParameter, ...] = ()
    children: tuple[Node, ...] = ()
    features: tuple[int | None, int | None] = (None, None)
    sparse: bool = False
    has_parameters: bool = field(init=False)

    def __post_init__(self) -> None:
        self.has_parameters = bool(self.held) or any(child.has_parameters for child in self.children)
