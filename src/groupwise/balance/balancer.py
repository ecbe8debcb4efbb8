"""The balancer: losses by task in, `.grad` out.

The order is fixed and owned here. Gradients are taken (times the scaler's scale), one transfer brings losses and
Gramian to the CPU and takes them back by the scale, each task is judged finite or not, the method is asked about the
tasks that are left, and the update is written. A method never sees a scaled, missing or broken task.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, final

import torch
from torch import Tensor

from groupwise import _loss_hooks
from groupwise._misuse import explained
from groupwise._renamed import renamed
from groupwise.balance.engine import setup, update
from groupwise.balance.engine.finite import NonFinite
from groupwise.balance.engine.places import Parameters, Place
from groupwise.balance.engine.reduction import reduction_of
from groupwise.balance.engine.reduction.reduction import Reduction
from groupwise.balance.engine.scaling import without_autocast
from groupwise.balance.engine.setup import Distributed, RouteChoice
from groupwise.balance.engine.state import State
from groupwise.balance.engine.state_dict import check_complete, load, saved
from groupwise.balance.method import Method, TaskOnly
from groupwise.balance.result import BalanceResult
from groupwise.errors import BalanceError, unknown

_OF_BACKWARD: Final = {
    "retain_graph": "it frees the graph. Another backward through it comes before, with retain_graph=True there",
    "gradient": "a weight of a loss is the method's to give, as Static({…})",
    "inputs": "Balancer(…, parameters=…) says what is shared; what is to have no gradient is detached",
}


@final
class Balancer:
    """Combines the losses of several tasks: `balancer.backward(losses)` in place of `sum(losses).backward()`.

    Args:
        method: a method of `groupwise.balance`, or a callable wrapped in `FromLosses`, `FromGramian`, `FromJacobian`.
        task_only: whether parameters that only one task reaches see its weight ("weighted") or its plain gradient
            ("unweighted"); by default as the method says: loss methods weighted, the others not.
        at: the layer whose gradients a Gramian method takes: a module, parameters, or a name within `parameters`.
        parameters: what may count as shared: a module, a mapping of names to modules or tensors, or tensors. Without
            it, all that two tasks reach is. Tensors that are left out count as task-only. Name the
            trunk where the graph does not show it: losses that are cut out of one tensor, or come out of one compiled
            function, all seem to reach whatever lies below it.
        total_steps, steps_per_epoch: lengths, for weights that are schedules.
        route: "auto", or the one to take: "sequential", "gramian" or "features" (see `BalanceResult.route`).
        nonfinite: what to do about a loss or a gradient that is nan or infinite: leave out that task ("skip_task"),
            write nothing ("skip_step"), or "raise". Said once, and in every result. Loss methods look at no gradient:
            under them only the losses are judged.
        distributed: "joint" balances the joint batch of all processes, for which `parameters` has to be their
            `DistributedDataParallel` module, or the outermost one under `fully_shard`; "local" leaves every process to
            itself.

    Raises:
        BalanceError: arguments that do not go together, or are none.
    """

    _call: str | None = None  # the one that is under way

    @renamed(BalanceError, {"heads": "task_only", "cost": "route", "ranks": "distributed"})
    def __init__(
        self,
        method: Method,
        *,
        task_only: TaskOnly | None = None,
        at: Place | None = None,
        parameters: Parameters | None = None,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        route: RouteChoice = "auto",
        nonfinite: NonFinite = "skip_task",
        distributed: Distributed = "joint",
    ) -> None:
        lengths = total_steps, steps_per_epoch
        self._state = State(setup.read(method, task_only, at, parameters, lengths, route, nonfinite, distributed))

    @classmethod
    @renamed(BalanceError, {"cost": "route", "ranks": "distributed"})
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        at: Place | None = None,
        parameters: Parameters | None = None,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        route: RouteChoice = "auto",
        nonfinite: NonFinite = "skip_task",
        distributed: Distributed = "joint",
    ) -> Balancer:
        """A balancer as the `[balance]` table of a plan file states it; the other arguments are what no file can hold.

        Raises `BalanceError` or `PlanError`.
        """
        from groupwise.balance.plan_table import read_balance  # which needs the readers of plan files and schedules

        checked = read_balance(path)
        return cls(
            checked.method,
            task_only=checked.task_only,
            at=at,
            parameters=parameters,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            route=route,
            nonfinite=nonfinite,
            distributed=distributed,
        )

    @property
    def method(self) -> Method:
        """The method that it was built with."""
        return self._state.method

    @property
    def step(self) -> int:
        """How many updates there were."""
        return self._state.step

    @explained(BalanceError, "Balancer.backward", _OF_BACKWARD)
    def backward(self, losses: Mapping[str, Tensor], features: object = None, scaler: object = None) -> BalanceResult:
        """Add the balanced gradient to `.grad` of every tensor that the losses reach, as `backward` would.

        Args:
            losses: the scalar loss of each task that is present, unscaled.
            features: the tensor or tensors that the heads read, or "auto": look there instead of at the parameters.
            scaler: a `torch.amp.GradScaler`, if one is in use. Do not scale the losses; do unscale and step with it.

        Raises:
            BalanceError: losses that cannot be balanced, naming the task.
        """
        after = " after accumulate" if self._state.accumulated else ""
        call = f"backward{after}{'' if features is None else ' with features'}"
        with self._changing(call, exchanges=True) as reduction:
            with reduction.propagated():
                batch = reduction.given(losses, scaler)._replace(features=features)
                if reduction.state.accumulated and features is not None:
                    raise BalanceError("features= cannot be used in an update that began with accumulate()")
            with without_autocast(batch.losses.values()):
                if not (reduction.state.needs_rows or reduction.state.accumulated):
                    _loss_hooks.call(batch.losses)
                return update.complete(reduction, batch)

    def accumulate(self, losses: Mapping[str, Tensor], scaler: object = None) -> None:
        """Add a micro-batch, or one task's own batch, to the update that the next `backward` completes.

        Gradients add up by task (divide the losses by the number of micro-batches for a mean); tasks may differ from
        call to call. The update equals that of the joint batch: a row is kept for each task, and while one is added
        the old one is there as well. A method whose weights are known beforehand (`Property.SEPARATE`: `Static`,
        `Uncertainty`) takes one weighted backward at once instead, and keeps nothing but the losses.

        A `GroupwiseWarning` comes once an update is at its thousandth backward: `backward` may have been forgotten.
        """
        exchanges = reduction_of(self._state).accumulate_exchanges
        with self._changing("accumulate", exchanges) as reduction:
            with reduction.propagated(exchanges):
                batch = reduction.given(losses, scaler)
            with without_autocast(batch.losses.values()):
                update.accumulate(reduction, batch)

    def discard(self) -> None:
        """Drop what `accumulate` and `learn` have gathered for an update that is not to come.

        What a weighted micro-batch has added to `.grad` is the optimizer's to drop, with `zero_grad()`.
        """
        with self._changing("discard", needs_parameters=False) as reduction:
            reduction.state.discard()

    def after_step(self, losses: Mapping[str, Tensor | float]) -> None:
        """Give the losses on the same batch after the optimizer's step (FAMO).

        One that is not finite is dealt with as `nonfinite` says. Raises `BalanceError` for a task that is not known.
        """
        with self._changing("after_step", exchanges=True, needs_parameters=False) as reduction:
            found = reduction.means(losses)
            reduction.state.after_step(tuple(found), torch.tensor([*found.values()], dtype=torch.float64))

    def learn(self, losses: Mapping[str, Tensor]) -> None:
        """Learn from the losses on a held-out batch (Auto-Lambda), at the next `backward`, which then takes rows."""
        with self._changing("learn", exchanges=True) as reduction:
            with reduction.propagated():
                checked = reduction.differentiable(losses)
            reduction.state.held_out = reduction.held_out(checked)

    def end_epoch(self) -> None:
        """Note that an epoch has ended (DWA)."""
        with self._changing("end_epoch", needs_parameters=False) as reduction:
            state = reduction.state
            state.epoch += 1
            state.method.end_epoch(state.memory)

    def forget(self, task: str) -> None:
        """Drop all that is known of a task that has left for good. Raises `BalanceError` if nothing is."""
        if not isinstance(task, str) or task not in self._state.tasks:
            raise BalanceError(unknown("task", task, sorted(self._state.tasks)))
        with self._changing("forget", needs_parameters=False) as reduction:
            state = reduction.state
            state.memory.forget(task)
            state.tasks = state.tasks - {task}

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy takes. Raises `StateError` in the middle of an update, as `state_dict` does."""
        check_complete(self._state)
        return vars(self).copy()

    def state_dict(self) -> dict[str, Any]:
        """All that the method and the balancer remember, as plain values and tensors.

        Raises `StateError` between `accumulate` or `learn` and the `backward` that completes them.
        """
        return saved(self._state)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises `StateError`, having changed nothing, for what is no such state.

        Tasks may have joined or left since; the next `backward` must have one that the state knows, if it knows any.
        What a method remembers of parameters is found again by their names in `parameters=`; without these, by their
        order, so the first batch has to reach the same ones.
        """
        with self._changing("load_state_dict", needs_parameters=False) as reduction:
            load(reduction.state, state_dict)

    @contextmanager
    def _changing(self, call: str, exchanges: bool = False, needs_parameters: bool = True) -> Iterator[Reduction]:
        """A copy to work on, which takes the old one's place at the end; if that is not reached, nothing has changed.

        Args:
            call: its name, which the ranks compare.
            exchanges: whether it begins with an exchange between ranks, which then have to learn of an error.
            needs_parameters: whether it looks at the parameters.
        """
        if self._call is not None:
            raise BalanceError(
                f"{call} is called while {self._call} of the same balancer is under way, in a hook or another thread: "
                "give each a balancer of its own"
            )
        before = self._state
        state = before.copy()
        reduction, undo = reduction_of(state), state.undo
        done = False
        try:
            self._call = call
            with reduction.propagated(exchanges):
                reduction.begin(call, needs_parameters)
            yield reduction
            self._state = state.finalized()
            done = True
        finally:
            self._call = None
            if not done:
                self._state = before
                if undo is not None:
                    undo.restore()
