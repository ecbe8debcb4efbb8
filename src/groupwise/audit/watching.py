"""Watching a loop: its calls noted as they pass, for a few steps, and nothing left behind.

Steps are seen through torch's global hook. Backward, zero_grad and clipping are noted where Python looks them up, in
`torch.autograd`, in the class, and inside the module of `clip_grad_norm_`, so that functions already imported by name
are seen, too; each is put back at the end. Everything else is looked at, not asked about. A scheduler has stepped if it
counts further. A gradient that went into a step is marked; the mark goes when the gradient is found gone, replaced or
zero, by whatever means; one that goes into a second step with its mark was never cleared.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, final

import torch
from torch.nn.utils import clip_grad
from torch.optim.optimizer import register_optimizer_step_post_hook

from groupwise.audit.describing import bound, groups_of, last_rates, same
from groupwise.audit.record import Event, Record

_PATIENCE: Final = 100
"""How many times `steps` one optimizer may step while another has not had enough."""


@final
class Recorder:
    """Notes what passes until every optimizer has stepped `steps` times, or it seems that one of them never will.

    Args:
        optimizers: by name.
        schedulers: by name.
        steps: how often each optimizer is to be seen.
    """

    def __init__(self, optimizers: Mapping[str, Any], schedulers: Mapping[str, Any], steps: int) -> None:
        self._optimizers = optimizers
        self._schedulers = schedulers
        self._left = dict.fromkeys(optimizers, steps)
        self._events: list[Event] = []
        self._patience = -_PATIENCE * steps
        self._marks: dict[str, dict[torch.Tensor, torch.Tensor]] = {name: {} for name in optimizers}
        self._kept: dict[str, set[int]] = {}
        self._fed: set[int] = set()
        self._strayed: set[str] = set()
        self._counts: dict[str, object] = {}
        self._undo = contextlib.ExitStack()

    @property
    def record(self) -> Record:
        """What was seen so far."""
        kept = {name: frozenset(again) for name, again in self._kept.items()}
        return Record(tuple(self._events), kept, frozenset(self._fed), frozenset(self._strayed))

    def start(self) -> None:
        """Begin to note."""
        self._counts = self._counted()
        self._undo.callback(register_optimizer_step_post_hook(self._stepped).remove)
        self._replace(torch.autograd, "backward", _Around(before=self._backward))
        self._replace(torch.autograd, "grad", _Around(before=self._look))
        self._replace(torch.optim.Optimizer, "zero_grad", _Around(after=self._look))
        self._replace(torch.amp.GradScaler, "update", _Around(before=self._attempted))
        self._replace(clip_grad, "_get_total_norm", self._noting_clip)
        self._replace(clip_grad, "_group_tensors_by_device_and_dtype", self._noting_clip)

    def stop(self) -> None:
        """Put everything back; stopping twice is stopping once."""
        self._undo.close()
        self._marks = {name: {} for name in self._optimizers}

    def _replace(self, owner: Any, name: str, wrapped: Callable[[Any], Any]) -> None:
        """Until the end, `owner.name` is what `wrapped` makes of it."""
        original = vars(owner).get(name)
        if original is not None:
            setattr(owner, name, wrapped(original))
            self._undo.callback(setattr, owner, name, original)

    def _noting_clip(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            self._clipped(arguments[0])
            return original(*arguments)

        return noted

    def _backward(self) -> None:
        self._look()
        self._events.append(Event("backward"))

    def _clipped(self, gradients: object) -> None:
        of_gradient = {id(p.grad): id(p) for p in self._parameters() if p.grad is not None}
        touched = frozenset(of_gradient[id(g)] for g in _flat(gradients) if id(g) in of_gradient)
        event = Event("clip", touched=touched)
        if not self._events or self._events[-1] != event:
            self._events.append(event)

    def _attempted(self) -> None:
        """A step that GradScaler was asked for, made or skipped: a scheduler is not early after it."""
        self._events += [Event("attempt", name) for name in self._optimizers]
        self._ticked()

    def _ticked(self) -> None:
        """Note the schedulers that have stepped since the last look."""
        counts = self._counted()
        self._events += [Event("schedule", name) for name in counts if counts[name] != self._counts[name]]
        self._counts = counts

    def _counted(self) -> dict[str, object]:
        return {name: getattr(scheduler, "last_epoch", None) for name, scheduler in self._schedulers.items()}

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        stepped = [p for group in groups_of(optimizer) for p in group["params"]]
        fed = {p: p.grad for p in stepped if p.grad is not None}
        self._ticked()
        self._strayed |= {name for name, each in self._schedulers.items() if _strays(each, groups_of(optimizer))}
        for name in self._named(optimizer):
            self._events.append(Event("step", name, frozenset(map(id, stepped))))
            marks = self._marks[name]
            again = {id(p) for p, gradient in fed.items() if marks.get(p) is gradient}
            self._kept.setdefault(name, set()).update(again)
            self._fed |= {id(p) for p in fed}
            self._left[name] -= 1
            marks.update(fed)
        if max(self._left.values()) <= 0 or min(self._left.values()) <= self._patience:
            self.stop()

    def _look(self) -> None:
        """Take the marks off gradients that were cleared since."""
        for marks in self._marks.values():
            for p in [p for p, used in marks.items() if p.grad is not used or not _any(used)]:
                del marks[p]

    def _named(self, optimizer: object) -> Iterator[str]:
        groups = groups_of(optimizer)
        return (name for name, each in self._optimizers.items() if each is optimizer or same(groups_of(each), groups))

    def _parameters(self) -> Iterator[torch.Tensor]:
        return (p for each in self._optimizers.values() for group in groups_of(each) for p in group["params"])


@final
class _Around(contextlib.ContextDecorator):
    """A decorator that calls `before` and `after` around each call."""

    def __init__(self, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
        self._before = before
        self._after = after

    def __enter__(self) -> None:
        if self._before is not None:
            self._before()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._after is not None:
            self._after()


def _strays(scheduler: object, groups: list[dict[str, Any]]) -> bool:
    """Whether a scheduler drives these groups, and they hold other rates than it last wrote."""
    ours = same(bound(scheduler), groups)
    last = last_rates(scheduler) if ours else ()
    rates = [float(group["lr"]) for group in groups]
    return len(last) == len(rates) and not all(map(math.isclose, rates, last))


def _any(gradient: torch.Tensor) -> bool:
    values = gradient.coalesce().values() if gradient.layout == torch.sparse_coo else gradient
    return bool(values.detach().any())


def _flat(gradients: object) -> Iterator[object]:
    """The tensors in a list, or in a list of lists."""
    for each in gradients if isinstance(gradients, list | tuple) else ():
        if isinstance(each, list | tuple):
            yield from _flat(each)
        else:
            yield each
