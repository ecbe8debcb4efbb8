"""The plan's clock: a torch `LRScheduler` that writes every scheduled hyperparameter and moves the freeze timeline.

Schedules are pure functions of the step, so the whole state is one counter (and what plateaus remember). Ticks belong
to the training loop: `optimizer.step()` is called by checkpointing and by ZeRO for their own ends and advances nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, SupportsFloat

from torch.optim.lr_scheduler import LRScheduler

from groupwise.errors import OptimizerError, StateError, listed, unknown
from groupwise.optim.freezing import check_thaw, freeze
from groupwise.optim.grouped_optimizer import GroupedOptimizer
from groupwise.optim.live import Moment
from groupwise.optim.program import Program
from groupwise.schedules import PlateauState


class Scaler(Protocol):
    """What `scaler=` must be: a `torch.amp.GradScaler` or its like."""

    def get_scale(self) -> float: ...


class PlanScheduler(LRScheduler):
    """Run the schedules of a plan.

    Args:
        optimizer: the `GroupedOptimizer` whose plan it is.
        total_steps: updates in the whole run; required if a length is a percent or lasts until the end.
        steps_per_epoch: updates per epoch; required if a length is in epochs.
        scaler: a GradScaler; a step that it skipped does not count.

    Attributes:
        values: the plan's named values, now.

    Raises:
        LengthError: a schedule needs a length that was not given; the rule is named.
        OptimizerError: not a `GroupedOptimizer`, or a length that is not a positive whole number.
    """

    optimizer: GroupedOptimizer

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
        # not as `total_steps`: Accelerate compares an attribute of that name with its count of ticks, and None raises
        self._lengths = (total_steps, steps_per_epoch)
        self.values: Mapping[str, float] = {}
        self._scaler = scaler
        self._program = Program(optimizer.resolution, total_steps, steps_per_epoch)
        self._watch = optimizer.attach(self)
        self._seen_updates = self._watch.updates
        super().__init__(optimizer)

    @property
    def moment(self) -> Moment:
        """The current update, and the lengths of the run."""
        return (self.last_epoch, *self._lengths)

    def step(self, epoch: int | None = None) -> None:
        """Advance by one update (or jump to update `epoch`) and write the values that it is to be made with."""
        if self.last_epoch >= 0 and epoch is None:
            if self._scaler is not None and self._watch.updates == self._seen_updates:
                return
            self._watch.ticked(self._program.counts_steps)
            self._watch.found(self._overwritten())
        self._seen_updates = self._watch.updates
        self._step_count += 1
        self.last_epoch = self.last_epoch + 1 if epoch is None else int(epoch)
        self.write()

    def write(self) -> None:
        """Write the values of the current update into the groups; after a regroup, into the new ones."""
        if self._program.resolution is not self.optimizer.resolution:
            states = self._program.states
            self._program = Program(self.optimizer.resolution, *self._lengths)
            self._program.restate(states)
        values = self._program.evaluate(self.last_epoch)
        self._program.write(self.optimizer.param_groups, values)
        self.values = self._program.named(values)
        for group in self.optimizer.param_groups:
            planned = self._program.moving.get(group.get("name", ""))
            if planned is not None:
                frozen = not planned.trainable_at(*self.moment)
                if frozen != group.get("frozen", False):
                    freeze(group, frozen)
                check_thaw(group)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _overwritten(self) -> list[str]:
        """The groups whose scheduled lr is no more what the last tick wrote; tensors stay on the device, unread."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self._last_lr):
            return []
        edited = (g for g, lr in zip(groups, self._last_lr, strict=True) if type(lr) is float and g["lr"] != lr)
        return [name for name in (group.get("name", "") for group in edited) if name in self._program.rates]

    def observe(self, metric: SupportsFloat) -> None:
        """Give the plan's plateaus their metric, once per evaluation. Raises `OptimizerError` if there are none."""
        if not self._program.states:
            raise OptimizerError("the plan has no plateau(…) schedule, so there is nothing that a metric could change")
        self._program.restate({p: p.observe(state, metric) for p, state in self._program.states.items()})
        self.write()

    def get_lr(self) -> list[Any]:
        """The learning rate of every group at the current update."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The counter, and each plateau's memory by the plateau's exact text."""
        plateaus = {repr(p): state.to_dict() for p, state in self._program.states.items()}
        return {"last_epoch": self.last_epoch, "plateaus": plateaus}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved counter: the values of that update are written at once.

        Raises `StateError` if this is no PlanScheduler's state, or of a plateau that the plan does not have.
        """
        if "last_epoch" not in state_dict:
            raise StateError(f"not a PlanScheduler's state: it needs 'last_epoch', this has {listed(state_dict)}")
        epoch, saved = state_dict["last_epoch"], state_dict.get("plateaus", {})
        if not isinstance(epoch, int) or epoch < 0 or not isinstance(saved, Mapping):
            raise StateError(f"a PlanScheduler counts whole updates from 0; this state has last_epoch = {epoch!r}")
        known = {repr(p): p for p in self._program.states}
        for text in saved:
            if text not in known:
                raise StateError(unknown("plateau", text, known))
        self._program.restate({known[text]: PlateauState.from_dict(state) for text, state in saved.items()})
        self.last_epoch = epoch
        self._step_count = self.last_epoch + 1
        self._seen_updates = self._watch.updates
        asleep = {group["name"] for group in self.optimizer.param_groups if group.get("frozen", False)}
        self.write()
        self._watch.thawed([name for name in asleep if self._trained_before(name)], self.optimizer)

    def _trained_before(self, name: str) -> bool:
        """Whether a group was trainable at an earlier update than the current one."""
        planned, step = self._program.moving.get(name), self.last_epoch
        return planned is not None and any(planned.trainable_at(t, *self._lengths) for t in (0, step - 1) if t < step)

    def __getstate__(self) -> dict[str, Any]:
        """Without the watch, which belongs to the optimizer: what happened since the last tick is kept as a count."""
        own = {name: value for name, value in self.__dict__.items() if name != "_watch"}
        return own | {"_seen_updates": self._seen_updates - self._watch.updates}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._watch = self.optimizer.attach(self)
        self._seen_updates += self._watch.updates


def _misfit(optimizer: object) -> str:
    """What is wrong with an optimizer that is none of ours; Accelerate's wrapper has one inside."""
    inside = isinstance(getattr(optimizer, "optimizer", None), GroupedOptimizer)
    way_out = ": give it the one inside, at .optimizer" if inside else ""
    return f"PlanScheduler schedules a GroupedOptimizer, not {type(optimizer).__name__}{way_out}"
