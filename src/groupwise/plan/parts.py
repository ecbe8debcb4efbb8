"""Parts of a parameter: one tensor that holds several logical matrices, taken apart for the rules.

Fused q, k and v, gate and up in one projection, the experts of a mixture in one tensor, the kernel of a convolution:
what an algorithm should see is not the tensor that a layer happens to keep. A plan says how a tensor is to be read, and
its rules then meet the parts in the tensor's place, each a parameter of its own with a name, a shape and roles. The
name of the whole is another name of every part, so a rule that speaks of the whole speaks of them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from groupwise._misuse import explained
from groupwise._pickling import Public, Reduced
from groupwise._spelling import counted, shown
from groupwise.errors import PlanError, ResolutionError, listed, within
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.rule import LONGEST_NAME
from groupwise.select import Occurrence, ParameterInfo, Part, Selector, nearest, selector
from groupwise.select.part import SEPARATOR
from groupwise.select.selectors import Match

PARTS_FIELDS: Final = ("match", "axis", "into", "sizes", "stack", "flatten", "optional")
"""The arguments of `Parts`, and the keys of a `[[parts]]` table."""

_NO_MATRIX: Final = frozenset({"bias", "norm", "embedding", "head", "router", "scalar", "matrix"})
"""Roles by which two dimensions are no matrix, and the role itself."""

_LEAVE_OUT: Final = "leave it out of the match, as with ndim({0}), in a file ndim = {0}"


@dataclass(frozen=True, init=False)
class Parts:
    """How the parameters that `match` selects are taken apart: split along an axis, stacked, or read as a matrix.

    A split names its parts, which rules then match behind an `@`, as in `"*.qkv.weight@q"`; the parameter's own name
    matches all of them. A stack or a flattened kernel that is not split keeps its name.

    Args:
        match: a selector, a glob over dotted names, or a list of them.
        axis: the dimension that a split runs along, from 0, or from -1 backwards; 0 by default.
        into: the names of the parts, in their order along the axis.
        sizes: the size of each part; without it all are equal.
        stack: read it as a batch of matrices, those of its last two dimensions: the experts of a mixture.
        flatten: read it as one matrix, its first `flatten` dimensions being the rows: 1 for a convolution of torch.
        optional: whether it may match nothing.

    Raises:
        PlanError: nothing of this is said, or it cannot be meant together.

    Example:
        >>> Parts("*.qkv.weight", into=["q", "k", "v"])
        Parts('*.qkv.weight', axis=0, into=['q', 'k', 'v'])
        >>> Parts("*.experts.gate_up_proj", axis=1, into=["gate", "up"], stack=True)
        Parts('*.experts.gate_up_proj', axis=1, into=['gate', 'up'], stack=True)
    """

    match: Selector
    axis: int
    into: tuple[str, ...]
    sizes: tuple[int, ...] | None
    stack: bool
    flatten: int
    optional: bool

    @explained(
        PlanError,
        "Parts",
        {"dim": "say axis=", "names": "say into=[…]", "parts": "say into=[…]", "splits": "say sizes=[…]"},
        'after what it matches, everything has its name: Parts("*.qkv.weight", axis=0, into=["q", "k", "v"])',
    )
    def __init__(
        self,
        match: Match,
        *,
        axis: int | None = None,
        into: Sequence[str] = (),
        sizes: Sequence[int] | None = None,
        stack: bool = False,
        flatten: int = 0,
        optional: bool = False,
    ) -> None:
        chosen = selector(match)
        with within(f"parts of {chosen}"):
            fields = {
                "match": chosen,
                "axis": 0 if axis is None else _whole_number("axis", axis, least=None),
                "into": _names(into),
                "sizes": None if sizes is None else _sizes(sizes),
                "stack": _bool("stack", stack),
                "flatten": _whole_number("flatten", flatten, least=0),
                "optional": _bool("optional", optional),
            }
            for name, value in fields.items():
                object.__setattr__(self, name, value)
            self._check(axis is not None)

    def _check(self, has_axis: bool) -> None:
        if not (self.into or self.stack or self.flatten):
            raise PlanError(
                'nothing is taken apart: say into=["q", "k", "v"] (with axis=) for a split, stack=True for a batch of '
                "matrices, flatten=1 for a kernel that is read as a matrix"
            )
        if not self.into and (has_axis or self.sizes is not None):
            raise PlanError("axis and sizes belong to a split: name its parts, as in into=['q', 'k', 'v']")
        if self.sizes is not None and len(self.sizes) != len(self.into):
            raise PlanError(f"{counted(len(self.sizes), 'size')} for {counted(len(self.into), 'part')}: give one each")
        if self.stack and self.flatten:
            raise PlanError("a stack is of matrices, so nothing is left to flatten: say stack or flatten")

    @property
    def options(self) -> dict[str, Any]:
        """What is said besides the match, as plain data: the arguments of `Parts`."""
        split = {"axis": self.axis, "into": list(self.into)} if self.into else {}
        sizes = {} if self.sizes is None else {"sizes": list(self.sizes)}
        rest = {"stack": self.stack, "flatten": self.flatten, "optional": self.optional}
        return {**split, **sizes, **{name: value for name, value in rest.items() if value}}

    def of(self, shape: tuple[int, ...]) -> tuple[Part, ...]:
        """The parts of a parameter of that shape. Raises `ResolutionError` where it has no such parts."""
        _check_rank(self, shape)
        if not self.into:
            return (Part(shape, stack=self.stack, flatten=self.flatten),)
        axis = _axis(self, shape)
        parts, start = [], 0
        for name, size in zip(self.into, _along(self, shape, axis), strict=True):
            parts.append(Part(shape, name, axis, start, start + size, self.stack, self.flatten))
            start += size
        return tuple(parts)

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"Parts({', '.join([repr(str(self.match)), *options])})"

    def __reduce__(self) -> Reduced:
        return Public("groupwise.plan:Parts", self.options), (self.match,)


def taken_apart(
    parts: Sequence[Parts], parameters: Sequence[ParameterInfo], mistakes: Mistakes
) -> list[tuple[ParameterInfo, ...]]:
    """For each parameter what the rules meet in its place: its parts, or itself alone. Mistakes are collected."""
    pieces: list[tuple[ParameterInfo, ...]] = [(info,) for info in parameters]
    owners: dict[str, Parts] = {}
    for i, own in enumerate(parts):
        matched = [p for p, info in enumerate(parameters) if own.match.matches(info)]
        place = f"parts {i + 1} ({own.match})"
        if not matched and not own.optional:
            with mistakes.collecting():
                raise ResolutionError(_matches_nothing(place, own, parameters))
        for p in matched:
            info = parameters[p]
            with mistakes.collecting(info.name), within(f"{place}, for {info.name!r}"):
                if info.name in owners:
                    raise ResolutionError(
                        f"the parts of {owners[info.name].match} are its parts already, and parts do not overlap: "
                        "take it out of one of them, or say both in one"
                    )
                owners[info.name] = own
                pieces[p] = _pieces(info, own.of(info.shape))
    return pieces


def checked_parts(parts: object) -> tuple[Parts, ...]:
    """The `parts` of a plan. Raises `PlanError` for anything but a list of them."""
    if parts is None:
        return ()
    if not isinstance(parts, list | tuple):
        raise PlanError(f"parts is a list: parts=[Parts(…), …], not {shown(parts)}")
    for own in parts:
        if not isinstance(own, Parts):
            raise PlanError(f"parts are Parts(match, axis=…, into=[…]) each, not {shown(own)}")
    return tuple(parts)


def name_of_whole(info: ParameterInfo) -> str:
    """The name of the parameter that a part is of."""
    part = info.part
    return info.name.removesuffix(f"{SEPARATOR}{part.name}") if part is not None and part.name else info.name


def _pieces(info: ParameterInfo, parts: Sequence[Part]) -> tuple[ParameterInfo, ...]:
    return tuple(
        replace(info, occurrences=tuple(_place(o, part, info) for o in info.occurrences), shape=part.shape, part=part)
        for part in parts
    )


def _place(occurrence: Occurrence, part: Part, info: ParameterInfo) -> Occurrence:
    """An occurrence of a parameter as one of a part of it: another name, and the role of the matrix that it is."""
    reasons = occurrence.reasons
    if (part.stack or part.flatten) and min(part.shape) > 1 and not info.roles & _NO_MATRIX:
        reasons = (*reasons, ("matrix", f"the plan reads it so: {part}"))
    if not part.name:
        return replace(occurrence, reasons=reasons)
    behind = f"{SEPARATOR}{part.name}"
    aliases = (occurrence.name, *(alias + behind for alias in occurrence.aliases), *occurrence.aliases)
    return replace(occurrence, name=occurrence.name + behind, aliases=aliases, reasons=reasons)


def _check_rank(parts: Parts, shape: tuple[int, ...]) -> None:
    rank = len(shape)
    if parts.stack and rank < 3:
        raise ResolutionError(
            f"a stack of matrices has at least three dimensions, and its shape is {shape}: {_LEAVE_OUT.format(3)}"
        )
    if parts.flatten and rank < 3:
        raise ResolutionError(
            f"flatten={parts.flatten} makes a matrix of three dimensions or more, and its shape is {shape}: "
            f"{_LEAVE_OUT.format(4)}"
        )
    if parts.flatten and parts.flatten >= rank:
        raise ResolutionError(
            f"flatten={parts.flatten} leaves no columns of the {rank} dimensions of its shape {shape}: it is at most "
            f"{rank - 1}, and 1 for a convolution of torch"
        )


def _axis(parts: Parts, shape: tuple[int, ...]) -> int:
    rank = len(shape)
    if not -rank <= parts.axis < rank:
        raise ResolutionError(f"axis {parts.axis} is out of range: its shape is {shape}, with {rank} dimensions")
    axis = parts.axis % rank
    if parts.stack and axis < rank - 2:
        raise ResolutionError(
            f"axis {parts.axis} runs along the stack; a split of its matrices is along axis {rank - 2} or {rank - 1} "
            f"of the shape {shape}"
        )
    return axis


def _along(parts: Parts, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The sizes of the parts along the axis."""
    size, count = shape[axis], len(parts.into)
    if parts.sizes is not None:
        if sum(parts.sizes) != size:
            sums = " + ".join(map(str, parts.sizes))
            raise ResolutionError(f"the sizes {sums} make {sum(parts.sizes)}, and axis {axis} of {shape} has {size}")
        return parts.sizes
    if size % count or not size:
        raise ResolutionError(
            f"axis {axis} of {shape} has {size}, which does not divide into {count} equal parts: give their sizes, as "
            f"sizes=[…] for {listed(parts.into)}"
        )
    return (size // count,) * count


def _matches_nothing(place: str, own: Parts, parameters: Sequence[ParameterInfo]) -> str:
    close = nearest(own.match, parameters)
    hint = f"nearest: {listed(close, 5)}" if close else f"names look like {listed((p.name for p in parameters), 3)}"
    return f"{place} matches no parameter; {hint}; say optional=True if that is meant"


def _names(into: object) -> tuple[str, ...]:
    if isinstance(into, str | Mapping) or not isinstance(into, list | tuple):
        raise PlanError(f'into is a list of names, such as ["q", "k", "v"], not {shown(into)}')
    for name in into:
        if not isinstance(name, str) or not name.isidentifier() or len(name) > LONGEST_NAME:
            raise PlanError(f"{shown(name)} is not the name of a part: write it as one word")
    if len(into) == 1:
        raise PlanError(f"a split has two parts at least, not {shown(into[0])} alone")
    twice = [name for i, name in enumerate(into) if name in into[:i]]
    if twice:
        raise PlanError(f"two parts are called {shown(twice[0])}")
    return tuple(into)


def _sizes(sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, list | tuple):
        raise PlanError(f"sizes is a list with the size of each part, not {shown(sizes)}")
    return tuple(_whole_number("the size of a part", size, least=1) for size in sizes)


def _whole_number(what: str, value: object, least: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        kind = "a whole number" if least is None else f"a whole number from {least} upward"
        raise PlanError(f"{what} is {kind}, not {shown(value)}")
    return value


def _bool(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise PlanError(f"{what} is True or False, not {shown(value)}")
    return value
