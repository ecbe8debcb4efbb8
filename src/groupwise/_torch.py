"""Private names and inner workings of torch that are relied upon: each with what happens where it is another.

A function here looks for what it needs when it is called, or once, and says how it does without. The test of each is
named for what it protects.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, Final

import torch
import torch.utils.weak
from torch.nn.utils import clip_grad

_CLIPS: Final = "_clip_grads_with_norm_"
_GROUPS: Final = "_group_tensors_by_device_and_dtype"
_MEASURES: Final = "_get_total_norm"


def steps_under_way(optimizer: torch.optim.Optimizer) -> int | None:
    """How many calls of the hooked step of `optimizer` are on this thread's stack.

    torch wraps the step of every class (`Optimizer.profile_hook_step`), so a class whose step calls its parent's runs
    hooks twice, and a step that raises runs no post hook. Only the stack tells the two apart. None where the wrapper is
    not as it is known. (The stacks of other threads cannot be walked through: they change meanwhile, and CPython 3.11
    crashes.)
    """
    code = _hooked_step_code()
    if code is None:
        return None
    return sum(_is_step(frame, code, optimizer) for frame in _outwards(sys._getframe()))


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_step(frame: FrameType, code: CodeType, optimizer: object) -> bool:
    return frame.f_code is code and frame.f_locals.get("self") is optimizer


@functools.cache
def _hooked_step_code() -> CodeType | None:
    wrap = getattr(torch.optim.Optimizer, "profile_hook_step", None)
    code = getattr(wrap(_hooked_step_code), "__code__", None) if callable(wrap) else None
    return code if isinstance(code, CodeType) and "self" in code.co_varnames else None


def runs_step_hooks(optimizer: object) -> bool:
    """Whether a step of `optimizer` runs its hooks: torch marks the steps that it has wrapped, a trainer's are not.

    Where the mark is not as it is known, whatever is an optimizer is said to run hooks.
    """
    if not _marks_hooked_steps():
        return isinstance(optimizer, torch.optim.Optimizer)
    return bool(getattr(getattr(type(optimizer), "step", None), "hooked", False))


@functools.cache
def _marks_hooked_steps() -> bool:
    return bool(getattr(torch.optim.SGD([torch.zeros(())], lr=0.0).step, "hooked", False))


def weakly(tensor: torch.Tensor) -> Callable[[], torch.Tensor | None]:
    """A weak reference to a tensor, which may be a gradient that torch holds and Python does not.

    An older torch has `WeakTensorRef` for these; where there is none, a plain reference does it.
    """
    kind = getattr(torch.utils.weak, "WeakTensorRef", weakref.ref)
    reference: Callable[[], torch.Tensor | None] = kind(tensor)
    return reference


def clip_functions() -> list[tuple[Any, str]]:
    """(module, name) of the functions that torch's clipping looks up when it runs, however it was imported itself.

    `_clip_grads_with_norm_` gets the parameters; `_group_tensors_by_device_and_dtype` gets their gradients, as the one
    element of a list, also from clipping by value. Names that there are not are left out; without any of them the
    clipping that is called as `torch.nn.utils.clip_grad_norm_` is seen, and what was imported by name is not.
    """
    known = [(clip_grad, name) for name in (_CLIPS, _GROUPS) if callable(getattr(clip_grad, name, None))]
    if known:
        return known
    return [(torch.nn.utils, name) for name in ("clip_grad_norm_", "clip_grad_value_")]


def is_measuring(caller: FrameType | None) -> bool:
    """Whether a call came from torch's `get_total_norm`, which groups gradients and clips nothing."""
    code = _code_of(getattr(clip_grad, _MEASURES, None))
    return caller is not None and code is not None and caller.f_code is code


def _code_of(function: Callable[..., object] | None) -> object:
    return getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
