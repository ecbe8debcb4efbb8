"""Which groups a fused kernel serves.

A fused kernel makes one pass over weight, gradient and moments instead of several, and on a CPU it looks at nothing:
place i of the weight's memory is place i of all the others', whatever their shape, strides and dtype. Where that is not
so it writes out of bounds or makes wrong numbers, silently. So it runs only where every tensor of a group is found, at
this very step, to be laid out as its parameter is. All else is left to the kernels that torch takes by default, which
read any strides and refuse what does not fit together. Nothing is ever written into the live groups.

What is remembered of a group is the layouts of its tensors, never the tensors: one compiled check a step asks whether
they still are what was found fit (`groupwise._torch.layout_check`), and nothing is kept alive by it. A weak reference
would not do: `torch.utils.swap_tensors` refuses a parameter that has one. Shards come as plain tensors (`shards`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch

from groupwise._torch import Check, fused_devices, layout_check
from groupwise.optim.borrowed import Groups

_BY_DEFAULT = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
_SWITCHES = ("amsgrad", "maximize", "nesterov")
_NUMBERS = ("lr", "weight_decay", "eps", "momentum", "dampening")

_COUNTS = (torch.float32, torch.float64)

State: TypeAlias = Mapping[torch.Tensor, Any]


class _Fit(NamedTuple):
    """Layouts that were found fit: of how many parameters, with which entries of state, and the check for them."""

    parameters: int
    entries: tuple[str, ...]
    holds: Check


class FusableCache:
    """The layouts that were last found fit for the kernels of one algorithm, by group. It holds no tensor."""

    def __init__(self) -> None:
        self._fit: dict[object, _Fit] = {}

    def fits(self, cls: type, group: Mapping[str, Any], state: State) -> bool:
        """Whether the fused kernel of `cls` may step what has a gradient in `group`; step counts are made ready."""
        stepped, entries = (
            [p for p in group["params"] if p.grad is not None],
            (*(_key_values(cls, group) or ()), "step"),
        )
        columns, fit = _columns(stepped, state, entries), self._fit.get(group.get("name"))
        if fit is not None and fit[:2] == (len(stepped), tuple(columns)) and fit.holds(_flat(columns)):
            return True
        if not all(is_fit(cls, p, state.get(p) or {}, entries[:-1]) for p in stepped):
            return False
        _make_steps_ready(stepped, state)
        columns = _columns(stepped, state, entries)
        begun = all(t is not None for t in _flat(columns))
        if begun and stepped and not torch.compiler.is_compiling():
            self._fit[group.get("name")] = _Fit(len(stepped), tuple(columns), layout_check(_flat(columns)))
        return begun or not issubclass(cls, torch.optim.SGD)  # which takes all momentum buffers, or none


def with_fused(cls: type, groups: Groups, state: State, cache: FusableCache) -> Groups:
    """The groups as an engine of `cls` is to get them: a copy where the kernel is to be another than it names."""
    return [_with_kernel(cls, group, state, cache) for group in groups]


def _with_kernel(cls: type, group: dict[str, Any], state: State, cache: FusableCache) -> dict[str, Any]:
    if cls in _BY_DEFAULT and _leaves_the_choice(group):
        return group | {"fused": True} if cache.fits(cls, group, state) else group
    blind = group.get("fused") and any(p.device.type == "cpu" for p in group["params"])  # others look for themselves
    if blind and _key_values(cls, group) is not None and not cache.fits(cls, group, state):
        return group | {"fused": None}
    return group


def _leaves_the_choice(group: Mapping[str, Any]) -> bool:
    """Whether a group names no kernel, and holds the plain numbers and switches that a fused one takes everywhere."""
    if group.get("fused") is not None or group.get("foreach") is not None or group.get("differentiable"):
        return False
    tensors = any(isinstance(group.get(key), torch.Tensor) for key in _NUMBERS)
    switched = all(type(group.get(key, False)) is bool for key in _SWITCHES)  # a class takes what is true or false
    return switched and not (tensors or torch.compiler.is_compiling())


def _key_values(cls: type, group: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The entries of state that the fused kernel of a class reads for a group; None if it has none of torch's."""
    if issubclass(cls, torch.optim.SGD):
        return ("momentum_buffer",) if group.get("momentum") else ()
    if issubclass(cls, torch.optim.Adam | torch.optim.AdamW):
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group.get("amsgrad") else ("exp_avg", "exp_avg_sq")
    return ("sum",) if issubclass(cls, torch.optim.Adagrad) else None


def _columns(stepped: Sequence[torch.Tensor], state: State, entries: Sequence[str]) -> dict[str, list[Any]]:
    """What a fused kernel would be given: one list each of weights, gradients and whatever entry any of them has."""
    held = [state.get(p) or {} for p in stepped]
    columns: dict[str, list[Any]] = {"weight": list(stepped), "gradient": [p.grad for p in stepped]}
    for name in entries:
        column = [own.get(name) for own in held]
        if any(value is not None for value in column):
            columns[name] = column
    return columns


def _flat(columns: Mapping[str, list[Any]]) -> list[Any]:
    return [value for column in columns.values() for value in column]


def is_fit(cls: type, p: torch.Tensor, own: Mapping[str, Any], moments: Sequence[str]) -> bool:
    """Whether place i of the memory means the same in weight, gradient and state, and the kernel of `cls` is right.

    Up to torch 2.13 fused SGD leaves most of a half-precision weight on a CPU as it was (pytorch#191763).
    """
    half = issubclass(cls, torch.optim.SGD) and p.device.type == "cpu" and p.element_size() < 4
    dense = p.is_contiguous() or (p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last))
    usual = p.is_floating_point() and not p.is_neg() and p.device.type in fused_devices()
    count = own.get("step")
    counted = count is None or (isinstance(count, torch.Tensor) and count.numel() == 1 and count.dtype in _COUNTS)
    held = [p.grad, *(own[name] for name in moments if own.get(name) is not None)]
    return dense and usual and not half and counted and all(_alike(p, t) for t in held)


def _alike(p: torch.Tensor, other: object) -> bool:
    """Whether a tensor is laid out in memory as `p`, on the same device, with numbers of the same type."""
    if not isinstance(other, torch.Tensor) or other.layout != torch.strided or other.is_neg():
        return False
    same = other.shape == p.shape and other.stride() == p.stride()
    return same and other.dtype == p.dtype and other.device == p.device


def _make_steps_ready(stepped: Sequence[torch.Tensor], state: State) -> None:
    """Put step counts where a fused kernel wants them: a load leaves them on the CPU."""
    for p in stepped:
        count = state[p].get("step") if p.device.type != "cpu" and p in state else None
        if isinstance(count, torch.Tensor) and (count.device, count.dtype) != (p.device, torch.float32):
            state[p]["step"] = count.to(p.device, torch.float32)
