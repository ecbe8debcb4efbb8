"""The plan's clock: a torch `LRScheduler` that writes every scheduled hyperparameter and moves the freeze timeline.

Schedules are pure functions of the step, so the whole state is one counter (and what plateaus remember). Its steps
belong to the training loop: `optimizer.step()` is called by checkpointing and by ZeRO for their own ends and advances
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, SupportsFloat

from torch.optim.lr_scheduler import LRScheduler

from groupwise._misuse import explained
from groupwise._spelling import shown
from groupwise.errors import OptimizerError, StateError, listed
from groupwise.optim.freezing import check_unfreeze, freeze
from groupwise.optim.grouped_optimizer import GroupedOptimizer
from groupwise.optim.live import StepInfo
from groupwise.optim.plateaus import Memory, carried, saved_memories, to_memories
from groupwise.optim.run_length import foreign_counter, other_length, outlived, plateau_without_metric
from groupwise.optim.scheduled_values import (
    Entry,
    Overwritten,
    Position,
    ScheduledValues,
    overwritten,
    restored,
    saved_overwritten,
    write,
)
from groupwise.optim.skipping import Scaler, SkippedUpdates
from groupwise.plan.time_checks import time_checks


@dataclass(frozen=True)
class _Ready:
    """All that an update is to be made with, evaluated and not yet written."""

    scheduled_values: ScheduledValues
    update: int
    entries: list[Entry]
    named: Mapping[str, float]
    frozen: list[tuple[dict[str, Any], bool]]


_TOTAL = ("T_max", "max_steps", "num_steps", "steps", "num_training_steps", "total_iters", "n_steps", "t_initial")
_EPOCH = ("steps_per_epochs", "epoch_steps", "updates_per_epoch", "num_batches")
_WARMUP = ("warmup", "num_warmup_steps", "warmup_steps", "warmup_t")
_MEANT = {
    **dict.fromkeys(_TOTAL, "say total_steps=, the updates in the whole run"),
    **dict.fromkeys(_EPOCH, "say steps_per_epoch=, the updates in an epoch"),
    **dict.fromkeys(_WARMUP, "a warmup is part of the plan: lr=cosine(1e-3, warmup='5%')"),
    **dict.fromkeys(("eta_min", "end", "lr_min"), "an end is part of the plan: lr=cosine(1e-3, end=1e-5)"),
    "epochs": "say total_steps=, the updates in the whole run, and steps_per_epoch= where lengths are in epochs",
    "last_epoch": "load its state, scheduler.load_state_dict(…), to go on where a run was",
    "lr_lambda": "schedules are part of the plan: lr=cosine(1e-3)",
}


class PlanScheduler(LRScheduler):
    """Run the schedules of a plan.

    A step first evaluates everything, then writes it and counts: one that raises has changed nothing, or, if it was
    interrupted while it wrote, has come to its end.

    Args:
        optimizer: the `GroupedOptimizer` whose plan it is.
        total_steps: updates in the whole run; required if a length is a percent or lasts until the end.
        steps_per_epoch: updates per epoch; required if a length is in epochs.
        scaler: a GradScaler; an update that it skipped does not count.

    Attributes:
        values: the plan's named values, now.

    Raises:
        LengthError: a schedule needs a length that was not given; the rule is named.
        OptimizerError: not a `GroupedOptimizer`, a length that is not a positive whole number, or not a scaler.
    """

    optimizer: GroupedOptimizer

    @explained(OptimizerError, "PlanScheduler", _MEANT)
    def __init__(
        self,
        optimizer: GroupedOptimizer,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        scaler: Scaler | None = None,
    ) -> None:
        if not isinstance(optimizer, GroupedOptimizer):
            raise OptimizerError(_misfit(optimizer))
        for name, length in (("total_steps", total_steps), ("steps_per_epoch", steps_per_epoch)):
            if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
                raise OptimizerError(f"{name} must be a positive whole number, not {length!r}")
        # not as `total_steps`: Accelerate compares an attribute of that name with its count of steps, and None raises
        self._lengths = (total_steps, steps_per_epoch)
        self.values: Mapping[str, float] = {}
        self.optimizer = optimizer
        self._skipped = SkippedUpdates(scaler)
        self._scheduled_values = ScheduledValues(optimizer.resolution, *self._lengths)
        self._prepare(self._scheduled_values, 0)  # before anything knows of this scheduler
        self._monitor = optimizer.attach(self)
        self._seen_updates = self._monitor.updates
        super().__init__(optimizer)
        optimizer._tell_ranks()
        for sentence in time_checks(optimizer.resolution, *self._lengths):
            self._monitor.note(sentence)

    @property
    def step_info(self) -> StepInfo:
        """The current update, and the lengths of the run."""
        return (self.last_epoch, *self._lengths)

    @property
    def counts_steps(self) -> bool:
        """Whether a step of this scheduler is meant as one update, and not as an epoch."""
        return self._scheduled_values.counts_steps

    @explained(
        OptimizerError,
        "PlanScheduler.step",
        dict.fromkeys(("metrics", "metric", "loss"), "a metric goes to observe(metric), after each evaluation"),
    )
    def step(self, epoch: int | None = None) -> None:
        """Advance by one update (or jump to update `epoch`) and write the values that it is to be made with.

        Raises `OptimizerError` for an `epoch` that is no whole number from 0: a metric goes to `observe`.
        """
        if epoch is not None and _whole(epoch) < 0:
            raise OptimizerError(
                f"PlanScheduler.step takes no metric ({shown(epoch)}), at most the number of an update: call step() "
                "after each optimizer.step(), and observe(metric) after each evaluation"
            )
        advances = self.last_epoch >= 0 and epoch is None
        if advances and self._was_skipped():
            self._skipped.note()
            return
        ready = self._prepare(self._current_program(), self.last_epoch + 1 if epoch is None else int(epoch))
        if advances:
            self._monitor.scheduler_stepped(ready.scheduled_values.counts_steps)
            self._monitor.found(self._position.overwritten(self.optimizer._all_groups))
        elif self.last_epoch >= 0:
            self._monitor.jumped()
        made = self.last_epoch if advances and self._monitor.updates != self._seen_updates else None
        self._commit(ready, self._step_count + 1)
        if self.optimizer._agreement.open:  # no update has been made yet
            self.optimizer._tell_ranks()
        if made is not None:
            self._monitor.note(outlived(self._scheduled_values, made))
            self._monitor.note(plateau_without_metric(self._scheduled_values, made))

    def _update_lr(self, epoch: int | None = None) -> None:
        """The turn of this scheduler in torch's SequentialLR has come: jump to an update and write it."""
        self._monitor.turned()
        ready = self._prepare(self._current_program(), self.last_epoch + 1 if epoch is None else epoch)
        self._commit(ready, self._step_count + 1)

    def write(self, stood: Overwritten | None = None) -> None:
        """Write the values of the current update into the groups; after a regroup, into the new ones.

        Where `stood` has what another had written over them when they were saved, that is written in their place.
        """
        ready = self._prepare(self._current_program(), self.last_epoch)
        self._commit(ready)
        write(restored(ready.entries, stood or {}))

    def overwritten(self) -> list[list[Any]]:
        """What stands in the groups in place of the values of the current update: group, hyperparameter, value."""
        if self.last_epoch < 0:
            return []
        return overwritten(self._prepare(self._current_program(), self.last_epoch).entries)

    def observe(self, metric: SupportsFloat) -> None:
        """Give the plan's plateaus their metric, once per evaluation. Raises `OptimizerError` if there are none."""
        scheduled_values = self._current_program()
        if not scheduled_values.states:
            raise OptimizerError("the plan has no plateau(…) schedule, so there is nothing that a metric could change")
        observed = {plateau: plateau.observe(state, metric) for plateau, state in scheduled_values.states.items()}
        self._commit(self._prepare(scheduled_values.restated(observed), self.last_epoch))

    def _was_skipped(self) -> bool:
        """Whether the scaler skipped all that the optimizer, or any view of it, was to do since the last step."""
        made = self._monitor.updates != self._seen_updates
        return self._skipped.since(made, [self.optimizer, *self.optimizer._views.values()])

    def _current_program(self) -> ScheduledValues:
        """What the optimizer's plan says now: after a regroup another program, with the plateaus' states taken over."""
        resolution = self.optimizer.resolution
        if self._scheduled_values.resolution is resolution:
            return self._scheduled_values
        states, _ = carried(to_memories(self._scheduled_values), resolution)
        return ScheduledValues(resolution, *self._lengths).restated(states)

    def _prepare(self, scheduled_values: ScheduledValues, update: int) -> _Ready:
        """Evaluate an update. Raises what a schedule raises, and `OptimizerError` for what cannot be unfrozen."""
        groups = self.optimizer._all_groups
        values = scheduled_values.evaluate(update)
        moving = scheduled_values.moving
        planned = ((group, moving.get(group.get("name", ""))) for group in (groups if moving else ()))
        frozen = [(group, not plan.trainable_at(update, *self._lengths)) for group, plan in planned if plan is not None]
        for group, _ in frozen:  # those that rest, too: what cannot be unfrozen later is an error now
            check_unfreeze(group)
        return _Ready(
            scheduled_values, update, scheduled_values.entries(groups, values), scheduled_values.named(values), frozen
        )

    def _commit(self, ready: _Ready, steps: int | None = None) -> None:
        """Write what was prepared, and count it as that many steps. Nothing in here raises but what comes from outside,
        an interrupt say: then all of it is written again, to the end, before that is let through.
        """
        written = False
        try:
            self._write(ready, steps)
            written = True
        finally:
            if not written:
                self._write(ready, steps)

    def _write(self, ready: _Ready, steps: int | None) -> None:
        write(ready.entries)
        for group, rests in ready.frozen:
            if rests != group.get("frozen", False):
                freeze(group, rests)
        self._scheduled_values, self.values, self.last_epoch = ready.scheduled_values, ready.named, ready.update
        groups = self.optimizer._all_groups
        self._last_lr = [group["lr"] for group in groups]
        rates = dict(zip([group.get("name", "") for group in groups], self._last_lr, strict=True))
        self._position = Position(ready.scheduled_values, ready.update, rates)
        self._monitor.at(self._position)
        if steps is not None:
            self._step_count, self._seen_updates = steps, self._monitor.updates
            self._skipped.note()

    def get_lr(self) -> list[Any]:
        """The learning rate of every group at the current update."""
        return [group["lr"] for group in self.optimizer._all_groups]

    def state_dict(self) -> dict[str, Any]:
        """The counter, the length of the run, each plateau's memory with the rules that it is of, and the values that
        something else (a scheduler whose turn has come in a SequentialLR) has written over those of this update.
        """
        plateaus = {text: memory.to_dict() for text, memory in to_memories(self._scheduled_values).items()}
        counter = {"last_epoch": self.last_epoch, "total_steps": self._lengths[0]}
        return {**counter, "plateaus": plateaus, "overwritten": self.overwritten()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved counter: the values of that update, as they stood then, are written at once.

        A plateau that was edited keeps its reductions, its count and its best metric. The memory of one that is gone is
        left, with a warning, and so is all but the counter of another scheduler's state. Raises `StateError` if there
        is no counter.
        """
        update, memories, stood = _read(state_dict)
        if update < 0:  # it was not yet its turn in a SequentialLR, and what writes until then has its own state
            self.last_epoch = -1
            return
        scheduled_values = self._current_program()
        states, notes = carried(memories, scheduled_values.resolution)
        ready = self._prepare(scheduled_values.restated(states), update)
        frozen = {group["name"] for group in self.optimizer._all_groups if group.get("frozen", False)}
        self._commit(ready, update + 1)
        write(restored(ready.entries, stood))
        self.optimizer._tell_ranks()
        self._monitor.placed()
        length = other_length(scheduled_values, update, state_dict.get("total_steps"))
        for sentence in (foreign_counter(state_dict, update), *notes, length):
            self._monitor.note(sentence)
        again = [name for name in frozen if self._trained_before(name)]
        unfrozen = [group for group in self.optimizer.param_groups if group.get("name") in again]
        self._monitor.unfrozen(unfrozen, self.optimizer.load_report)

    def _trained_before(self, name: str) -> bool:
        """Whether a group was trainable at an earlier update than the current one."""
        planned, step = self._scheduled_values.moving.get(name), self.last_epoch
        return planned is not None and any(planned.trainable_at(t, *self._lengths) for t in (0, step - 1) if t < step)

    def __repr__(self) -> str:
        total, per_epoch = self._lengths
        lengths = f"total_steps={total}" + (f", steps_per_epoch={per_epoch}" if per_epoch is not None else "")
        return f"PlanScheduler(update {self.last_epoch}, {lengths}, {len(self._scheduled_values.rates)} scheduled lr)"

    def __getstate__(self) -> dict[str, Any]:
        """Without the watch, which belongs to the optimizer: what happened since the last step is kept as a count."""
        own = {name: value for name, value in self.__dict__.items() if name != "_monitor"}
        return own | {"_seen_updates": self._seen_updates - self._monitor.updates}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._monitor = self.optimizer.attach(self)
        self._seen_updates += self._monitor.updates


def _read(state_dict: Mapping[str, Any]) -> tuple[int, Mapping[str, Memory], Overwritten]:
    """The update (-1 before the turn of a scheduler in a SequentialLR), the plateaus and the overwritten values
    of a saved state."""
    if not isinstance(state_dict, Mapping) or "last_epoch" not in state_dict:
        has = f"has {listed(map(str, state_dict))}" if isinstance(state_dict, Mapping) else f"is {shown(state_dict)}"
        raise StateError(f"not a PlanScheduler's state: it needs 'last_epoch', this {has}")
    given, plateaus = state_dict["last_epoch"], state_dict.get("plateaus", {})
    update = -1 if given == -1 and not isinstance(given, bool) else _whole(given)
    if (update < 0 and given != -1) or not isinstance(plateaus, Mapping):
        raise StateError(f"a PlanScheduler counts whole updates from 0; this state has last_epoch = {given!r}")
    return update, saved_memories(plateaus), saved_overwritten(state_dict.get("overwritten", ()))


def _whole(number: object) -> int:
    """A whole number from 0, numpy's too; -1 for anything else."""
    if isinstance(number, bool) or not isinstance(number, Integral):
        return -1
    return max(-1, int(number))


def _misfit(optimizer: object) -> str:
    """What is wrong with an optimizer that is none of ours; Accelerate's wrapper has one inside."""
    inside = isinstance(getattr(optimizer, "optimizer", None), GroupedOptimizer)
    way_out = ": give it the one inside, at .optimizer" if inside else ""
    if type(optimizer).__module__.startswith("groupwise.keras"):
        way_out = " of Keras, which schedules itself: GroupedOptimizer(plan, total_steps=…)"
    return f"PlanScheduler schedules a GroupedOptimizer, not {type(optimizer).__name__}{way_out}"
