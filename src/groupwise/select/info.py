"""What a selector may know of a parameter: plain data, so that a choice can be tested, printed and replayed.

A parameter is one tensor with one or more *occurrences* in the model. Tying is why the two are apart: a decoder that
shares the word table is one thing to optimise, found under two names, in two layers, with two sets of roles. What
belongs to the tensor (shape, gradient, statistics, tags) is on the `ParameterInfo`; what belongs to where it is held is
on its `Occurrence`s, and the parameter's roles are the union over them.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from groupwise.errors import within
from groupwise.select.globs import dotted
from groupwise.select.part import Part
from groupwise.select.statistics import measured

ROLES = ("weight", "bias", "norm", "embedding", "matrix", "conv", "head", "expert", "router", "scalar", "stack")
"""What a parameter may be for; `roles` says how it is guessed."""

Reasons = tuple[tuple[str, str], ...]  # (role, why) pairs


class Basis(NamedTuple):
    """What roles and depth rest on where a forward pass was looked at.

    Args:
        where: the device that it ran on.
        guessed: why they are guessed all the same; empty where they were seen.
        reached: whether any operation used the parameter.
    """

    where: str
    guessed: str = ""
    reached: bool = True

    def __str__(self) -> str:
        return f"guessed, {self.guessed}" if self.guessed else f"seen in a forward on {self.where}"


@functools.lru_cache(maxsize=4096)
def _roles_in(reasons: Reasons) -> frozenset[str]:
    return frozenset([role for role, _ in reasons])


@final
@dataclass(frozen=True, slots=True)
class Occurrence:
    """One name of a parameter, and what surrounds it there.

    Args:
        name: the canonical dotted name, the network in front where a mapping gave one; no wrapper's prefix.
        module: the dotted path of the layer that holds it; empty at the root.
        kinds: class names of that layer, its own first, then its bases'; empty for a parameter that no layer holds.
        ancestors: class names (bases included) of every module that encloses the parameter, its own layer included.
        network: the key of the mapping that the model came from; empty for a single model.
        depth: its level, 0 (stem) and upward.
        reasons: why it has each of its roles here.
        aliases: names that selectors find it by as well: `layer.weight` for `layer.parametrizations.weight.original`.
        multiplied: why it would be a `matrix` if no other use spoke against it; empty where nothing says so.
        depth_without_plan: its level before a plan stated `depth`; None where none did.
    """

    name: str
    module: str = ""
    kinds: tuple[str, ...] = ()
    ancestors: frozenset[str] = frozenset()
    network: str = ""
    depth: int = 0
    reasons: Reasons = ()
    aliases: tuple[str, ...] = ()
    multiplied: str = field(default="", compare=False, repr=False)
    depth_without_plan: int | None = field(default=None, compare=False, repr=False)

    @property
    def roles(self) -> frozenset[str]:
        """The roles that the parameter has here."""
        return _roles_in(self.reasons)


@final
@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """One parameter, however many names it has.

    Args:
        places: where it is held, in module order; the first gives `name`, `network` and `depth`.
        shape: its sizes; the whole tensor's, not a shard's.
        requires_grad: whether it is trainable at the time of the walk.
        sparse: whether its gradient will be sparse (an embedding made with `sparse=True`).
        tags: the caller's own words for it.
        parameter: the tensor or variable itself; no part of equality.
        basis: what its roles and depth rest on, where there was an example to look at; no part of equality.
        part: which part of its tensor it is, where a plan takes parameters apart; `shape` is then that of each matrix.
    """

    occurrences: tuple[Occurrence, ...]
    shape: tuple[int, ...]
    requires_grad: bool = True
    sparse: bool = False
    tags: frozenset[str] = frozenset()
    parameter: Any = field(default=None, compare=False, repr=False)
    basis: Basis | None = field(default=None, compare=False, repr=False)
    part: Part | None = None
    roles: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        roles = _roles_in(self.occurrences[0].reasons)
        for other in self.occurrences[1:]:
            roles |= other.roles
        object.__setattr__(self, "roles", roles)

    @property
    def name(self) -> str:
        """Its first name."""
        return self.occurrences[0].name

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, the first one first; what state and checkpoints know it by."""
        return tuple([occurrence.name for occurrence in self.occurrences])

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names by which selectors find it as well: a parametrized tensor's plain one, which others may share."""
        return tuple([alias for occurrence in self.occurrences for alias in occurrence.aliases])

    @property
    def spellings(self) -> tuple[str, ...]:
        """Its names and aliases as globs read them."""
        return tuple(map(dotted, (*self.names, *self.aliases)))

    @property
    def network(self) -> str:
        """The network of its first place."""
        return self.occurrences[0].network

    @property
    def depth(self) -> int:
        """The depth of its first place."""
        return self.occurrences[0].depth

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def numel(self) -> int:
        """The number of elements, of all the matrices of a stack."""
        return math.prod(self.shape) * (self.part.count if self.part is not None else 1)

    @property
    def reasons(self) -> dict[str, str]:
        """Role to reason, over all places; where a role has several, the first place's."""
        return {role: why for occurrence in reversed(self.occurrences) for role, why in occurrence.reasons}

    def statistic(self, name: str) -> float:
        """The present value of a statistic, computed anew at each call.

        Args:
            name: one of `STATISTICS`: mean_abs, norm, rms, std, max_abs, sparsity (share of exact zeros), grad_norm,
                grad_mean_abs. Those of a gradient are nan, which is neither above nor below anything, where there is
                no gradient: absent is not zero.

        Raises:
            SelectorError: the name is none of them, or the parameter has no values (it lives on `meta`).
        """
        with within(f"parameter {self.name!r}"):
            return measured(self.parameter, name, self.part)
