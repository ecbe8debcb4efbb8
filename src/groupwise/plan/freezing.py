"""When a parameter is trained: for ever, never, from a moment on, or up to one.

A rule says `trainable=` False, True, `after(length)`, `until(length)` or `unfreeze_down(length)`. Resolved against one
parameter each is a `Timeline`: `unfreeze_down` becomes "after k lengths", k levels below the top (ULMFiT's gradual
unfreezing, Howard and Ruder 2018).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from groupwise._spelling import shown
from groupwise.errors import PlanError
from groupwise.schedules import Length, length


@dataclass(frozen=True)
class Timeline:
    """Trainable from `start` x `times` on and before `end`; None is no bound. `never` is frozen for good."""

    never: bool = False
    start: Length | None = None
    end: Length | None = None
    times: int = 1
    downwards: bool = False

    def trainable_at(self, step: int, total_steps: int | None = None, steps_per_epoch: int | None = None) -> bool:
        """Whether the parameter trains at update `step` (0 is the first). `LengthError` if a length is not known."""
        if self.never:
            return False
        started = self.start is None or step >= self.times * self.start.resolve(total_steps, steps_per_epoch)
        return started and (self.end is None or step < self.end.resolve(total_steps, steps_per_epoch))

    def at_level(self, below_top: int) -> Timeline:
        """The timeline of a parameter `below_top` levels under the deepest that the rule matches."""
        if not self.downwards:
            return self
        return replace(self, times=below_top, downwards=False) if below_top else Timeline()

    @property
    def moves(self) -> bool:
        """Whether it changes at any step."""
        return self.start is not None or self.end is not None

    def __str__(self) -> str:
        if self.start is not None:
            times = f"{self.times} × " if self.times != 1 else ""
            return f"unfreeze down, {self.start} a level" if self.downwards else f"after {times}{self.start}"
        return f"until {self.end}" if self.end is not None else ("frozen" if self.never else "trainable")


def after(moment: Length | str) -> Timeline:
    """Frozen at first, trainable from `moment` on: `after("2 epochs")`."""
    return Timeline(start=length(moment))


def until(moment: Length | str) -> Timeline:
    """Trainable at first, frozen from `moment` on."""
    return Timeline(end=length(moment))


def unfreeze_down(interval: Length | str) -> Timeline:
    """Gradual unfreezing from the top: one more level below trains after each `interval` (ULMFiT)."""
    return Timeline(start=length(interval), downwards=True)


def timeline(trainable: bool | Timeline) -> Timeline:
    """What `trainable=` accepts, as a timeline; `PlanError` for anything else."""
    if isinstance(trainable, Timeline):
        return trainable
    if isinstance(trainable, bool):
        return Timeline(never=not trainable)
    raise PlanError(f"trainable must be True, False, after(…), until(…) or unfreeze_down(…), not {shown(trainable)}")
