"""Numbers read off a tensor without knowing whose tensor it is.

Only arithmetic and the methods that torch, numpy and jax arrays share are used, so this file imports none of them. A
gradient may be sparse: its stored values are read, and the shares are taken over all the elements, stored or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from groupwise.errors import SelectorError, unknown
from groupwise.select.part import Part


def _norm(values: Any, count: int) -> Any:
    return (values * values).sum() ** 0.5


def _rms(values: Any, count: int) -> Any:
    return ((values * values).sum() / count) ** 0.5


def _std(values: Any, count: int) -> Any:
    centred = values - values.sum() / count
    return ((centred * centred).sum() / count) ** 0.5


def _mean_abs(values: Any, count: int) -> Any:
    return abs(values).sum() / count


def _max_abs(values: Any, count: int) -> Any:
    return abs(values).max()


def _sparsity(values: Any, count: int) -> Any:
    return (values == 0).sum() / count


_OF_WEIGHT: dict[str, Callable[[Any, int], Any]] = {
    "mean_abs": _mean_abs,
    "norm": _norm,
    "rms": _rms,
    "std": _std,
    "max_abs": _max_abs,
    "sparsity": _sparsity,
}
_OF_GRADIENT: dict[str, Callable[[Any, int], Any]] = {"grad_norm": _norm, "grad_mean_abs": _mean_abs}

STATISTICS: tuple[str, ...] = (*_OF_WEIGHT, *_OF_GRADIENT)


def measured(parameter: Any, name: str, part: Part | None = None) -> float:
    """The statistic `name` of a tensor, of its gradient for `grad_…`; nan where there is none, 0 where it is empty.
    Of a `part` of it, if there is one.

    `std` is the population's (divided by n). 16-bit and 8-bit values are summed in 32 bits.

    Raises:
        SelectorError: no such statistic, or nothing to measure (no tensor, or one on `meta`).
    """
    if name not in STATISTICS:
        raise SelectorError(unknown("statistic", name, STATISTICS))
    if parameter is None or getattr(parameter, "is_meta", False):
        held = "nothing was kept of its tensor" if parameter is None else "it lives on the meta device"
        raise SelectorError(f"{name} cannot be measured: {held}; select on real weights, or by name, role or shape")
    tensor = getattr(parameter, "grad", None) if name in _OF_GRADIENT else parameter
    if tensor is None:
        return math.nan
    tensor = tensor if part is None else part.of(tensor)
    count = math.prod(int(size) for size in tensor.shape)
    if count == 0:
        return 0.0
    return _number((_OF_WEIGHT | _OF_GRADIENT)[name](_values(tensor), count))


def _values(tensor: Any) -> Any:
    detach = getattr(tensor, "detach", None)
    if detach is None:
        convert = getattr(tensor, "numpy", None)
        return tensor if convert is None else convert()
    values = detach()
    if values.is_sparse:
        values = values.coalesce().values()
    if values.is_complex():
        return values.abs()
    return values if values.is_floating_point() and values.element_size() >= 4 else values.float()


def _number(value: Any) -> float:
    gather = getattr(value, "full_tensor", None)  # a sharded tensor's sum is spread over the ranks
    return float(value if gather is None else gather())
