"""The balancer: losses by task in, `.grad` out.

The order is fixed and owned here. Gradients are taken (times the scaler's scale), one transfer brings losses and
Gramian to the CPU and takes them back by the scale, each task is judged finite or not, the method is asked about the
tasks that are left, and the update is written. A method never sees a scaled, missing or broken task.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from groupwise.balance.engine import joint, micro, setup, state, update
from groupwise.balance.engine.finite import NonFinite
from groupwise.balance.engine.held_out import HeldOut, gradient_of
from groupwise.balance.engine.places import Parameters, Place
from groupwise.balance.engine.ranks.group import telling
from groupwise.balance.engine.run import Run
from groupwise.balance.engine.scaling import scale_of, without_autocast
from groupwise.balance.engine.setup import Cost, Together
from groupwise.balance.engine.tasks import differentiable, values
from groupwise.balance.files import read_balance
from groupwise.balance.method import Heads, Method
from groupwise.balance.methods import AutoLambda
from groupwise.balance.result import BalanceResult
from groupwise.errors import BalanceError, unknown


@final
class Balancer:
    """Combines the losses of several tasks: `balancer.backward(losses)` in place of `sum(losses).backward()`.

    Args:
        method: a method of `groupwise.balance`, or a callable wrapped in `FromLosses`, `FromGramian`, `FromJacobian`.
        heads: whether parameters that only one task reaches see its weight ("weighted") or its plain gradient ("raw");
            by default as the method says: loss methods weighted, the others raw.
        at: the layer at which a Gramian method looks (GradNorm): a module, parameters, or a name within `parameters`.
        parameters: what may count as shared: a module, a mapping of names to modules or tensors, or tensors. Without
            it, all that two tasks reach is. Tensors that are left out are treated as task-only ones are. Name the
            trunk where the graph cannot tell: losses that are cut out of one tensor, or come out of one compiled
            function, all seem to reach whatever lies below it.
        total_steps, steps_per_epoch: lengths, for weights that are schedules.
        cost: "auto", or the route to take: "sequential", "gramian" or "features" (see `BalanceResult.route`).
        nonfinite: what to do about a loss or a gradient that is nan or infinite: leave out that task ("skip task"),
            write nothing ("skip step"), or "raise". Said once, and in every result. Loss methods look at no gradient:
            under them only the losses are judged.

        ranks: "auto" balances the joint batch of all processes, for which `parameters` has to be their
            `DistributedDataParallel` module, or the outermost one under `fully_shard`; "alone" leaves every process to
            itself.

    Raises:
        BalanceError: arguments that do not go together, or are none.
    """

    def __init__(
        self,
        method: Method,
        heads: Heads | None = None,
        at: Place | None = None,
        parameters: Parameters | None = None,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        cost: Cost = "auto",
        nonfinite: NonFinite = "skip task",
        ranks: Together = "auto",
    ) -> None:
        lengths = total_steps, steps_per_epoch
        self._run = Run(setup.read(method, heads, at, parameters, lengths, cost, nonfinite, ranks))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        at: Place | None = None,
        parameters: Parameters | None = None,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        cost: Cost = "auto",
        nonfinite: NonFinite = "skip task",
        ranks: Together = "auto",
    ) -> Balancer:
        """A balancer as the `[balance]` table of a plan file states it; the other arguments are what no file can hold.

        Raises `BalanceError` or `PlanError`.
        """
        stated = read_balance(path)
        lengths = total_steps, steps_per_epoch
        return cls(stated.method, stated.heads, at, parameters, *lengths, cost, nonfinite, ranks)

    @property
    def method(self) -> Method:
        """The method that it was built with."""
        return self._run.method

    @property
    def step(self) -> int:
        """How many updates there were."""
        return self._run.step

    def backward(self, losses: Mapping[str, Tensor], features: object = None, scaler: object = None) -> BalanceResult:
        """Add the balanced gradient to `.grad` of every tensor that the losses reach, as `backward` would.

        Args:
            losses: the scalar loss of each task that is present, unscaled.
            features: the tensor or tensors that the heads read, or "auto": look there instead of at the parameters.
            scaler: a `torch.amp.GradScaler`, if one is in use. Do not scale the losses; do unscale and step with it.

        Raises:
            BalanceError: losses that cannot be balanced, naming the task.
        """
        with telling(self._run.setup.ranks):
            stated, scale = self._stated(losses, scaler)
        if self._run.pending and features is not None:
            raise BalanceError("features= cannot be used in an update that began with accumulate()")
        with without_autocast(stated.values()):
            if self._run.pending and not self._run.needs_rows:
                return micro.complete(self._run, stated, scale)
            return update.complete(self._run, stated, features, scale)

    def accumulate(self, losses: Mapping[str, Tensor], scaler: object = None) -> None:
        """Add a micro-batch, or one task's own batch, to the update that the next `backward` completes.

        Gradients add up by task (divide the losses by the number of micro-batches for a mean); tasks may differ from
        call to call. Methods that look at gradients keep a row for each task, so the update is exact. Loss methods
        take one weighted backward at once, with the weights that they give to this micro-batch as things stood at
        the start of the update; they learn from the sums, once, at `backward`.
        """
        ranks = self._run.setup.ranks
        exchanging = ranks if ranks is not None and (ranks.parts is not None or not self._run.needs_rows) else None
        with telling(exchanging):
            stated, scale = self._stated(losses, scaler)
        with without_autocast(stated.values()):
            if self._run.needs_rows:
                update.accumulate(self._run, stated, scale)
            else:
                micro.add(self._run, stated, scale)

    def after_step(self, losses: Mapping[str, Tensor | float]) -> None:
        """Tell the losses on the same batch after the optimizer's step (FAMO).

        One that is not finite is dealt with as `nonfinite` says. Raises `BalanceError` for a task that is not known.
        """
        ranks = self._run.setup.ranks
        with telling(ranks):
            found = {} if self._none(losses) else values(losses)
        if ranks is not None:
            found = joint.means(ranks, found)
        told = torch.tensor([*found.values()], dtype=torch.float64)
        self._run.after_step(tuple(found), told)

    def learn(self, losses: Mapping[str, Tensor]) -> None:
        """Learn from the losses on a held-out batch (Auto-Lambda), at the next `backward`, which then takes rows."""
        if not isinstance(self.method, AutoLambda):
            raise BalanceError(f"{self.method.name} learns nothing from held-out losses; AutoLambda does")
        ranks = self._run.setup.ranks
        with telling(ranks):
            stated = self._differentiable(losses)
        if ranks is not None:
            self._run.held_out = joint.held_out(ranks, self._run, self.method, stated)
        else:
            self._run.held_out = HeldOut(gradient_of(stated, self.method.held_out([*stated])))

    def end_epoch(self) -> None:
        """Tell that an epoch has ended (DWA)."""
        self.method.end_epoch(self._run.memory)

    def forget(self, task: str) -> None:
        """Drop all that is known of a task that has left for good. Raises `BalanceError` if nothing is."""
        if task not in self._run.tasks:
            raise BalanceError(unknown("task", task, sorted(self._run.tasks)))
        self._run.memory.forget(task)
        self._run.tasks.remove(task)

    def state_dict(self) -> dict[str, Any]:
        """All that the method and the balancer remember, as plain values and tensors.

        Raises `StateError` between `accumulate` or `learn` and the `backward` that completes them.
        """
        return state.saved(self._run)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises `StateError`, having changed nothing, for what is no such state.

        Tasks may have joined or left since; the next `backward` must have one that the state knows, if it knows any.
        """
        state.load(self._run, state_dict)

    def _stated(self, losses: Mapping[str, Tensor], scaler: object) -> tuple[dict[str, Tensor], Tensor | None]:
        stated, ranks = self._differentiable(losses), self._run.setup.ranks
        if ranks is None:
            self._run.expect(stated)
        like = next(iter(stated.values())) if ranks is None else ranks.like
        return stated, scale_of(scaler, like)

    def _differentiable(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {} if self._none(losses) else differentiable(losses)

    def _none(self, losses: Mapping[str, Any]) -> bool:
        """Whether there are no losses here, as may be on some of several ranks."""
        return self._run.setup.ranks is not None and isinstance(losses, Mapping) and not losses
