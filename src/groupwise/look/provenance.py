"""Where a tensor comes from: known by the memory that it lies in, since views are new objects.

A tensor is a *form* of parameters (a view, a cast, `v * g / |v|`), or *data*, which depends on parameters that were
applied to it, or neither: a constant, an input. Sets of parameters are the bits of an integer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias, final

import torch

from groupwise._torch import storage_key
from groupwise._weakly import storage_weakly

As: TypeAlias = Literal["itself", "rows", "curved", "scale", "shift", "statistic"]
"""How a parameter stands in a tensor that is made of parameters alone.

`rows` are gathered from it; `curved`, it went through exp, log or the like; a `scale` multiplies a larger one, or is
the curved factor of another; a `shift` is added to it; a `statistic` is reduced.
"""

Norming: TypeAlias = Literal["", "unit", "gained"]
"""Whether data was scaled by a reduction of itself, and whether a gain has multiplied it since."""

Forms: TypeAlias = "tuple[tuple[int, As], ...]"
"""Each parameter that a tensor is made of, and how."""

_VIEWED: Final = frozenset(
    {
        "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "chunk", "clone", "contiguous", "detach", "expand",
        "lift_fresh", "permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose",
        "unbind", "unsafe_chunk", "unsafe_split", "unsqueeze", "view", "view_as_complex", "view_as_real",
    }
)  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor.

    Args:
        forms: (parameter, how) of each parameter that it is made of, if of nothing else.
        is_data: whether it is data.
        sources: the parameters that the data depends on.
        products: those of them that a product multiplied it by.
        last: those that the last product multiplied it by.
        width: how many features that product gave.
        statistic: how many times it was reduced since the last parameter was applied.
        normed: whether it was normalised.
        chosen: the parameters whose scores chose it: by softmax, sort or top-k of what a product with them gave.
    """

    forms: Forms = ()
    is_data: bool = False
    sources: int = 0
    products: int = 0
    last: int = 0
    width: int = 0
    statistic: int = 0
    normed: Norming = ""
    chosen: int = 0

    @property
    def made_of(self) -> int:
        """The parameters of its forms."""
        return bits(i for i, _ in self.forms)

    def as_data(self) -> Value:
        """The same as data that its parameters went into."""
        if not self.forms:
            return self if self.is_data else DATA
        return Value(is_data=True, sources=self.sources | self.made_of, chosen=self.chosen)

    def formed(self, how: As) -> Value:
        """The same with every parameter that is there itself, or curved, being there as `how`."""
        return replace(self, forms=tuple((i, how if old in ("itself", "curved") else old) for i, old in self.forms))

    def through(self, operation: str) -> Value:
        """After an operation on it alone."""
        return replace(self, normed="") if self.normed and operation not in _VIEWED else self


CONSTANT: Final = Value()
DATA: Final = Value(is_data=True)


def bits(indices: Iterable[int]) -> int:
    """A set of parameters as an integer."""
    found = 0
    for i in indices:
        found |= 1 << i
    return found


def indices(mask: int) -> list[int]:
    """The parameters of a set."""
    return [i for i, bit in enumerate(reversed(f"{mask:b}")) if bit == "1"]


def joined(values: Iterable[Value]) -> Value:
    """Of what is computed from several: data if any is, else made of the parameters of all of them."""
    given = [value for value in values if value is not CONSTANT]
    if len(given) < 2:
        return given[0] if given else CONSTANT
    chosen = 0
    for value in given:
        chosen |= value.chosen
    if not any(value.is_data for value in given):
        return Value(forms=tuple(dict.fromkeys(form for value in given for form in value.forms)), chosen=chosen)
    found = [value.as_data() for value in given]
    sources, products, last = 0, 0, 0
    for value in found:
        sources, products, last = sources | value.sources, products | value.products, last | value.last
    statistic = min(value.statistic for value in found)
    return Value((), True, sources, products, last, max(value.width for value in found), statistic, chosen=chosen)


@final
@dataclass(slots=True)
class _Memory:
    """One storage: its values by offset, and what was written into it since."""

    alive: object
    values: dict[int, Value] = field(default_factory=dict)
    written: Value = CONSTANT


@final
@dataclass(slots=True)
class Provenance:
    """The values of all tensors of one run.

    Args:
        parameters: by storage, the (offset, size, index) of each parameter in it.
        constants: the storages of what else the model holds: buffers, tensors that are attributes.
    """

    parameters: dict[int, list[tuple[int, int, int]]]
    constants: frozenset[int]
    _made: dict[int, _Memory] = field(default_factory=dict)
    left: Value = CONSTANT
    _outside: dict[int, tuple[object, Value]] = field(default_factory=dict)
    _written_outside: set[int] = field(default_factory=set)

    def of(self, tensor: torch.Tensor) -> Value:
        """What is known of a tensor; what came from outside of model and run is data."""
        key = memory_key(tensor)
        memory = self._made.get(key)
        if memory is not None:
            found = memory.values.get(offset_of(tensor))
            found = found if found is not None else joined(memory.values.values())
            return joined([found, memory.written])
        if key in self.parameters:
            return self._parameter(tensor, self.parameters[key])
        if key in self.constants:
            return CONSTANT
        if key not in self._outside:
            alive = tensor if key < 0 else storage_weakly(tensor)
            self._outside[key] = alive, joined([DATA, self.left])
        return self._outside[key][1]

    def leave(self, tensor: torch.Tensor) -> None:
        """A tensor whose values leave torch: what comes in from outside later may have been computed from them."""
        self.left = joined([self.left, self.of(tensor).as_data()])

    def is_made(self, tensor: torch.Tensor) -> bool:
        """Whether the run made the memory of a tensor, so that it may write into it."""
        key = memory_key(tensor)
        return key in self._made and key not in self._written_outside

    def note(self, tensor: torch.Tensor, value: Value) -> None:
        """A tensor in memory that the run made."""
        memory = self._memory(tensor)
        memory.values[offset_of(tensor)] = value

    def wrote(self, tensor: torch.Tensor, value: Value) -> None:
        """A tensor that an operation wrote into; all views of its memory hold it from now on."""
        key = memory_key(tensor)
        if key not in self._made:
            self._written_outside.add(key)
            before = self.of(tensor)
            self._memory(tensor).written = before
        memory = self._memory(tensor)
        memory.written = joined([memory.written, value])

    def _memory(self, tensor: torch.Tensor) -> _Memory:
        key = memory_key(tensor)
        if key not in self._made:
            self._made[key] = _Memory(tensor if key < 0 else storage_weakly(tensor))
        return self._made[key]

    @staticmethod
    def _parameter(tensor: torch.Tensor, held: list[tuple[int, int, int]]) -> Value:
        """By its place in the storage; several parameters may lie in one."""
        at = offset_of(tensor)
        found = [i for start, size, i in held if start <= at < start + max(size, 1)] or [i for _, _, i in held]
        return Value(forms=tuple((i, "itself") for i in found))


def memory_key(tensor: torch.Tensor) -> int:
    """A number for the memory of a tensor; below zero, one for the tensor alone, where it has no storage of its own."""
    if tensor.layout is not torch.strided:
        return -id(tensor)
    try:
        return storage_key(tensor)
    except (NotImplementedError, RuntimeError):  # a subclass of several tensors
        return -id(tensor)


def offset_of(tensor: torch.Tensor) -> int:
    """Where in its memory a tensor begins."""
    return int(tensor.storage_offset()) if tensor.layout is torch.strided else 0
