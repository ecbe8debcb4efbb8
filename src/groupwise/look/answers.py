"""What a forward pass asks of values, where there are none: answers that let it go on.

On the meta device a tensor has a shape alone, and whoever asks how many entries are true, which expert was chosen or
whether a loss is finite gets no answer from torch. Here the answer is a guess that leaves nothing out: a number is 1, a
condition holds, everything is chosen, nothing is broken. Operations that torch has not written for the device are
computed on ones. That a run was guessed in part is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import torch

from groupwise.errors import SelectorError
from groupwise.look.shapes import Unknown, by_shape

BY_VALUE: Final = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "_unique2", "unique_dim", "unique_consecutive",
        "masked_select", "bincount", "repeat_interleave", "allclose", "_unique",
    )
)  # fmt: skip
"""Operations whose answer, or the shape of it, depends on values."""

_FEW: Final = 256
"""So many conditions hold in a row; then every other one does not, so that no loop is without end."""

_MOST: Final = 100_000
_LARGEST: Final = 50_000_000


class Asked(Protocol):
    """What is noted of a run."""

    by_value: bool
    asked: int


def answered(watched: Asked, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives on the meta device, guessed where it must be."""
    name = func._schema.name
    if not _has_meta(args) and not _has_meta(kwargs.values()):
        return func(*args, **_kept_real(args, kwargs))
    if name in _GUESSES:
        return _GUESSES[name](watched, func, args, kwargs)
    if name in BY_VALUE:
        return _on_ones(watched, func, args, kwargs)
    if (known := by_shape(func, args, kwargs)) is not Unknown:
        return known
    kwargs = {**kwargs, "device": torch.device("meta")} if kwargs.get("device") is not None else kwargs
    try:
        return func(*args, **kwargs)
    except NotImplementedError:
        return _without_values(_on_ones(watched, func, args, kwargs))


def _has_meta(tree: Any) -> bool:
    if isinstance(tree, torch.Tensor):
        return tree.is_meta
    return not isinstance(tree, str) and isinstance(tree, Sequence | type({}.values())) and any(map(_has_meta, tree))


def _kept_real(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """What depends on no parameter keeps its values: it is not made on, or moved to, the meta device."""
    device = kwargs.get("device")
    if device is None or torch.device(device).type != "meta":
        return kwargs
    sizes = [arg for arg in args if isinstance(arg, list | tuple)]
    entries = max((_product(sizes_) for sizes_ in sizes), default=0)
    return kwargs if entries > _LARGEST else {**kwargs, "device": torch.device("cpu")}


def _product(sizes: Sequence[Any]) -> int:
    found = 1
    for size in sizes:
        found *= size if isinstance(size, int) else 1
    return found


def _number(watched: Asked, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    watched.by_value, watched.asked = True, watched.asked + 1
    if watched.asked > _MOST:
        raise SelectorError("it asks for values without end, and on the meta device there are none")
    dtype = args[0].dtype
    if dtype is torch.bool:
        return watched.asked <= _FEW or watched.asked % 2 == 0
    return 1.0 if dtype.is_floating_point else complex(1) if dtype.is_complex else 1


def _condition(watched: Asked, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    watched.by_value, watched.asked = True, watched.asked + 1
    return watched.asked <= _FEW or watched.asked % 2 == 0


def _sound(watched: Asked, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Nothing is nan, nothing is infinite."""
    return torch.zeros((), dtype=torch.bool).expand(args[0].shape)


def _indexed(watched: Asked, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Masks among indices choose everything, or what they really choose where they have values."""
    rest = list(args)
    rest[1] = [part for index in args[1] for part in _unmasked(watched, index)]
    rest = [_emptied(part) for part in rest]
    return func(*rest, **kwargs)


def _unmasked(watched: Asked, index: Any) -> Sequence[Any]:
    if not isinstance(index, torch.Tensor) or index.dtype not in (torch.bool, torch.uint8):
        return [index]
    watched.by_value = watched.by_value or index.is_meta
    mask = torch.ones(index.shape, dtype=torch.bool) if index.is_meta else index
    return mask.nonzero(as_tuple=True) if mask.ndim else [mask]


def _emptied(part: Any) -> Any:
    if isinstance(part, torch.Tensor):
        return part if part.is_meta else part.to("meta")
    return [_emptied(inner) for inner in part] if isinstance(part, list) else part


def _counted(watched: Asked, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Something in each bin of a histogram."""
    watched.by_value = True
    bins = args[1] if len(args) > 1 else kwargs.get("bins", 100)
    return torch.ones(bins, dtype=args[0].dtype)


def _grouped(watched: Asked, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The sizes of a product by group, which torch's meta device computes for one dtype alone."""
    one, other = args[0], args[1]
    dtype = kwargs.get("out_dtype") or one.dtype
    if one.ndim == 2 and other.ndim == 2:
        offsets = args[2] if len(args) > 2 else kwargs["offs"]
        shape = [offsets.shape[0], one.shape[0], other.shape[1]]
    else:
        shape = [*one.shape[:-1], other.shape[-1]] if one.ndim >= other.ndim or one.ndim == 2 else []
        shape = shape or [one.shape[1], other.shape[-1]]
    return torch.empty(shape, dtype=dtype, device="meta")


def _on_ones(watched: Asked, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The operation on ones of the same shapes, with values."""
    watched.by_value = True
    return func(*_ones(args), **{key: _ones(part) for key, part in kwargs.items() if key != "device"})


def _ones(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        if not tree.is_meta:
            return tree
        if tree.numel() > _LARGEST:
            raise NotImplementedError(f"a tensor of {tree.numel():,} entries without values")
        return torch.ones(tree.shape, dtype=tree.dtype)
    return type(tree)([_ones(part) for part in tree]) if isinstance(tree, list | tuple) else tree


def _without_values(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.to("meta")
    return type(tree)([_without_values(part) for part in tree]) if isinstance(tree, list | tuple) else tree


_GUESSES: Final[Mapping[str, Callable[[Asked, Any, Sequence[Any], Mapping[str, Any]], Any]]] = {
    "aten::_local_scalar_dense": _number,
    "aten::is_nonzero": _condition,
    "aten::equal": _condition,
    "aten::allclose": _condition,
    "aten::isnan": _sound,
    "aten::isinf": _sound,
    "aten::index": _indexed,
    "aten::_unsafe_index": _indexed,
    "aten::index_put": _indexed,
    "aten::index_put_": _indexed,
    "aten::histc": _counted,
    "aten::_grouped_mm": _grouped,
}
