"""The step of some groups as a few calls of torch's fused kernels, without the class's own step around them.

What a class's step does besides its kernel costs more than the kernel where tensors are small: it gathers lists tensor
by tensor, sorts them by device and type, and counts steps one by one. A program knows from an earlier step that none of
this can turn out otherwise, and what it knows is only layouts: of which shapes, strides, types and devices parameters,
gradients and moments were when they were found fit (`kernels`). At each step every tensor and every number is read
afresh, and a compiled check of each list asks whether the layouts are still those. So whatever is edited, replaced,
loaded, swapped or frozen in between is obeyed. Where the check says no, or a group holds anything but plain numbers and
switches, nothing has happened yet, and the class's own step runs (`engines`), to which this is equal bit for bit.

Step counts are the one thing that is arranged: those that nobody else refers to come to lie side by side in one memory,
so that they are counted together. Each stays a tensor of its own in the state. Where they lie is looked at at each
step; counts that lie elsewhere are counted one by one.

A program holds no parameter, no gradient and no moment. It runs on a CPU; elsewhere kernels are launched while others
still run, so that this Python is not what is waited for, and the class's own step remains.
"""

from __future__ import annotations

import functools
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import is_, itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import torch

from groupwise import _torch
from groupwise._torch import Check, layout_check, without_hooks
from groupwise.optim.borrowed import Groups
from groupwise.optim.gradients import Present, present_in
from groupwise.optim.kernels import is_fit

State: TypeAlias = Mapping[torch.Tensor, Any]
Columns: TypeAlias = list[list[torch.Tensor]]

_NUMBERS: Final = frozenset({float, int})
_PLAIN: Final = frozenset({torch.Tensor, torch.nn.Parameter})
_COUNT: Final = "step"
_FEW: Final = 1000


def _references(own: Mapping[str, Any]) -> int:
    """How many refer to a step count; the state that it is asked of is one of them."""
    return sys.getrefcount(own[_COUNT])


_UNSHARED: Final = _references({_COUNT: object()})


class _Kind(NamedTuple):
    """What the switches of a group choose: the kernel and how it is called, the entries of state that it is given, and
    its own switches."""

    kernel: str
    call: Callable[..., None]
    entries: tuple[str, ...]
    switches: tuple[bool, bool]


_Call: TypeAlias = tuple[_Kind, tuple[float, ...]]
"""A kernel, and the numbers that it is called with."""


class _Known(NamedTuple):
    """Which entries of state were found fit with parameters and gradients, and a check of each column's layouts."""

    entries: tuple[str, ...]
    checks: list[Check]

    def hold(self, columns: Columns) -> bool:
        """Whether the layouts are still the same."""
        for check, column in zip(self.checks, columns, strict=True):
            if not check(column):
                return False
        return True


def has_program(cls: type[torch.optim.Optimizer]) -> bool:
    """Whether there is one for a class: torch's own, nothing of whose step anybody has put another in place of."""
    if cls not in _READERS or _torch.parts_of_step(cls) != _PARTS[cls]:
        return False
    if cls.step is not _KNOWN_STEPS[cls]:  # torch puts hooks around it when the class is used first
        if without_hooks(cls.step) is not _STEPS[cls]:
            return False
        _KNOWN_STEPS[cls] = cls.step
    return True


