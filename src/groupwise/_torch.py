"""Every private name of torch that is relied upon, and what happens where another version of torch lacks it.

Nothing here is needed to be right: a name that is gone costs speed, or the recognition of something rare, never a
number. `tests/optim/test_private_names.py` takes each away and trains on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, TypeAlias

import torch

Check: TypeAlias = Callable[[Sequence[torch.Tensor]], bool]


def private(*path: str) -> Any:
    """What is at `path` below `torch`, or None."""
    found: Any = torch
    for name in path:
        found = getattr(found, name, None)
    return found


def fused_devices() -> frozenset[str]:
    """The device types that torch has fused optimizer kernels for. Lacking: none, so that the default kernels run."""
    supported = private("utils", "_foreach_utils", "_get_fused_kernels_supported_devices")
    return frozenset() if supported is None else frozenset(supported())


def layout_check(tensors: Sequence[torch.Tensor]) -> Check:
    """A check that as many other tensors have, one by one, the shape, strides, dtype and device of these.

    The check holds no tensor. It is the compiled guard of `torch.compile`, which takes a fifth of the time of reading
    four attributes of each tensor. Lacking: they are read.
    """
    guards = private("_C", "_dynamo", "guards", "TensorGuards")
    if guards is None:
        layouts = [*map(_layout, tensors)]
        return lambda others: [*map(_layout, others)] == layouts
    check, count = guards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check, len(tensors)
    return lambda others: len(others) == count and bool(check(*others))


def _layout(t: object) -> tuple[object, ...]:
    if not isinstance(t, torch.Tensor):
        return ()
    strides = t.stride() if t.layout == torch.strided else None
    return t.shape, strides, t.dtype, t.device, t.layout, t.is_neg()


def without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer class's `step` without the wrapper that torch puts around it to fire the step hooks.

    The wrapper is known by its code. Lacking: by the attribute `hooked` that torch leaves on it.
    """
    wrapped = getattr(step, "hooked", False) if _HOOKS is None else getattr(step, "__code__", None) is _HOOKS
    inner: Callable[..., Any] = step.__wrapped__ if wrapped else step  # type: ignore[attr-defined]
    return inner


def _code_of_hooks() -> CodeType | None:
    wrap = private("optim", "Optimizer", "profile_hook_step")
    return None if wrap is None else getattr(wrap(_code_of_hooks), "__code__", None)


_HOOKS = _code_of_hooks()


def backward_pass() -> int | None:
    """A number of the backward pass inside of which this is called, as by a hook; None outside. Lacking: None."""
    current = None if torch.compiler.is_compiling() else private("_C", "_current_graph_task_id")
    number = -1 if current is None else int(current())
    return None if number < 0 else number


def norms(tensors: Sequence[torch.Tensor], dtype: torch.dtype | None) -> Sequence[torch.Tensor]:
    """The 2-norm of each of some tensors of one device and type, accumulated in `dtype`. Lacking: one by one."""
    together = private("_foreach_norm")
    if together is None:
        return [torch.linalg.vector_norm(t, dtype=dtype) for t in tensors]
    found: Sequence[torch.Tensor] = together(tensors, 2, dtype=dtype)
    return found


def multiply(tensors: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
    """Multiply tensors of one device and type by a 0-dim tensor there, in place. Lacking: one by one."""
    together = private("_foreach_mul_")
    if together is not None:
        together(tensors, factor)
        return
    for t in tensors:
        t.mul_(factor)


def clamp(tensors: Sequence[torch.Tensor], bound: float) -> None:
    """Bring every entry of some tensors into [-bound, bound], in place. Lacking: one by one."""
    low, high = private("_foreach_clamp_min_"), private("_foreach_clamp_max_")
    if low is None or high is None:
        for t in tensors:
            t.clamp_(-bound, bound)
        return
    low(tensors, -bound)
    high(tensors, bound)


def scale_now(scaler: Any) -> torch.Tensor | float:
    """The factor of a GradScaler, without waiting for the device. Lacking: `get_scale()`, which waits."""
    scale = getattr(scaler, "_scale", None)
    return scale.clone() if isinstance(scale, torch.Tensor) else float(scaler.get_scale())


def found_inf(scaler: Any, optimizers: Sequence[object]) -> bool:
    """Whether a GradScaler has found infinite gradients of these and not been updated since. Lacking: no."""
    states = getattr(scaler, "_per_optimizer_states", {})
    found = [states[id(one)].get("found_inf_per_device", {}) for one in optimizers if id(one) in states]
    return any(bool(flag.item()) for flags in found for flag in flags.values())
