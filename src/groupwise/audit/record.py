"""What was recorded of a training loop: its calls in their order, and what became of the gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

Kind: TypeAlias = Literal["backward", "clip", "attempt", "step", "schedule"]


@final
@dataclass(frozen=True, slots=True)
class Event:
    """One call.

    Args:
        kind: "attempt" is a step that GradScaler was asked for, and may skip.
        who: the name of the optimizer or of the scheduler; empty for the rest.
        touched: the identities of the tensors that got a gradient, were clipped, or stepped. Of a clip with none it is
            not known whose gradients it would have clipped: there were none.
        thread: the thread that made it; loops in several threads have each an order of its own.
    """

    kind: Kind
    who: str = ""
    touched: frozenset[int] = frozenset()
    thread: int = 0


@final
@dataclass(frozen=True, slots=True)
class Record:
    """The loop so far.

    Args:
        events: the calls, in order.
        kept: by optimizer, tensors whose gradient went into two of its steps without being cleared in between.
        fed: tensors that had a gradient at some step.
        strayed: schedulers whose optimizer stepped with other rates than they last wrote.
        spent: by optimizer, its latest steps in a row with all rates at 0, after one with another rate.
    """

    events: tuple[Event, ...]
    kept: Mapping[str, frozenset[int]]
    fed: frozenset[int]
    strayed: frozenset[str] = frozenset()
    spent: Mapping[str, int] = field(default_factory=dict)

    def steps(self, optimizer: str) -> int:
        """How often an optimizer stepped."""
        return sum(event.kind == "step" and event.who == optimizer for event in self.events)
