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

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import torch

from groupwise import _torch
from groupwise._torch import Check, layout_check, without_hooks
from groupwise.optim.borrowed import Groups
from groupwise.optim.gradients import present_of
from groupwise.optim.kernels import is_fit

State: TypeAlias = Mapping[torch.Tensor, Any]
Columns: TypeAlias = list[list[torch.Tensor]]

_NUMBERS: Final = frozenset({float, int})
_PLAIN: Final = frozenset({torch.Tensor, torch.nn.Parameter})
_COUNT: Final = "step"


def _references(own: Mapping[str, Any]) -> int:
    """How many refer to a step count; the state that it is asked of is one of them."""
    return sys.getrefcount(own[_COUNT])


_UNSHARED: Final = _references({_COUNT: object()})


class _Kind(NamedTuple):
    """What the switches of a group choose: the kernel, the entries of state that it is given, and its own switches."""

    kernel: str
    entries: tuple[str, ...]
    switches: dict[str, bool]


_Call: TypeAlias = tuple[_Kind, dict[str, Any]]
"""A kernel, and the keywords that it is called with."""


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

    def run(self, cls: type[torch.optim.Optimizer], groups: Groups, state: State) -> bool:
        """Step these groups of the class `cls`. False if it cannot be done here; then nothing has happened."""
        calls = _calls(cls, groups)
        kernels = {name: _torch.fused(name) for name in {kind.kernel for kind, _ in calls or ()}}
        if not calls or None in kernels.values():
            return False
        stepped = present_of(groups)
        key = _Key([*map(len, stepped)], calls[0][0].entries)
        columns = self._columns(cls, [*chain.from_iterable(stepped)], state, key)
        if columns is None:
            return False
        if _COUNT in key.entries:
            self._count(columns[-1])
        _launch(kernels, calls, key.sizes, columns)
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
        if self._counts is not None and [*map(torch.Tensor.data_ptr, counts)] == self._addresses:
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
            own[_COUNT] = counts.new_empty(0).set_(memory, i, (), ())
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
        return [params, gradients, *(list(map(itemgetter(name), held)) for name in entries)]
    except (KeyError, TypeError):
        return None


def _flat(columns: Columns) -> list[torch.Tensor]:
    return [*chain.from_iterable(columns)]


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


def _launch(kernels: Mapping[str, Any], calls: Sequence[_Call], sizes: Sequence[int], columns: Columns) -> None:
    """Call the kernels on their parts of the columns. Groups in a row that want the same take one call: a kernel goes
    tensor by tensor."""
    lists, start = _ordered(columns), 0
    for (kind, numbers), size in _in_a_row(calls, sizes):
        if size:
            parts = lists if size == len(columns[0]) else [column[start : start + size] for column in lists]
            kernels[kind.kernel](*parts, **numbers)
        start += size


def _in_a_row(calls: Sequence[_Call], sizes: Sequence[int]) -> list[tuple[_Call, int]]:
    """The calls and how many tensors each is for, where equal ones that follow one another are one."""
    runs: list[tuple[_Call, int]] = []
    last: _Call | None = None
    for call, size in zip(calls, sizes, strict=True):
        if last is not None and call[0] is last[0] and call[1] == last[1]:
            runs[-1] = (last, runs[-1][1] + size)
        else:
            runs.append((call, size))
            last = call
    return runs


def _ordered(parts: Columns) -> Columns:
    """The lists in the order in which a kernel takes them: SGD's buffers; Adam's moments, maxima and counts."""
    if len(parts) == 2:
        return [*parts, []]
    return [*parts[:4], [], parts[4]] if len(parts) == 5 else parts


def _calls(cls: type[torch.optim.Optimizer], groups: Groups) -> list[_Call] | None:
    """What every group's kernel is called with; None where a group is not as usual, or the entries are not the same."""
    read = _READERS[cls]
    try:
        calls = [read(group) for group in groups]
    except (KeyError, TypeError, ValueError):
        return None
    known = [call for call in calls if call is not None]
    if len(known) < len(groups) or len({kind.entries for kind, _ in known}) > 1:
        return None
    return known


_ADAMS: Final = ("amsgrad", "maximize", "decoupled_weight_decay", "capturable", "differentiable", "foreach", "fused")
_SGDS: Final = ("nesterov", "maximize", "differentiable", "foreach", "fused")
_switches_of_adam, _switches_of_sgd = itemgetter(*_ADAMS), itemgetter(*_SGDS)
_numbers_of_adam: Final = itemgetter("lr", "weight_decay", "eps", "betas")
_numbers_of_sgd: Final = itemgetter("lr", "weight_decay", "momentum", "dampening")


def _takes_fused(switches: Mapping[str, Any]) -> bool:
    """Whether the kernel of a group is torch's fused one, by its own word or as the default."""
    return switches["fused"] in (None, True) and switches["foreach"] is None and switches["differentiable"] is False


@functools.lru_cache(maxsize=64, typed=True)
def _kind_of_adam(*given: Any) -> _Kind | None:
    """What these switches of `torch.optim.Adam` or `AdamW` choose; None for anything unusual."""
    switches = dict(zip(_ADAMS, given, strict=True))
    own = {name: switches[name] for name in ("amsgrad", "maximize")}
    decoupled = switches["decoupled_weight_decay"]
    kernel = "_fused_adamw_" if decoupled else "_fused_adam_"
    usual = all(type(value) is bool for value in (*own.values(), decoupled)) and switches["capturable"] is False
    if not usual or not _takes_fused(switches):
        return None
    maxima = ("max_exp_avg_sq",) if own["amsgrad"] else ()
    return _Kind(kernel, ("exp_avg", "exp_avg_sq", *maxima, _COUNT), own)


@functools.lru_cache(maxsize=64, typed=True)
def _kind_of_sgd(has_momentum: bool, *given: Any) -> _Kind | None:
    """What these switches of `torch.optim.SGD` choose from its second step on; None for anything unusual."""
    switches = dict(zip(_SGDS, given, strict=True))
    own = {name: switches[name] for name in ("nesterov", "maximize")}
    if not all(type(value) is bool for value in own.values()) or not _takes_fused(switches):
        return None
    return _Kind("_fused_sgd_", ("momentum_buffer",) if has_momentum else (), own | {"is_first_step": False})


def _adam(group: Mapping[str, Any]) -> _Call | None:
    """What `torch.optim.Adam` and `AdamW` give their kernel."""
    kind = _kind_of_adam(*_switches_of_adam(group))
    lr, decay, eps, (beta1, beta2) = _numbers_of_adam(group)
    if kind is None or not _NUMBERS.issuperset((type(lr), type(decay), type(eps), type(beta1), type(beta2))):
        return None
    return kind, {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": decay, "eps": eps, **kind.switches}


def _sgd(group: Mapping[str, Any]) -> _Call | None:
    """What `torch.optim.SGD` gives its kernel from the second step on."""
    lr, decay, momentum, dampening = _numbers_of_sgd(group)
    if not _NUMBERS.issuperset((type(lr), type(decay), type(momentum), type(dampening))):
        return None
    kind = _kind_of_sgd(momentum != 0, *_switches_of_sgd(group))
    if kind is None:
        return None
    return kind, {"lr": lr, "weight_decay": decay, "momentum": momentum, "dampening": dampening, **kind.switches}


_READERS: Final[Mapping[type[torch.optim.Optimizer], Callable[[Mapping[str, Any]], _Call | None]]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.SGD: _sgd,
}
_STEPS: Final = {cls: without_hooks(cls.step) for cls in _READERS}
