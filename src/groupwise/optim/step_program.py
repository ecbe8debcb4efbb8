"""The step of some groups as a few calls of torch's fused kernels, without the class's own step around them.

What a class's step does besides its kernel costs more than the kernel where tensors are small: it gathers lists tensor
by tensor, sorts them by device and type, and counts steps one by one. A program knows from an earlier step that none of
this can turn out otherwise, and what it knows is only layouts: of which shapes, strides, types and devices parameters,
gradients and moments were when they were found fit (`kernels`). At each step every tensor and every number is read
afresh, and one compiled check asks whether the layouts are still those. So whatever is edited, replaced, loaded,
swapped or frozen in between is obeyed. Where the check says no, or a group holds anything but plain numbers and
switches, nothing has happened yet, and the class's own step runs (`engines`), to which this is equal bit for bit.

Step counts are the one thing that is arranged: those that nobody else refers to come to lie side by side in one memory,
so that one addition counts them all. Each stays a tensor of its own in the state. Where they lie is looked at at each
step; counts that lie elsewhere are counted one by one.

A program holds no parameter, no gradient and no moment. It runs on a CPU; elsewhere kernels are launched while others
still run, so that this Python is not what is waited for, and the class's own step remains.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import torch

from groupwise import _torch
from groupwise._torch import Check, layout_check, without_hooks
from groupwise.optim.borrowed import Groups
from groupwise.optim.kernels import is_fit

State: TypeAlias = Mapping[torch.Tensor, Any]
Columns: TypeAlias = list[list[torch.Tensor]]

_NUMBERS: Final = frozenset({float, int})
_SWITCH: Final = frozenset({bool})
_PLAIN: Final = frozenset({torch.Tensor, torch.nn.Parameter})
_COUNT: Final = "step"


def _references(own: Mapping[str, Any]) -> int:
    """How many refer to a step count; the state that it is asked of is one of them."""
    return sys.getrefcount(own[_COUNT])


_UNSHARED: Final = _references({_COUNT: object()})


class _Call(NamedTuple):
    """What the kernel of one group is called with besides tensors, and which entries of state it is given."""

    kernel: Callable[..., None]
    entries: tuple[str, ...]
    values: dict[str, Any]


class _Key(NamedTuple):
    """How many tensors each group steps, and which entries of state their kernels are given."""

    sizes: list[int]
    entries: tuple[str, ...]


class _Known(NamedTuple):
    """What was found fit, and the check that layouts are still the same."""

    key: _Key
    holds: Check


def has_program(cls: type[torch.optim.Optimizer]) -> bool:
    """Whether there is one for a class: torch's own, whose step nobody has put another in place of."""
    return cls in _READERS and without_hooks(cls.step) is _STEPS[cls]


class StepProgram:
    """The step of the groups of one algorithm that are stepped together."""

    def __init__(self) -> None:
        self._known: _Known | None = None
        self._counts: torch.Tensor | None = None
        self._addresses: list[int] = []
        self._looks = self._rest = 0

    def run(self, cls: type, groups: Groups, state: State) -> bool:
        """Step these groups of the class `cls`. False if it cannot be done here; then nothing has happened."""
        calls = _calls(cls, groups)
        if calls is None:
            return False
        stepped = [[p for p in group["params"] if p.grad is not None] for group in groups]
        sizes, entries = [len(own) for own in stepped], calls[0].entries
        columns = self._columns(cls, [p for own in stepped for p in own], state, _Key(sizes, entries))
        if columns is None:
            return False
        if _COUNT in entries:
            self._count(columns[-1])
        _launch(calls, sizes, columns)
        return True

    def _columns(self, cls: type, params: list[torch.Tensor], state: State, key: _Key) -> Columns | None:
        """What the kernels are given, if they may be: parameters, gradients and entries of state, a list each."""
        held: list[Any] = [state.get(p) for p in params]
        columns = _gathered(params, held, key.entries)
        if columns is None or not params:
            return None
        if self._known is not None and self._known.key == key and self._known.holds(_flat(columns)):
            self._looks = 0
            return columns
        if not self._may_look() or not _are_fit(cls, columns, key.entries):
            return None
        if _COUNT in key.entries:
            del columns  # which refers to the counts
            self._share(held)
            columns = _gathered(params, held, key.entries)
        self._known = None if columns is None else _Known(key, layout_check(_flat(columns)))
        return columns

    def _may_look(self) -> bool:
        """Whether to look at the layouts anew: after several looks in a row that did not last, ever more rarely."""
        if self._rest:
            self._rest -= 1
            return False
        self._looks += 1
        self._rest = 2 ** min(self._looks, 10) - 2
        return True

    def _count(self, counts: Sequence[torch.Tensor]) -> None:
        """Count one step: all at once if these are the counts that lie side by side, and nothing else does."""
        if self._counts is not None and [t.data_ptr() for t in counts] == self._addresses:
            self._counts.add_(1)
        else:
            _torch.add_one(counts)

    def _share(self, held: Sequence[dict[str, Any]]) -> None:
        """Lay the step counts side by side, unless somebody else refers to any, as who keeps a checkpoint does."""
        if not all(_is_unshared(own) for own in held):
            return
        counts = torch.stack([own[_COUNT] for own in held])
        self._counts, memory = counts, counts.untyped_storage()
        for i, own in enumerate(held):
            own[_COUNT] = torch.empty(0).set_(memory, i, (), ())
        self._addresses = [own[_COUNT].data_ptr() for own in held]


