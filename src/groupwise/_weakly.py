"""Weak references to tensors and to their memory, by what the torch that is here has for them."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable

import torch
import torch.utils.weak


def weakly(tensor: torch.Tensor) -> Callable[[], torch.Tensor | None]:
    """A weak reference to a tensor, which may be a gradient that torch holds and Python does not.

    An older torch has `WeakTensorRef` for these; where there is none, a plain reference does it.
    """
    kind = getattr(torch.utils.weak, "WeakTensorRef", weakref.ref)
    reference: Callable[[], torch.Tensor | None] = kind(tensor)
    return reference


def storage_weakly(tensor: torch.Tensor) -> object:
    """Something that keeps the key of a tensor's memory from being given to another, and not the memory itself.

    Without torch's reference to a storage: the storage, which keeps the memory too.
    """
    kind = getattr(sys.modules.get("torch.multiprocessing.reductions"), "StorageWeakRef", None)
    storage = tensor.untyped_storage()
    return storage if kind is None else kind(storage)
