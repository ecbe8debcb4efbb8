"""Factors of shape: how a value follows the size of the layer, or the number of blocks.

    fan_in(256, power=-1)    (fan-in / 256)^-1        what enters a unit, against 256 in the model that was tuned
    fan_out(256, power=1)    (fan-out / 256)^1        what it gives
    blocks(12, power=-1)     (blocks / 12)^-1         the levels that the rule matches, network by network

muP's rates under Adam are `fan_in(base)` for what multiplies hidden units, and no factor elsewhere (Yang et al. 2022,
Tensor Programs V, table 3); CompleteP has rates, eps and decay in width and depth (Dey et al. 2025, table 1).

What a fan is depends on which axis of a weight the data enters by, and that is said by the layer's class: torch's dense
and recurrent layers hold (out, in), its convolutions (out, in / groups, kernel), of which both fans count the kernel as
`torch.nn.init` does; GPT-2's `Conv1D` and Keras' layers hold (in, out). A table of rows is looked up, so it has a
fan-out, its width, and no fan-in; a vector has a fan-out, its length. Anything else is refused unless `axis` says it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from groupwise._pickling import Public, Reduced
from groupwise._spelling import number, shown
from groupwise.errors import PlanError, ResolutionError
from groupwise.plan.declarations import Factor, Multiplier, finite
from groupwise.select import ParameterInfo

Of: TypeAlias = Literal["fan_in", "fan_out", "blocks"]
OF_SHAPE: Final[tuple[Of, ...]] = ("fan_in", "fan_out", "blocks")

_RECURRENT: Final = frozenset({"RNNBase", "RNNCellBase", "DropoutRNNCell", "MultiheadAttention"})
_UNKNOWN: Final = "say which of its axes the data enters by: fan_in(…, axis=0), or keep it out of the rule"


@dataclass(frozen=True)
class ShapeFactor(Factor):
    """(size / base)^power."""

    of: Of
    base: float
    power: float = -1.0
    axis: int | None = None

    @property
    def counts_levels(self) -> bool:
        """Whether it depends on how many levels its rule matches."""
        return self.of == "blocks"

    def key(self, info: ParameterInfo) -> object:
        """Its shape and its layer, which say its fans."""
        place = info.occurrences[0]
        return None if self.counts_levels else (info.shape, place.kinds, info.roles)

    def multiplier(self, info: ParameterInfo, below_top: int, levels: int = 1) -> Multiplier:
        """`(size / base) ** power`. Raises `ResolutionError` where the parameter has no such size."""
        size = levels if self.of == "blocks" else fan(info, self.of, self.axis)
        try:
            by = (size / self.base) ** self.power
        except OverflowError as error:
            raise ResolutionError(f"{self} is too large a number for {info.name!r}: its size is {size}") from error
        return Multiplier(by, f"({size}/{number(self.base)})^{number(self.power)}", f"{self.of} {size}")

    def options(self) -> dict[str, object]:
        """What is declared besides the base, as arguments of its function."""
        axis = {} if self.axis is None else {"axis": self.axis}
        return {"power": self.power, **axis}

    def __str__(self) -> str:
        options = [f"{name}={number(value) if isinstance(value, float) else value}" for name, value in
                   self.options().items()]  # fmt: skip
        return f"{self.of}({', '.join([number(self.base), *options])})"

    def __reduce__(self) -> Reduced:
        return Public(f"groupwise.plan:{self.of}", self.options()), (self.base,)


def fan_in(base: float, power: float = -1.0, *, axis: int | None = None) -> Factor:
    """A factor (fan-in / base)^power: of muP's rates, with the width of the model that was tuned as `base`.

    Args:
        base: the fan-in at which the factor is 1, above 0.
        power: of the ratio.
        axis: the axis of the weight that the data enters by, where the layer's class does not say it (stacks of
            experts, a bare parameter). The fan-in is then its size.

    Raises:
        PlanError: a value out of bounds. When it is resolved, `ResolutionError` for a parameter without a fan-in.

    Example:
        >>> from groupwise.plan import Rule, fan_in
        >>> print(Rule("blocks.*", lr=fan_in(256)).declarations["lr"])
        fan_in(256, power=-1)
    """
    return _made("fan_in", base, power, axis)


def fan_out(base: float, power: float = -1.0, *, axis: int | None = None) -> Factor:
    """A factor (fan-out / base)^power: what a layer gives, the width of a table, the length of a vector.

    Args:
        base: the fan-out at which the factor is 1, above 0.
        power: of the ratio.
        axis: the axis of the weight that counts what is given, where the layer's class does not say it.

    Raises:
        PlanError: a value out of bounds. When it is resolved, `ResolutionError` for a parameter without a fan-out.
    """
    return _made("fan_out", base, power, axis)


def blocks(base: float, power: float = -1.0) -> Factor:
    """A factor (blocks / base)^power, the blocks being the levels that the rule matches, in each network.

    A rule for "blocks.*" counts the blocks; one for "*" counts stem and head as levels as well.

    Args:
        base: the number of blocks at which the factor is 1, above 0.
        power: of the ratio.

    Raises:
        PlanError: a value out of bounds.
    """
    return _made("blocks", base, power, None)


def _made(of: Of, base: object, power: object, axis: object) -> ShapeFactor:
    if finite(f"{of}'s base", base) <= 0:
        raise PlanError(f"{of}'s base is a size above 0, not {shown(base)}")
    if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
        raise PlanError(f"{of}'s axis is a whole number, not {shown(axis)}")
    return ShapeFactor(of, finite(f"{of}'s base", base), finite(f"{of}'s power", power), axis)


def fan(info: ParameterInfo, of: Of, axis: int | None = None) -> int:
    """The fan-in or fan-out of a parameter; with `axis` the size of that axis.

    Raises `ResolutionError` where it has none, or where its layer does not say which axis it is.
    """
    shape, word = info.shape, of.replace("_", "-")
    if axis is not None:
        if not -len(shape) <= axis < len(shape):
            raise ResolutionError(f"{info.name!r} has shape {shape}, and no axis {axis} for its {word}")
        return _positive(info, word, shape[axis])
    if len(shape) < 2 or info.roles & {"embedding", "scalar", "bias"}:
        if of == "fan_out" and shape and "scalar" not in info.roles:
            return _positive(info, word, shape[-1])
        what = "is a table of rows, which is looked up" if "embedding" in info.roles else "multiplies no vector"
        raise ResolutionError(f"{info.name!r}, of shape {shape}, {what}: it has no {word}; keep it out of the rule")
    entering, given = _axes(info, word)
    return _positive(info, word, entering if of == "fan_in" else given)


def _axes(info: ParameterInfo, word: str) -> tuple[int, int]:
    """What enters and what is given, by the convention of the layer's class; Keras calls a weight a kernel."""
    from groupwise.select.vocabulary import is_conv, is_linear  # many patterns, for the few plans that ask

    shape, kinds = info.shape, info.occurrences[0].kinds
    into_out = info.name.endswith("kernel") or "Conv1D" in kinds
    if is_conv(kinds) and not any(word in kind for kind in kinds for word in ("Transpose", "BaseDepthwise")):
        kernel = math.prod(shape[:-2] if into_out else shape[2:])
        return (shape[-2] * kernel, shape[-1] * kernel) if into_out else (shape[1] * kernel, shape[0] * kernel)
    known = is_linear(kinds) or not _RECURRENT.isdisjoint(kinds)
    if len(shape) != 2 or not known or "EinsumDense" in kinds:
        where = kinds[0] if kinds else "mapping"
        raise ResolutionError(f"{info.name!r}, of shape {shape} in a {where}, does not say its {word}; {_UNKNOWN}")
    return (shape[0], shape[1]) if into_out else (shape[1], shape[0])


def _positive(info: ParameterInfo, word: str, size: int) -> int:
    if size < 1:
        raise ResolutionError(f"{info.name!r} has shape {info.shape}: its {word} is {size}")
    return size
