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
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import torch

from groupwise import _torch
from groupwise._torch import Check, layout_check, without_hooks
from groupwise.optim.borrowed import Groups
from groupwise.optim.gradients import Present, present_in
from groupwise.optim.kernels import is_fit
from groupwise.optim.step_counts import COUNT, StepCounts, is_count

State: TypeAlias = Mapping[torch.Tensor, Any]
Columns: TypeAlias = list[Sequence[torch.Tensor]]

_NUMBERS: Final = frozenset({float, int})
_PLAIN: Final = frozenset({torch.Tensor, torch.nn.Parameter})


class _Kind(NamedTuple):
    """What the switches of a group choose: the kernel and how it is called, the entries of state that it is given, and
    its own switches."""

    kernel: str
    call: Callable[..., None]
    entries: tuple[str, ...]
    switches: tuple[bool, bool]


class _Calls(NamedTuple):
    """For each group, the kernel and the numbers that it is called with; none where a group is not as usual."""

    kinds: Sequence[_Kind]
    numbers: Sequence[tuple[float, ...]]


class _Known(NamedTuple):
    """What was found fit: entries of state with parameters and gradients, a check of each column's layouts, and where
    in the state the parameters stand: what takes those places from a list, and the last of them."""

    entries: tuple[str, ...]
    checks: list[Check]
    places: tuple[itemgetter[Any], int] | None

    def hold(self, columns: Columns) -> bool:
        """Whether the layouts are still the same."""
        for check, column in zip(self.checks, columns, strict=False):  # noqa: SIM110  (a generator takes longer)
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
        self._counts = StepCounts()
        self._looks = self._rest = 0

    def run(
        self, cls: type[torch.optim.Optimizer], groups: Groups, state: State, present: Present | None = None
    ) -> bool:
        """Step these groups of the class `cls`, whose tensors with gradients are `present`, if they are known already.
        False if it cannot be done here; then nothing has happened."""
        calls = _calls(cls, groups)
        if not calls.kinds:
            return False
        kinds = _distinct(calls.kinds)
        kernels = {kind.kernel: _torch.fused(kind.kernel) for kind in kinds}
        entries = kinds[0].entries
        if None in kernels.values() or not all(kind.entries == entries for kind in kinds[1:]):
            return False
        if present is None:
            present = present_in(groups)
        columns = self._columns(cls, present, state, entries)
        if columns is None:
            return False
        _launch(kernels, calls, present.sizes, columns)
        return True

    def _columns(self, cls: type, present: Present, state: State, entries: tuple[str, ...]) -> Columns | None:
        """What the kernels are given, if they may be: parameters, gradients and entries of state, a list each, and in
        place of step counts what they are after this step."""
        if not present.params:
            return None
        known = self._known if self._known is not None and self._known.entries == entries else None
        held = _states(present.params, state, known) if entries else []
        columns = _gathered(present, held, entries)
        if columns is None:
            return None
        together = COUNT in entries and self._counts.are(columns[-1])
        if known is None or not known.hold(columns[:-1] if together else columns):
            if not self._may_look() or not _are_fit(cls, columns, entries):
                return None
            del columns  # which refers to the counts
            columns, together = self._arranged(present, held, entries, state)
        else:
            self._looks = 0
        if together:
            columns[-1] = self._counts.add_one(columns[-1])
        elif COUNT in entries:
            _torch.add_one(columns[-1])
        return columns

    def _arranged(
        self, present: Present, held: Sequence[Any], entries: tuple[str, ...], state: State
    ) -> tuple[Columns, bool]:
        """The same columns, known from now on, with step counts that lie side by side if they may; whether they do."""
        if COUNT in entries:
            self._counts.lay(held)
        columns: Columns = [present.params, present.gradients, *([*map(itemgetter(name), held)] for name in entries)]
        places = _places(present.params, state) if entries else None
        self._known = _Known(entries, [*map(layout_check, columns)], places)
        return columns, COUNT in entries and self._counts.are(columns[-1])

    def _may_look(self) -> bool:
        """Whether to look at the layouts anew: after several looks in a row that did not last, ever more rarely."""
        if self._rest:
            self._rest -= 1
            return False
        self._looks += 1
        self._rest = 2 ** min(self._looks, 10) - 2
        return True


def _states(params: Sequence[torch.Tensor], state: State, known: _Known | None) -> Sequence[Any]:
    """The state of each parameter, or None. Mostly they stand in it where they stood: that is seen sooner than a
    parameter is found in it."""
    take, last = (None, 0) if known is None or known.places is None else known.places
    if take is not None and last < len(state):
        there = take([*state])
        if len(there) == len(params) and all(map(is_, there, params)):
            found: Sequence[Any] = take([*state.values()])
            return found
    return [*map(state.get, params)]


def _places(params: Sequence[torch.Tensor], state: State) -> tuple[itemgetter[Any], int]:
    """What takes from a list of what the state holds that at the places of these parameters; the last of the places."""
    at = {id(p): i for i, p in enumerate(state)}
    places = [at[id(p)] for p in params]
    first, last = min(places), max(places)
    in_a_row = places == [*range(first, last + 1)]
    return itemgetter(slice(first, last + 1)) if in_a_row else itemgetter(*places), last


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
    if COUNT in entries and not all(map(is_count, columns[-1])):
        return False
    rows, moments = zip(*columns, strict=True), [name for name in entries if name != COUNT]
    return all(is_fit(cls, p, dict(zip(entries, own, strict=True)), moments) for p, _, *own in rows)