class StepProgram:
    """The step of the groups of one algorithm that are stepped together."""

    def __init__(self) -> None:
        self._known: _Known | None = None
        self._counts = array("f")
        self._addresses: list[int] = []
        self._looks = self._rest = 0

    def run(self, cls: type[torch.optim.Optimizer], groups: Groups, state: State) -> bool:
        """Step these groups of the class `cls`. False if it cannot be done here; then nothing has happened."""
        calls = _calls(cls, groups)
        if not calls:
            return False
        kinds = _distinct([kind for kind, _ in calls])
        kernels = {kind.kernel: _torch.fused(kind.kernel) for kind in kinds}
        if len({kind.entries for kind in kinds}) != 1 or None in kernels.values():
            return False
        present, entries = present_in(groups), kinds[0].entries
        columns = self._columns(cls, present, state, entries)
        if columns is None:
            return False
        if _COUNT in entries:
            self._count(columns[-1])
        _launch(kernels, calls, present.sizes, columns)
        return True

    def _columns(self, cls: type, present: Present, state: State, entries: tuple[str, ...]) -> Columns | None:
        """What the kernels are given, if they may be: parameters, gradients and entries of state, a list each."""
        held = _states(present.params, state)
        columns = _gathered(present, held, entries)
        if columns is None or not present.params:
            return None
        if self._known is not None and self._known.entries == entries and self._known.hold(columns):
            self._looks = 0
            return columns
        if not self._may_look() or not _are_fit(cls, columns, entries):
            return None
        if _COUNT in entries:
            del columns  # which refers to the counts
            self._share(held)
            columns = _gathered(present, held, entries)
        self._known = None if columns is None else _Known(entries, [*map(layout_check, columns)])
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
        if _addresses(counts) == self._addresses:
            _add_one(self._counts)
        else:
            _torch.add_one(counts)

    def _share(self, held: Sequence[dict[str, Any]]) -> None:
        """Lay the step counts side by side, unless somebody else refers to any, as who keeps a checkpoint does. What is
        made in inference mode could not be counted up outside of it."""
        if torch.is_inference_mode_enabled() or not all(_is_unshared(own) for own in held):
            return
        if not _own_their_memory([own[_COUNT] for own in held]):
            return
        self._counts = array("f", [own[_COUNT].item() for own in held])
        counts = torch.frombuffer(self._counts, dtype=torch.float32)
        for i, own in enumerate(held):
            own[_COUNT] = counts.new_empty(0).set_(counts.untyped_storage(), i, (), ())
        self._addresses = _addresses([own[_COUNT] for own in held])


def _add_one(counts: array[float]) -> None:
    """Add 1 to some counts in place. Mostly they are the same and not many: then a call of torch, whose code is in no
    cache at that time, would take longer than this."""
    first = counts[0]
    if len(counts) <= _FEW and counts.count(first) == len(counts):
        counts[:] = array("f", (first + 1.0,)) * len(counts)
    else:
        torch.frombuffer(counts, dtype=torch.float32).add_(1)


def _addresses(tensors: Sequence[torch.Tensor]) -> list[int]:
    return [*map(torch.Tensor.data_ptr, tensors)]


def _is_unshared(own: Mapping[str, Any]) -> bool:
    """Whether a step count is a plain number on the CPU to which only this state refers."""
    if _references(own) != _UNSHARED:
        return False
    count = own[_COUNT]
    plain = type(count) is torch.Tensor and count.dtype == torch.float32 and count.device.type == "cpu"
    return plain and count.ndim == 0 and not count.requires_grad


def _own_their_memory(counts: Sequence[torch.Tensor]) -> bool:
    """Whether nothing else has a part in the memory of these: a view of one, what detach() gives, an array of numpy."""
    memories = Counter(map(_torch.storage_key, counts))
    users = {_torch.storage_key(count): _torch.storage_users(count) for count in counts}
    return all(users[key] == own for key, own in memories.items())


def _states(params: list[torch.Tensor], state: State) -> list[Any]:
    """The state of each parameter, or None. Mostly a state has them in the order of the groups: that is seen sooner
    than a parameter is found in it."""
    if len(state) == len(params) and all(map(is_, state, params)):
        return [*state.values()]
    return [*map(state.get, params)]


def _gathered(present: Present, held: Sequence[Any], entries: Sequence[str]) -> Columns | None:
    """Parameters, gradients and entries of state; None where one has no such entry."""
    try:
        return [present.params, present.gradients, *([*map(itemgetter(name), held)] for name in entries)]
    except (KeyError, TypeError):
        return None


def _are_fit(cls: type, columns: Columns, entries: Sequence[str]) -> bool:
    """Whether the kernel of `cls` may be given these tensors: plain ones, each row laid out alike."""
    params, first = columns[0], columns[0][0]
    if not all(_PLAIN.issuperset(map(type, column)) for column in columns):
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
    start = end = 0
    for i, call in enumerate(calls, 1):
        end += sizes[i - 1]
        if start < end and (i == len(calls) or calls[i] != call):
            kind, numbers = call
            kind.call(kernels[kind.kernel], columns, slice(start, end), numbers, kind.switches)
            start = end


def _call_adam(
    kernel: Any, columns: Columns, part: slice, numbers: tuple[float, ...], switches: tuple[bool, bool]
) -> None:
    """Call a kernel of Adam on a part of every column. Keywords are written out, which takes less time than a dict."""
    params, gradients, first, second, *maxima, counts = columns
    lr, beta1, beta2, decay, eps = numbers
    amsgrad, maximize = switches
    largest = maxima[0][part] if maxima else []
    kernel(
        params[part], gradients[part], first[part], second[part], largest, counts[part],
        lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps, amsgrad=amsgrad, maximize=maximize,
    )  # fmt: skip


