"""A balancer at work: what it was built with, and all that changes from update to update."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from groupwise.balance.engine.columns import Columns
from groupwise.balance.engine.finite import Facts, Verdict, judge
from groupwise.balance.engine.held_out import HeldOut
from groupwise.balance.engine.pending import Pending
from groupwise.balance.engine.rows import Buffers, Rows
from groupwise.balance.engine.setup import Setup
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, Method, Seen
from groupwise.errors import BalanceError, GroupwiseWarning, StateError, listed, unknown


@final
@dataclass(eq=False)
class Run:
    """The state of a balancer.

    Attributes:
        memory: what the method remembers.
        step: how many updates there were.
        tasks: those that took part in one.
        heard: those of which a loss was given since this object was made.
        rows: those of the last update, for whoever still asks about them.
        expected: after a load, the tasks of the state, until a batch has one of them.
    """

    setup: Setup
    memory: Memory = field(default_factory=Memory)
    step: int = 0
    tasks: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)
    pending: Pending = field(default_factory=Pending)
    buffers: Buffers = field(default_factory=Buffers)
    held_out: HeldOut | None = None
    rows: Rows | None = None
    expected: frozenset[str] = frozenset()
    said: bool = False

    def __post_init__(self) -> None:
        self.columns = Columns(self.setup.named)

    @property
    def method(self) -> Method:
        """The method."""
        return self.setup.method

    @property
    def needs_rows(self) -> bool:
        """Whether this update looks at gradients, unless the last weights stand."""
        return not isinstance(self.method, LossMethod) or self.held_out is not None

    def seen(self, tasks: tuple[str, ...], losses: Tensor) -> Seen:
        """What the method is told."""
        return Seen(tasks, losses, self.step, (), self.setup.total_steps, self.setup.steps_per_epoch)

    def due(self, tasks: tuple[str, ...]) -> bool:
        """Whether the method wants to look, or answers from its memory."""
        unknown = torch.full((len(tasks),), torch.nan, dtype=torch.float64)
        return self.method.due(self.seen(tasks, unknown), self.memory)

    def expect(self, tasks: Iterable[str]) -> None:
        """Raise `StateError` if a state was loaded that knows none of these tasks."""
        if self.expected and not self.expected.intersection(tasks):
            raise StateError(
                f"the state that was loaded is of the tasks {listed(sorted(self.expected))}; "
                f"this batch has {listed(tasks)}, none of them"
            )
        self.expected = frozenset()

    def stepped(self, tasks: Iterable[str]) -> None:
        """Count an update."""
        self.step += 1
        self.tasks.update(tasks)

    def after_step(self, tasks: tuple[str, ...], losses: Tensor) -> None:
        """Tell the method the [t] losses after the step, of the tasks that are not broken."""
        known = self.tasks | self.heard
        for task in tasks if known else ():
            if task not in known:
                raise BalanceError(f"after_step: {unknown('task', task, sorted(known))}")
        kept = list(self.judged(tasks, Facts(losses, None, None), scaled=False).kept)
        if kept:
            self.method.after_step(self.seen(tuple(tasks[i] for i in kept), losses[kept]), self.memory)

    def forget_update(self) -> None:
        """Drop an update that is under way."""
        self.pending, self.held_out, self.rows = Pending(), None, None

    def judged(self, tasks: tuple[str, ...], facts: Facts, scaled: bool) -> Verdict:
        """Apply the policy for what is not finite, and say so once."""
        self.heard.update(tasks)
        verdict = judge(tasks, facts, self.setup.nonfinite, scaled)
        if verdict.skipped:
            reasons = "; ".join(f"task {task!r}: {why}" for task, why in verdict.skipped.items())
            self.say(f'nonfinite="{self.setup.nonfinite}": {reasons}; said once, BalanceResult.skipped has them all')
        return verdict

    def say(self, message: str) -> None:
        """Warn, once."""
        if not self.said:
            self.said = True
            warnings.warn(message, GroupwiseWarning, stacklevel=5)


def copied(memory: Memory) -> Memory:
    """A memory to try something on."""
    scratch = Memory()
    scratch.load_state_dict(memory.state_dict())
    return scratch