def _launch(kernels: Mapping[str, Any], calls: _Calls, sizes: Sequence[int], columns: Columns) -> None:
    """Call the kernels on their parts of the columns. Groups in a row that want the same take one call: a kernel goes
    tensor by tensor."""
    kinds, numbers = calls
    start = end = 0
    for i, size in enumerate(sizes, 1):
        end += size
        if start < end and (i == len(sizes) or numbers[i] != numbers[i - 1] or kinds[i] != kinds[i - 1]):
            kind = kinds[i - 1]
            part = columns if end - start == len(columns[0]) else [column[start:end] for column in columns]
            kind.call(kernels[kind.kernel], part, numbers[i - 1], kind.switches)
            start = end


def _call_adam(kernel: Any, columns: Columns, numbers: tuple[float, ...], switches: tuple[bool, bool]) -> None:
    """Call a kernel of Adam. Keywords are written out, which takes less time than a dict."""
    params, gradients, first, second, *maxima, counts = columns
    lr, beta1, beta2, decay, eps = numbers
    amsgrad, maximize = switches
    kernel(
        params, gradients, first, second, maxima[0] if maxima else [], counts,
        lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps, amsgrad=amsgrad, maximize=maximize,
    )  # fmt: skip


def _call_sgd(kernel: Any, columns: Columns, numbers: tuple[float, ...], switches: tuple[bool, bool]) -> None:
    """Call the kernel of SGD, after its first step."""
    params, gradients, *buffers = columns
    lr, decay, momentum, dampening = numbers
    nesterov, maximize = switches
    kernel(
        params, gradients, buffers[0] if buffers else [], weight_decay=decay, momentum=momentum,
        lr=lr, dampening=dampening, nesterov=nesterov, maximize=maximize, is_first_step=False,
    )  # fmt: skip


def _calls(cls: type[torch.optim.Optimizer], groups: Groups) -> _Calls:
    """What every group's kernel is called with."""
    try:
        return _READERS[cls](groups)
    except (KeyError, TypeError, ValueError):
        return _NO_CALLS


_NO_CALLS: Final = _Calls((), ())


def _distinct(kinds: Sequence[_Kind]) -> Sequence[_Kind]:
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
    return _Kind(kernel, _call_adam, ("exp_avg", "exp_avg_sq", *maxima, COUNT), (own["amsgrad"], own["maximize"]))


@functools.lru_cache(maxsize=64, typed=True)
def _kind_of_sgd(has_momentum: bool, *given: Any) -> _Kind | None:
    """What these switches of `torch.optim.SGD` choose from its second step on; None for anything unusual."""
    switches = dict(zip(_SGDS, given, strict=True))
    own = {name: switches[name] for name in ("nesterov", "maximize")}
    if not all(type(value) is bool for value in own.values()) or not _takes_fused(switches):
        return None
    entries = ("momentum_buffer",) if has_momentum else ()
    return _Kind("_fused_sgd_", _call_sgd, entries, (own["nesterov"], own["maximize"]))


def _adams(groups: Groups) -> _Calls:
    """What `torch.optim.Adam` and `AdamW` give their kernel, by group."""
    held = map(_numbers_of_adam, groups)
    numbers = [(rate, first, second, decay, eps) for rate, decay, eps, (first, second) in held]
    return _of_kinds(_kind_of_adam, [*map(_switches_of_adam, groups)], numbers) if _are_numbers(numbers) else _NO_CALLS


def _sgds(groups: Groups) -> _Calls:
    """What `torch.optim.SGD` gives its kernel from the second step on, by group."""
    numbers = [*map(_numbers_of_sgd, groups)]
    if not _are_numbers(numbers):
        return _NO_CALLS
    switches = zip(numbers, map(_switches_of_sgd, groups), strict=True)
    return _of_kinds(_kind_of_sgd, [(momentum != 0, *own) for (_, _, momentum, _), own in switches], numbers)


def _of_kinds(
    kind_of: Callable[..., _Kind | None], switches: Sequence[tuple[Any, ...]], numbers: Sequence[tuple[float, ...]]
) -> _Calls:
    """Numbers with what the switches of each group choose. Mostly these are the same in all of them."""
    same = switches.count(switches[0]) == len(switches)
    chosen = [kind_of(*own) for own in (switches[:1] if same else switches)]
    known = [kind for kind in chosen if kind is not None]
    return _Calls(known * len(switches) if same else known, numbers) if len(known) == len(chosen) else _NO_CALLS


def _are_numbers(rows: Sequence[tuple[object, ...]]) -> bool:
    return _NUMBERS.issuperset(map(type, chain.from_iterable(rows)))


_READERS: Final[Mapping[type[torch.optim.Optimizer], Callable[[Groups], _Calls]]] = {
    torch.optim.Adam: _adams,
    torch.optim.AdamW: _adams,
    torch.optim.SGD: _sgds,
}
_KNOWN_STEPS: Final = {cls: cls.step for cls in _READERS}
_STEPS: Final = {cls: without_hooks(cls.step) for cls in _READERS}
_PARTS: Final = {cls: _torch.parts_of_step(cls) for cls in _READERS}
