"""One operation as it ran, and what comes out of one that no parameter takes part in.

Arguments of which no one is a parameter only hand on where the data came from; what is computed from parameters alone
stays a form of them. Scores that a softmax, a sort or a top-k was taken of have chosen what is gathered or weighted by
them, which is what tells a router from other products; a sum with data that was not chosen ends that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias, final

import torch

from groupwise.look.flow import Flow
from groupwise.look.names import CHOICES, CURVES, ELEMENTWISE_PRODUCTS, NORMS, PRODUCTS, REDUCTIONS, SCATTERS, SUMS
from groupwise.look.provenance import CONSTANT, DATA, Norming, Value, bits, joined


@final
@dataclass(frozen=True, slots=True)
class Given:
    """One tensor that an operation takes: the argument's name, the tensor, what is known of it."""

    name: str
    tensor: torch.Tensor
    value: Value


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as it ran; `name` is without namespace and overload."""

    name: str
    given: tuple[Given, ...]
    results: tuple[torch.Tensor, ...]

    @property
    def size(self) -> int:
        """The number of entries of the largest result."""
        return max((result.numel() for result in self.results), default=0)

    @property
    def formed(self) -> list[Given]:
        """What is made of parameters alone."""
        return [given for given in self.given if given.value.forms]


Handler: TypeAlias = Callable[[Operation, Flow], Value]


def plain(name: str) -> str:
    """The name of the operation that is not in place."""
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def owners(formed: Iterable[Given], flow: Flow) -> int:
    """Whose weights these are."""
    found = 0
    for given in formed:
        found |= flow.owners(given.value.forms)
    return found


def used(given: Given) -> list[int]:
    """The parameters that a tensor is made of, but for those that were only reduced."""
    return [i for i, how in given.value.forms if how != "statistic"]


def applied(formed: Iterable[Given]) -> int:
    """The same of several, as a set."""
    return bits(i for given in formed for i in used(given))


def of_data(operation: Operation, flow: Flow) -> Value:
    """What comes out of data and constants alone."""
    found, name = joined(given.value for given in operation.given), plain(operation.name)
    if not operation.given:
        return DATA if name.startswith(("rand", "normal", "bernoulli")) else CONSTANT
    if not found.is_data:
        return found
    if name in ELEMENTWISE_PRODUCTS:
        return _weighted(operation, replace(found, normed=_norming(operation)), flow)
    if name in PRODUCTS:
        return replace(_weighted(operation, found, flow), statistic=0, normed="", last=0, width=0, chosen=0)
    if name in REDUCTIONS:
        chosen = 0 if _is_real(operation) else found.chosen
        return replace(found, statistic=found.statistic + 1, normed="", chosen=chosen)
    if name in NORMS:
        return replace(found, statistic=0, normed="unit")
    return _chosen(operation, name, found.through(name))


def of_parameters(operation: Operation) -> Value:
    """What comes out of parameters and constants alone, where nothing else is known of the operation."""
    found = joined(given.value for given in operation.given)
    return found.formed("curved") if plain(operation.name) in CURVES else found


def _norming(operation: Operation) -> Norming:
    """`x * rsqrt(mean(x²))`: a product of data and what was reduced of it is normed, and so is what that multiplies."""
    values = [given.value for given in operation.given if given.value.is_data]
    return "unit" if len({value.statistic for value in values}) == 2 or any(v.normed for v in values) else ""


def _chosen(operation: Operation, name: str, found: Value) -> Value:
    """With what has chosen it: a choice is one of the scores that the last product gave, if these are several."""
    if name in CHOICES and found.width > 1:
        return replace(found, chosen=found.chosen | found.last)
    if name == "sigmoid" and found.width == 1:  # a gate
        return replace(found, chosen=found.chosen | found.last)
    if not found.chosen:
        return found
    if name in SUMS:
        return replace(found, chosen=_in_common(operation))
    if name in SCATTERS:
        return replace(found, chosen=joined(g.value for g in operation.given if _is_number(g.tensor)).chosen)
    return found


def _in_common(operation: Operation) -> int:
    found = -1
    for given in operation.given:
        found &= given.value.chosen if given.value.is_data else -1
    return found


def _weighted(operation: Operation, found: Value, flow: Flow) -> Value:
    """A product of data: what it takes of a choice of scores has weighted what it takes of other products."""
    if not found.chosen:
        return found
    for given in operation.given:
        others = [other.value.chosen for other in operation.given if other is not given]
        for chosen in others:
            if chosen & ~given.value.chosen and given.value.last & ~chosen:
                flow.weigh(given.value.last, chosen)
                found = replace(found, chosen=0)
    return found


def _is_real(operation: Operation) -> bool:
    return any(map(_is_number, operation.results))


def _is_number(tensor: torch.Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def is_answer(operation: Operation) -> bool:
    """Whether only whole numbers come out of it."""
    return bool(operation.results) and not _is_real(operation)


def entries(shape: Iterable[int]) -> int:
    """How many entries a tensor of a shape has."""
    return math.prod(shape)