def _call_sgd(
    kernel: Any, columns: Columns, part: slice, numbers: tuple[float, ...], switches: tuple[bool, bool]
) -> None:
    """Call the kernel of SGD, after its first step, on a part of every column."""
    params, gradients, *buffers = columns
    lr, decay, momentum, dampening = numbers
    nesterov, maximize = switches
    kernel(
        params[part], gradients[part], buffers[0][part] if buffers else [], weight_decay=decay, momentum=momentum,
        lr=lr, dampening=dampening, nesterov=nesterov, maximize=maximize, is_first_step=False,
    )  # fmt: skip


def _calls(cls: type[torch.optim.Optimizer], groups: Groups) -> list[_Call]:
    """What every group's kernel is called with; none where a group is not as usual."""
    try:
        return _READERS[cls](groups)
    except (KeyError, TypeError, ValueError):
        return []


def _distinct(kinds: list[_Kind]) -> list[_Kind]:
    """Each of some kinds once. Mostly all are one."""
    return kinds[:1] if kinds.count(kinds[0]) == len(kinds) else [*dict.fromkeys(kinds)]


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
    return _Kind(kernel, _call_adam, ("exp_avg", "exp_avg_sq", *maxima, _COUNT), (own["amsgrad"], own["maximize"]))


@functools.lru_cache(maxsize=64, typed=True)
def _kind_of_sgd(has_momentum: bool, *given: Any) -> _Kind | None:
    """What these switches of `torch.optim.SGD` choose from its second step on; None for anything unusual."""
    switches = dict(zip(_SGDS, given, strict=True))
    own = {name: switches[name] for name in ("nesterov", "maximize")}
    if not all(type(value) is bool for value in own.values()) or not _takes_fused(switches):
        return None
    entries = ("momentum_buffer",) if has_momentum else ()
    return _Kind("_fused_sgd_", _call_sgd, entries, (own["nesterov"], own["maximize"]))


def _adams(groups: Groups) -> list[_Call]:
    """What `torch.optim.Adam` and `AdamW` give their kernel, by group; none if any holds anything unusual."""
    kinds = _kinds(_kind_of_adam, [*map(_switches_of_adam, groups)])
    rates, decays, eps, betas = zip(*map(_numbers_of_adam, groups), strict=True)
    first, second = zip(*betas, strict=True)
    return _of_plain(kinds, rates, first, second, decays, eps)


def _sgds(groups: Groups) -> list[_Call]:
    """What `torch.optim.SGD` gives its kernel from the second step on, by group; none if any holds anything unusual."""
    _, _, momenta, _ = columns = [*zip(*map(_numbers_of_sgd, groups), strict=True)]
    if not _are_numbers(momenta):
        return []
    switches = zip(momenta, map(_switches_of_sgd, groups), strict=True)
    kinds = _kinds(_kind_of_sgd, [(momentum != 0, *own) for momentum, own in switches])
    return _of_plain(kinds, *columns)


def _kinds(kind_of: Callable[..., _Kind | None], switches: Sequence[tuple[Any, ...]]) -> list[_Kind | None]:
    """What the switches of each group choose. Mostly they are the same in all of them."""
    if switches.count(switches[0]) == len(switches):
        return [kind_of(*switches[0])] * len(switches)
    return [kind_of(*own) for own in switches]


def _of_plain(kinds: Sequence[_Kind | None], *columns: Sequence[Any]) -> list[_Call]:
    """Kinds with their numbers, which come a column for each name; none where any is no number, or of no kind."""
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds) or not all(map(_are_numbers, columns)):
        return []
    return [*zip(known, zip(*columns, strict=True), strict=True)]


def _are_numbers(column: Sequence[object]) -> bool:
    return _NUMBERS.issuperset(map(type, column))


_READERS: Final[Mapping[type[torch.optim.Optimizer], Callable[[Groups], list[_Call]]]] = {
    torch.optim.Adam: _adams,
    torch.optim.AdamW: _adams,
    torch.optim.SGD: _sgds,
}
_KNOWN_STEPS: Final = {cls: cls.step for cls in _READERS}
_STEPS: Final = {cls: without_hooks(cls.step) for cls in _READERS}
_PARTS: Final = {cls: _torch.parts_of_step(cls) for cls in _READERS}
