"""Values as they are now, to the last bit: what cannot change later, and can be compared, nan too."""

import struct
from collections.abc import Mapping
from typing import Any

import torch


def frozen(value: Any) -> Any:
    """Plain data with tensors in it, as nested tuples of bytes and text."""
    if isinstance(value, torch.Tensor):
        whole = value.detach().coalesce().to_dense() if value.is_sparse else value.detach()
        return (
            "tensor",
            str(value.dtype),
            tuple(value.shape),
            whole.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(value, Mapping):
        return "mapping", tuple((frozen(key), frozen(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(map(frozen, value))
    if isinstance(value, float):
        return "float", struct.pack("<d", value)
    return type(value).__name__, value if isinstance(value, bool | int | str | None) else repr(value)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys under which two mappings of frozen values differ."""
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]