def _is_unshared(own: Mapping[str, Any]) -> bool:
    """Whether a step count is a plain number on the CPU to which only this state refers."""
    if _references(own) != _UNSHARED:
        return False
    count = own[_COUNT]
    plain = type(count) is torch.Tensor and count.dtype == torch.float32 and count.device.type == "cpu"
    return plain and count.ndim == 0 and not count.requires_grad


def _gathered(params: list[torch.Tensor], held: Sequence[Any], entries: Sequence[str]) -> Columns | None:
    """Parameters, gradients and entries of state; None where one has no such entry."""
    try:
        gradients: list[Any] = [p.grad for p in params]
        return [params, gradients, *([own[name] for own in held] for name in entries)]
    except (KeyError, TypeError):
        return None


def _flat(columns: Columns) -> list[torch.Tensor]:
    return [t for column in columns for t in column]


def _are_fit(cls: type, columns: Columns, entries: Sequence[str]) -> bool:
    """Whether the kernel of `cls` may be given these tensors: plain ones, each row laid out alike."""
    params, first = columns[0], columns[0][0]
    if not all(type(t) in _PLAIN for t in _flat(columns)):
        return False
    if not all(p.device.type == "cpu" and p.dtype == first.dtype for p in params):
        return False
    if _COUNT in entries and not all(map(_is_count, columns[-1])):
        return False
    rows, moments = zip(*columns, strict=True), [name for name in entries if name != _COUNT]
    return all(is_fit(cls, p, dict(zip(entries, own, strict=True)), moments) for p, _, *own in rows)


def _is_count(count: torch.Tensor) -> bool:
    return count.dtype == torch.float32 and count.device.type == "cpu" and count.ndim == 0


def _launch(calls: Sequence[_Call], sizes: Sequence[int], columns: Columns) -> None:
    """Call every group's kernel on its part of the columns."""
    start = 0
    for call, size in zip(calls, sizes, strict=True):
        if size:
            parts = columns if size == len(columns[0]) else [column[start : start + size] for column in columns]
            call.kernel(*_ordered(parts), **call.values)
        start += size


def _ordered(parts: Columns) -> Columns:
    """The lists in the order in which a kernel takes them: SGD's buffers; Adam's moments, maxima and counts."""
    if len(parts) == 2:
        return [*parts, []]
    return [*parts[:4], [], parts[4]] if len(parts) == 5 else parts


def _calls(cls: type, groups: Groups) -> list[_Call] | None:
    """What every group's kernel is called with; None where a group is not as usual, or the entries are not the same."""
    read = _READERS[cls]
    calls: list[_Call] = []
    for group in groups:
        try:
            call = read(group)
        except (KeyError, TypeError, ValueError):
            return None
        if call is None or call.entries != (calls or [call])[0].entries:
            return None
        calls.append(call)
    return calls


def _takes_fused(group: Mapping[str, Any]) -> bool:
    """Whether the kernel of a group is torch's fused one, by its own word or as the default."""
    return group["fused"] in (None, True) and group["foreach"] is None and group["differentiable"] is False


_MOMENTS: Final = ("exp_avg", "exp_avg_sq", _COUNT)
_MAXIMA: Final = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", _COUNT)


def _adam(group: Mapping[str, Any]) -> _Call | None:
    """What `torch.optim.Adam` and `AdamW` give their kernel."""
    (beta1, beta2), lr, decay, eps = group["betas"], group["lr"], group["weight_decay"], group["eps"]
    amsgrad, maximize, decoupled = group["amsgrad"], group["maximize"], group["decoupled_weight_decay"]
    numbers = _NUMBERS.issuperset((type(lr), type(beta1), type(beta2), type(decay), type(eps)))
    if not (numbers and _SWITCH.issuperset((type(amsgrad), type(maximize), type(decoupled)))):
        return None
    kernel = _torch.fused("_fused_adamw_" if decoupled else "_fused_adam_")
    if kernel is None or group["capturable"] or not _takes_fused(group):
        return None
    values = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": decay, "eps": eps}
    values |= {"amsgrad": amsgrad, "maximize": maximize}
    return _Call(kernel, _MAXIMA if amsgrad else _MOMENTS, values)


def _sgd(group: Mapping[str, Any]) -> _Call | None:
    """What `torch.optim.SGD` gives its kernel from the second step on."""
    lr, decay, momentum, dampening = group["lr"], group["weight_decay"], group["momentum"], group["dampening"]
    nesterov, maximize, kernel = group["nesterov"], group["maximize"], _torch.fused("_fused_sgd_")
    numbers = _NUMBERS.issuperset((type(lr), type(decay), type(momentum), type(dampening)))
    switches = _SWITCH.issuperset((type(nesterov), type(maximize)))
    if kernel is None or not (numbers and switches and _takes_fused(group)):
        return None
    values = {"lr": lr, "weight_decay": decay, "momentum": momentum, "dampening": dampening}
    values |= {"nesterov": nesterov, "maximize": maximize, "is_first_step": False}
    return _Call(kernel, ("momentum_buffer",) if momentum != 0 else (), values)


_READERS: Final[Mapping[type[torch.optim.Optimizer], Callable[[Mapping[str, Any]], _Call | None]]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.SGD: _sgd,
}
_STEPS: Final = {cls: without_hooks(cls.step) for cls in _READERS}
