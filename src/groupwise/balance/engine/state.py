"""All that a balancer keeps from call to call. A call works on a copy, which takes the old one's place at its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from groupwise._warning import warn
from groupwise.balance.engine.accumulated import Accumulated
from groupwise.balance.engine.columns import Columns
from groupwise.balance.engine.finite import Facts, Verdict, judge
from groupwise.balance.engine.held_out import HeldOut
from groupwise.balance.engine.places import EVERYTHING, Scope
from groupwise.balance.engine.rows import Buffers
from groupwise.balance.engine.setup import Setup
from groupwise.balance.engine.undo import Undo
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, Method, MethodContext
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError, StateError, listed, unknown

_FALLS = 3
"""Of the scaler's scale in a row, after which tasks are suspects that were not measured."""

_NO_COLUMNS = Columns()


@final
@dataclass(eq=False)
class State:
    """The state of a balancer.

    Attributes:
        memory: what the method remembers.
        step: how many updates there were.
        epoch: how many epochs were ended since this object was made.
        tasks: those that took part in an update.
        given: those of which a loss was given since this object was made.
        accumulated: the micro-batches of the update that is under way.
        held_out: the gradient of the held-out losses that the next backward learns from.
        columns: the parameters that a Jacobian method sees.
        expected: after a load, the tasks of the state, until a batch has one of them.
        loaded: a number for the state that was loaded last.
        suspects: tasks whose gradients were not finite under a scaler.
        broken: those of them that are not finite without it either, in this update.
        scale, falls: the scaler's last scale, and how often it fell in a row.
        said: whether the warning about what is not finite was given.
        buffers: memory to work in, which every call may overwrite.
        undo: the way back; None between calls.
        scope: the parameters that count as shared, during a call.
    """

    setup: Setup
    memory: Memory = field(default_factory=Memory)
    step: int = 0
    epoch: int = 0
    tasks: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    accumulated: Accumulated = field(default_factory=Accumulated)
    held_out: HeldOut | None = None
    columns: Columns = _NO_COLUMNS
    expected: frozenset[str] = frozenset()
    loaded: int = 0
    suspects: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    scale: float = 0.0
    falls: int = 0
    said: bool = False
    buffers: Buffers = field(default_factory=Buffers)
    undo: Undo | None = None
    scope: Scope = EVERYTHING

    @property
    def method(self) -> Method:
        """The method."""
        return self.setup.method

    def copy(self) -> State:
        """One to work on."""
        copied = object.__new__(State)
        vars(copied).update(vars(self))
        copied.memory, copied.undo, copied.broken = self.memory.copy(), Undo(self.setup.generators), frozenset()
        return copied

    def finalized(self) -> State:
        """The copy, without what was of this call only."""
        self.undo, self.scope, self.broken = None, EVERYTHING, frozenset()
        if self.columns is not _NO_COLUMNS and not (self.columns.resumed or self.columns.names or self.memory.has_rows):
            self.columns = _NO_COLUMNS
        return self

    @property
    def needs_rows(self) -> bool:
        """Whether this update looks at gradients, unless the last weights stand."""
        return not self.setup.of_losses or self.held_out is not None

    @property
    def weighs_at_once(self) -> bool:
        """Whether micro-batches are weighted one by one: the weights depend on no gradient, loss or other task.

        Not where a broken task is to skip the step: what earlier micro-batches had written could not be taken back.
        """
        if self.accumulated:
            return self.accumulated.rows is None
        if self.setup.nonfinite == "skip_step":
            return False
        return not self.needs_rows and Property.SEPARATE in self.method.properties

    def columns_of(self, shared: Sequence[Tensor], tasks: int) -> tuple[Tensor, ...] | None:
        """What a Jacobian method sees where so many tasks share these; None for other methods, which see just them."""
        if not isinstance(self.method, JacobianMethod):
            return None
        self.columns = self.columns.seeing(shared, tasks, self.scope.named)
        return tuple(self.columns.leaves(self.scope.named))

    def context(self, tasks: tuple[str, ...], losses: Tensor) -> MethodContext:
        """What the method may look at."""
        return MethodContext(tasks, losses, self.step, (), self.setup.total_steps, self.setup.steps_per_epoch)

    def due(self, tasks: tuple[str, ...]) -> bool:
        """Whether the method wants to look, or answers from its memory."""
        unknown = torch.full((len(tasks),), torch.nan, dtype=torch.float64)
        return self.method.due(self.context(tasks, unknown), self.memory)

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
        self.tasks = self.tasks.union(tasks)

    def after_step(self, tasks: tuple[str, ...], losses: Tensor) -> None:
        """Pass on the [t] losses after the step, of the tasks that are not broken."""
        known = self.tasks | self.given
        for task in tasks if known else ():
            if task not in known:
                raise BalanceError(f"after_step: {unknown('task', task, sorted(known))}")
        kept = list(self.judged(tasks, Facts(losses, None, None)).kept)
        if kept:
            self.method.after_step(self.context(tuple(tasks[i] for i in kept), losses[kept]), self.memory)

    def discard(self) -> None:
        """Drop an update that is under way."""
        self.accumulated, self.held_out = Accumulated(), None
        self.buffers.shown = None

    def judged(self, tasks: tuple[str, ...], facts: Facts, scale: float | None = None, last: bool = True) -> Verdict:
        """Apply the policy for what is not finite, and say so once.

        `scale` is the scaler's, None without one; `last` is false for a micro-batch that others follow.
        """
        self.given = self.given.union(tasks)
        verdict = judge(tasks, facts, self.setup.nonfinite, 1.0 if scale is None else scale, self.broken)
        if scale is not None and last:
            self._suspect(tasks, facts, verdict, scale)
        if verdict.skipped:
            reasons = "; ".join(f"task {task!r}: {why}" for task, why in verdict.skipped.items())
            self.say(f'nonfinite="{self.setup.nonfinite}": {reasons}; said once, BalanceResult.skipped has them all')
        return verdict

    def _suspect(self, tasks: tuple[str, ...], facts: Facts, verdict: Verdict, scale: float) -> None:
        """Whose gradients to look at without the scale at the next update."""
        fell = scale < self.scale
        if scale != self.scale:
            self.falls = self.falls + 1 if fell else 0
        self.scale = scale
        unseen = tasks if fell and facts.gramian is None and facts.own is None and self.falls % _FALLS == 0 else ()
        found = self.broken | self.accumulated.broken
        self.suspects = self.suspects.difference(tasks).union(found, verdict.overflowed, unseen)

    def say(self, message: str) -> None:
        """Warn, once."""
        if not self.said:
            self.said = True
            warn(message)
