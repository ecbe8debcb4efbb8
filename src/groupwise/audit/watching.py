"""Watching a loop: its calls noted as they pass, for a few steps, and nothing left behind.

Steps are seen through each optimizer's own hooks; backward, clipping and updates of GradScaler where torch looks their
functions up (`calls`), so that clipping already imported by name is seen, too. Everything else is looked at, not asked
about. A scheduler has stepped if it counts further. A backward concerns the parameters that its graph reaches. A
gradient that went into a step is marked; the mark goes when the gradient is found gone, replaced or zero, by whatever
means; one that goes into a second step with its mark was never cleared.

Calls come from any thread. Gradients are looked at in the thread that makes them alone: another one may be in the
middle of a backward, which writes them without a lock. And whatever goes wrong in here ends the watching, with a
warning, and not the loop.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar, final

import torch

from groupwise._shards import is_sharded, local
from groupwise._step_hooks import StepHooks
from groupwise._torch import clip_functions, is_measuring
from groupwise._warning import warn
from groupwise._weakly import weakly
from groupwise.audit.calls import After, Calls
from groupwise.audit.describing import bound, followed, groups_of, last_rates, same
from groupwise.audit.graph import leaves_of
from groupwise.audit.inspected import alike, number_of
from groupwise.audit.record import Event, Record

_PATIENCE: Final = 100
"""How many times `steps` one optimizer may step while another has not had enough."""

_BACKWARD: Final = Calls(torch.autograd, "backward")
_GRAD: Final = Calls(torch.autograd, "grad")
_UPDATE: Final = Calls(torch.amp.GradScaler, "update")
_CLIPS: Final = {name: Calls(module, name) for module, name in clip_functions()}

Reference: TypeAlias = Callable[[], torch.Tensor | None]
Place: TypeAlias = tuple[int, str]
"""A thread, and the name of an optimizer that steps in it."""
T = TypeVar("T")


@final
class Recorder:
    """Notes what passes until every optimizer has stepped `steps` times, or it seems that one of them never will.

    Args:
        optimizers: by name.
        schedulers: by name.
        steps: how many steps of each optimizer to record.

    Raises:
        AuditError: an optimizer whose steps cannot be followed.
    """

    def __init__(self, optimizers: Mapping[str, Any], schedulers: Mapping[str, Any], steps: int) -> None:
        self._optimizers = optimizers
        self._schedulers = schedulers
        self._followed = {id(inner): inner for inner in (followed(*each) for each in optimizers.items())}
        self._left = dict.fromkeys(optimizers, steps)
        self._events: list[Event] = []
        self._patience = -_PATIENCE * steps
        self._marks: dict[Place, dict[torch.Tensor, Reference]] = {}
        self._kept: dict[str, set[int]] = {}
        self._fed: set[int] = set()
        self._strayed: set[str] = set()
        self._spent: dict[str, int] = {}
        self._counts: dict[str, object] = {}
        self._home: set[int] = set()
        self._noting = False
        self._hooks: list[StepHooks] = []
        self._ends: list[Callable[[], None]] = []
        self._lock = threading.RLock()

    @property
    def record(self) -> Record:
        """What was recorded so far."""
        with self._lock:
            kept = {name: frozenset(again) for name, again in self._kept.items()}
            spent = dict(self._spent)
            return Record(tuple(self._events), kept, frozenset(self._fed), frozenset(self._strayed), spent)

    def start(self) -> None:
        """Begin to note."""
        self._counts, self._noting = self._counted(), True
        self._hooks = [StepHooks(optimizer, after=self._stepped) for optimizer in self._followed.values()]
        listeners = {_BACKWARD: self._backward, _GRAD: self._grad, _UPDATE: self._updated}
        clips = {calls: self._clips_of(name) for name, calls in _CLIPS.items()}
        for calls, listener in {**listeners, **clips}.items():
            self._ends.append(calls.listen(listener))

    def stop(self) -> None:
        """Leave everything as it was; stopping twice is stopping once."""
        self._noting = False
        self._leave()
        for hooks in self._hooks:
            hooks.remove()
        self._hooks = []

    def _leave(self) -> None:
        """Listen no more. Hooks stay where they are: this may be called by one of them."""
        self._marks = {}
        with contextlib.suppress(IndexError):  # another thread leaves, too
            while self._ends:
                self._ends.pop()()

    def _clips_of(self, name: str) -> Callable[[tuple[Any, ...], Mapping[str, Any], FrameType], None]:
        return self._clipped_gradients if "group" in name else self._clipped

    # what passes

    def _backward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: FrameType) -> After | None:
        touched = self._safely(self._to_reach, _first(args, kwargs))
        return functools.partial(self._safely, self._went_back, touched) if touched else None

    def _grad(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: FrameType) -> None:
        self._safely(self._look)

    def _updated(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: FrameType) -> None:
        self._safely(self._attempted)

    def _clipped(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: FrameType) -> None:
        if not _is_boundless(args, kwargs):
            self._safely(self._note_clip, _first(args, kwargs))

    def _clipped_gradients(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: FrameType) -> None:
        if not is_measuring(caller) and not _is_boundless((), caller.f_locals):
            self._safely(self._note_clip_of, _first(args, kwargs))

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._safely(self._note_step, optimizer)

    def _safely(self, note: Callable[..., T], *arguments: Any) -> T | None:
        """Note something; whatever happens meanwhile is no affair of the loop's."""
        found, said = None, ""
        with self._lock:
            try:
                found = note(*arguments) if self._noting else None
            except Exception as error:
                self._noting, said = False, f"{type(error).__name__}: {error}"
        if not self._noting:
            self._leave()
        if said:
            warn(f"watching stops ({said}); the loop goes on")
        return found

    # what is noted

    def _note(self, kind: str, who: str = "", touched: frozenset[int] = frozenset()) -> None:
        self._events.append(Event(kind, who, touched, threading.get_ident()))  # type: ignore[arg-type]

    def _to_reach(self, roots: object) -> frozenset[int]:
        """Which of the parameters a backward is about to reach; all, where the graph does not show them."""
        self._look()
        ours = {id(p): p for p in self._parameters()}
        leaves, opaque = leaves_of(_flat([roots]))
        hidden = opaque or any(is_sharded(p) for p in ours.values())
        if not leaves & set(ours) and hidden and threading.get_ident() in self._home:
            return frozenset(ours)
        return leaves & set(ours)

    def _went_back(self, touched: frozenset[int]) -> None:
        self._home.add(threading.get_ident())
        self._note("backward", touched=touched)

    def _note_clip(self, parameters: object) -> None:
        if isinstance(parameters, torch.Tensor | list | tuple):
            ours = {id(p) for p in self._parameters()}
            self._add_clip(frozenset(id(p) for p in _flat([parameters])) & ours)

    def _note_clip_of(self, gradients: object) -> None:
        if threading.get_ident() not in self._home:
            return
        of_gradient = {id(p.grad): id(p) for p in self._parameters() if p.grad is not None}
        flat = list(_flat(gradients))
        touched = frozenset(of_gradient[id(g)] for g in flat if id(g) in of_gradient)
        if touched or not flat:
            self._add_clip(touched, of_nothing=not flat)

    def _add_clip(self, touched: frozenset[int], of_nothing: bool = False) -> None:
        """A clip; clipping looks up several functions, each of which reports it."""
        last = next((e for e in reversed(self._events) if e.thread == threading.get_ident()), None)
        known = last is not None and last.kind == "clip" and touched <= last.touched
        if (touched or of_nothing) and not known:
            self._note("clip", touched=touched)

    def _attempted(self) -> None:
        """A step that GradScaler was asked for, made or skipped: a scheduler is not early after it."""
        for name in self._optimizers:
            self._note("attempt", name)
        self._ticked()

    def _ticked(self) -> None:
        """Note the schedulers that have stepped since the last look."""
        counts = self._counted()
        for name in counts:
            if counts[name] != self._counts[name]:
                self._note("schedule", name)
        self._counts = counts

    def _counted(self) -> dict[str, object]:
        return {name: getattr(scheduler, "last_epoch", None) for name, scheduler in self._schedulers.items()}

    def _note_step(self, optimizer: torch.optim.Optimizer) -> None:
        groups, thread = groups_of(optimizer), threading.get_ident()
        self._home.add(thread)
        stepped = [p for group in groups for p in group["params"]]
        fed = {p: p.grad for p in stepped if p.grad is not None}
        self._ticked()
        self._strayed |= {name for name, each in self._schedulers.items() if _strays(each, groups)}
        for name in self._named(optimizer, groups):
            self._note("step", name, frozenset(map(id, stepped)))
            marks = self._marks.setdefault((thread, name), {})
            again = {id(p) for p, gradient in fed.items() if p in marks and marks[p]() is gradient}
            self._kept.setdefault(name, set()).update(again)
            self._fed |= {id(p) for p in fed}
            self._left[name] -= 1
            self._note_rates(name, groups)
            marks.update({p: weakly(gradient) for p, gradient in fed.items()})
        if max(self._left.values()) <= 0 or min(self._left.values()) <= self._patience:
            self._noting = False

    def _note_rates(self, name: str, groups: Sequence[Mapping[str, Any]]) -> None:
        """Count the steps at rate 0 since the last one at another rate, of which there must have been one."""
        moves = any(number_of(group.get("lr")) != 0 for group in groups)
        if moves or name in self._spent:
            self._spent[name] = 0 if moves else self._spent[name] + 1

    def _look(self) -> None:
        """Take the marks off gradients that were cleared since."""
        here = threading.get_ident()
        for marks in [marks for (thread, _), marks in self._marks.items() if thread == here]:
            for p in [p for p, used in marks.items() if p.grad is None or p.grad is not used() or not _any(p.grad)]:
                del marks[p]

    def _named(self, optimizer: object, groups: list[dict[str, Any]]) -> Iterator[str]:
        return (name for name, each in self._optimizers.items() if each is optimizer or same(groups_of(each), groups))

    def _parameters(self) -> Iterator[torch.Tensor]:
        return (p for each in self._optimizers.values() for group in groups_of(each) for p in group["params"])


def _strays(scheduler: object, groups: list[dict[str, Any]]) -> bool:
    """Whether a scheduler drives these groups, and they hold other rates than it last wrote."""
    last = last_rates(scheduler) if same(bound(scheduler), groups) else ()
    rates = [number_of(group.get("lr")) for group in groups]
    return len(last) == len(rates) and not all(map(alike, rates, last))


def _is_boundless(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a clip has no bound, as to read the norm that it returns: `clip_grad_norm_(parameters, inf)`."""
    bound = kwargs.get("max_norm", args[1] if len(args) > 1 else None)
    return isinstance(bound, int | float) and bound == math.inf


def _any(gradient: Any) -> bool:
    """Whether a gradient, or this rank's part of it, has an entry that is not zero."""
    part = local(gradient)
    return bool((part.coalesce().values() if part.layout == torch.sparse_coo else part).any())


def _first(args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
    return args[0] if args else next(iter(kwargs.values()), None)


def _flat(tensors: object) -> Iterator[object]:
    """The tensors in a list, or in a list of lists."""
    for each in tensors if isinstance(tensors, list | tuple) else ():
        if isinstance(each, list | tuple):
            yield from _flat(each)
        else:
            yield each
