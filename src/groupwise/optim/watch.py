"""What happens between the optimizer's steps and the scheduler's ticks.

Three mistakes make no noise: a scheduled plan that nobody ticks trains at its peak, one ticked per epoch while its
lengths are in steps hardly moves, and of two schedulers on one learning rate the last to write wins. Each is warned
about once. What a trainer does to gradients before the step leaves no trace, so clipping twice cannot be seen here.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from groupwise import _torch
from groupwise.errors import GroupwiseWarning, listed
from groupwise.optim.live import names_of

if TYPE_CHECKING:
    from groupwise.optim.grouped_optimizer import GroupedOptimizer
    from groupwise.optim.plan_scheduler import PlanScheduler


class Watch:
    """Counts updates between ticks, by the first group of each step: views and one-group steps count apart."""

    def __init__(self, scheduled: bool) -> None:
        self.updates = 0
        self.attached: weakref.ref[PlanScheduler] | None = None
        self._scheduled = scheduled
        self._pass: int | None = None
        self._since_tick: Counter[str] = Counter()
        self._overwrites = 0
        self._said: set[str] = set()

    @property
    def scheduler(self) -> PlanScheduler | None:
        """The scheduler that is attached, if it is still alive."""
        return self.attached() if self.attached is not None else None

    def stepped(self, groups: Sequence[dict[str, Any]]) -> None:
        """Note an update of `groups`. One at lr 0 everywhere is nobody's: checkpointing has the state made by it.

        The steps that hooks take inside of one backward pass, each for what has its gradient already, are one update.
        """
        before, self._pass = self._pass, _torch.backward_pass()
        if self._pass is not None and self._pass == before:
            return
        self.updates += 1
        if all(not isinstance(rate := group.get("lr"), torch.Tensor) and rate == 0 for group in groups):
            return
        headline = str(groups[0].get("name")) if groups else ""
        self._since_tick[headline] += 1
        if self._scheduled and self.attached is None and self._since_tick[headline] == 2:
            self._say(
                "the plan has schedules, but no PlanScheduler is attached: values stay at their peak. "
                "Build PlanScheduler(optimizer, total_steps=…) and call its step() after each optimizer.step()"
            )

    def ticked(self, counts_steps: bool) -> None:
        """Note a tick of the scheduler; `counts_steps` is whether its lengths are meant in updates."""
        if counts_steps and self._since_tick and min(self._since_tick.values()) > 1:
            self._say(
                "the optimizer stepped several times between two ticks of PlanScheduler, whose lengths are in updates: "
                "call scheduler.step() after each optimizer.step(), not once per epoch"
            )
        self._since_tick.clear()

    def found(self, names: Sequence[str]) -> None:
        """Note the groups whose scheduled lr somebody else wrote since the last tick. Once may be an edit by hand."""
        self._overwrites += bool(names)
        if names and self._overwrites == 2:
            self._say(
                f"something besides PlanScheduler keeps writing the lr of {listed(names, 3)}, which the plan schedules "
                "(a second scheduler?): whichever writes last wins, so let one of the two go"
            )

    def thawed(self, names: Sequence[str], optimizer: GroupedOptimizer) -> None:
        """Note groups that a resume has thawed and that had been trained: the checkpoint should have had their state.

        DCP passes over what requires no gradient, so a part that is thawed only after the load gets nothing.
        """
        missing = set(optimizer.load_report.missing) if optimizer.load_report is not None else set()
        groups = [group for group in optimizer.param_groups if group.get("name") in names]
        lost = sorted(group["name"] for group in groups if missing.intersection(names_of(group)))
        if lost:
            self._say(
                f"{listed(lost, 3)} had been trained before this resume, but the optimizer has no state for it: it was "
                "still frozen when the optimizer was loaded. Load the scheduler first, then the optimizer"
            )

    def added(self, sentence: str) -> None:
        """Note what a group that somebody added misses of the plan."""
        if sentence:
            self._say(sentence)

    def regrouped(self, scheduled: bool) -> None:
        """Note that the groups are new ones: the scheduler writes the current values into them."""
        self._scheduled = scheduled
        if self.scheduler is not None:
            self.scheduler.write()

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warnings.warn(message, GroupwiseWarning, stacklevel=4)
