"""A hyperparameter as a number: whatever an optimizer takes for one, Python's, numpy's, or a tensor of one entry."""

from __future__ import annotations

import numbers
from typing import Any, TypeAlias

import torch

from groupwise.observe.tensors import precision

Number: TypeAlias = float | torch.Tensor


def number_of(value: Any) -> Number | None:
    """A float, or a copy of a tensor on an accelerator, which stays there (0-dim); None for what is no number.

    A flag (`amsgrad`) is none, and neither is a complex number.
    """
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex() or value.dtype == torch.bool:
            return None
        one = value.detach().reshape(())
        number: Any = one.tolist() if one.device.type == "cpu" else None
        return one.clone() if number is None else float(number)
    if isinstance(value, bool):
        return None
    if isinstance(value, numbers.Real):
        return float(value)
    return number_of(value.item()) if getattr(value, "size", None) == 1 and callable(value.item) else None


def largest(one: Number, other: Number) -> Number:
    """The larger of two; a tensor if one of them is."""
    tensor = next((each for each in (one, other) if isinstance(each, torch.Tensor)), None)
    if tensor is None:
        return max(float(one), float(other))
    device = tensor.device
    a, b = (torch.as_tensor(each, dtype=precision(device), device=device) for each in (one, other))
    return torch.maximum(a, b)
