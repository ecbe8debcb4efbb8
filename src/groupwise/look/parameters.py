"""A model's parameters, with what one forward pass shows of them if there is an example.

Without one nothing is run, and what runs models is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping

from groupwise import select
from groupwise.look.example import Example, Model
from groupwise.select import ParameterInfo
from groupwise.select.declared import Declared, DeclaredDepth


def parameters_of(
    model: Model,
    roles: Mapping[str, Declared] | None = None,
    tags: Mapping[str, Declared] | None = None,
    depth: DeclaredDepth | None = None,
    example: Example | None = None,
) -> tuple[ParameterInfo, ...]:
    """Every parameter of a model, frozen ones included, once each, in module order.

    Args:
        model, roles, tags, depth: as for `groupwise.select.parameters_of`.
        example: what the model is run on, once, to see roles and depth in place of guessing them from names: a tensor,
            a tuple of arguments, a dict of keyword arguments, or a function that takes the model and returns outputs
            or a loss. Real tensors do for a model on `meta`. Nothing of the model changes.

    Raises:
        SelectorError: as for `groupwise.select.parameters_of`; the example is of no such form, or the model cannot be
            run on it; or the model is sharded.

    Example:
        >>> from torch import nn, zeros
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [(info.name, info.depth) for info in parameters_of(model, example=zeros(1, 4)) if "head" in info.roles]
        [('2.weight', 2), ('2.bias', 2)]
    """
    if example is None:
        return select.parameters_of(model, roles, tags, depth)
    from groupwise.look.api import look

    return select.parameters_of(model, roles, tags, depth, look(model, example))
