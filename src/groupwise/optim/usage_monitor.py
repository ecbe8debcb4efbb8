"""What happens between the optimizer's steps and the scheduler's.

Mistakes in time make no noise: a scheduler that does not exist any more, or is never stepped, leaves every value where
it stands; one that is stepped per epoch while its lengths are in updates hardly moves; one that is stepped before the
first update loses the first value; one whose state was left behind at a resume begins anew; of two schedulers on one
learning rate the last to write wins. Each is warned about once. What a trainer does to gradients before the step leaves
no trace, so clipping twice cannot be seen here.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from groupwise import _torch
from groupwise.errors import GroupwiseWarning, listed
from groupwise.optim.live import StepInfo, names_of
from groupwise.optim.load_report import LoadReport

UNSTEPPED = 50
"""So many updates without one step of the scheduler are a mistake; a part may train alone for a while before."""


class Scheduler(Protocol):
    """What the optimizer reads of a scheduler that runs its plan; `write` writes the values of the current update."""

    last_epoch: int

    @property
    def counts_steps(self) -> bool: ...
    @property
    def step_info(self) -> StepInfo: ...
    def write(self) -> None: ...


class UsageMonitor:
    """Counts updates between the scheduler's steps, by each one's first group: views, one-group steps count apart."""

    def __init__(self, scheduled: bool) -> None:
        self.updates = 0
        self.attached: weakref.ref[Scheduler] | None = None
        self._scheduled = scheduled
        self._pass: int | None = None
        self._since_scheduler_step: Counter[str] = Counter()
        self._scheduler_steps = 0
        self._made = 0
        self._early = False
        self._loaded: int | None = None
        self._placed = False
        self._overwrites = 0
        self._said: set[str] = set()

    @property
    def scheduler(self) -> Scheduler | None:
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
        self._since_scheduler_step[headline] += 1
        self._made += 1
        if self._scheduled:
            self._check_scheduler(self._since_scheduler_step[headline])

    def _check_scheduler(self, since_scheduler_step: int) -> None:
        """Look at the scheduler after an update, the `since_scheduler_step`-th of its kind since the last step."""
        if self.attached is None:
            if since_scheduler_step >= 2:
                self._say(
                    "the plan has schedules, but no PlanScheduler is attached: values stay at their peak. "
                    "Build PlanScheduler(optimizer, total_steps=…) and call its step() after each optimizer.step()"
                )
            return
        scheduler = self.attached()
        if scheduler is None:
            if since_scheduler_step >= 2:
                self._say(
                    "the plan has schedules, but its PlanScheduler is gone, since nothing refers to it any more: "
                    "values stay where they are. Keep it, and call its step() after each optimizer.step()"
                )
            return
        if self._made == 1:
            self._check_start(scheduler)
        if (
            self._scheduler_steps == 0
            and scheduler.counts_steps
            and min(self._since_scheduler_step.values()) >= UNSTEPPED
        ):
            self._say(
                "the plan has schedules, but its PlanScheduler has not been stepped since it was built or loaded: "
                f"{UNSTEPPED} updates were made with the same values. Call scheduler.step() after each optimizer.step()"
            )

    def _check_start(self, scheduler: Scheduler) -> None:
        """Look at the scheduler when the first update is made, after the build or a load."""
        if self._early and self._scheduler_steps == 1 and not self._placed:
            self._say(
                "PlanScheduler was stepped before the first update was made, so the first value of every schedule was "
                "passed over: call scheduler.step() after optimizer.step(). (If it was a GradScaler that skipped the "
                "first update, give it to PlanScheduler(…, scaler=scaler))"
            )
        if self._loaded is not None and not self._placed and scheduler.last_epoch == 0:
            self._say(
                f"the optimizer was loaded with a state of {self._loaded or 'some'} updates, and PlanScheduler stands "
                "at update 0, so every schedule begins anew. If the run is to go on where it was, load the scheduler's "
                "state too: scheduler.load_state_dict(…)"
            )

    def attach(self, scheduler: Scheduler) -> None:
        """Note the scheduler that is to be stepped from now on; it has not been yet."""
        self.attached, self._scheduler_steps = weakref.ref(scheduler), 0
        self._since_scheduler_step.clear()

    def loaded(self, updates: int | None) -> None:
        """Note that the optimizer has the state of an earlier run, of so many updates: 0 if it does not tell, None if
        there was none."""
        self._loaded, self._made, self._scheduler_steps, self._early = updates, 0, 0, False

    def placed(self) -> None:
        """Note that the scheduler has the state of an earlier run."""
        self._placed, self._scheduler_steps = True, 0

    def scheduler_stepped(self, counts_steps: bool) -> None:
        """Note a step of the scheduler; `counts_steps` is whether its lengths are meant in updates."""
        if counts_steps and self._since_scheduler_step and min(self._since_scheduler_step.values()) > 1:
            self._say(
                "the optimizer stepped several times between two steps of PlanScheduler, whose lengths are in updates: "
                "call scheduler.step() after each optimizer.step(), not once per epoch"
            )
        self._since_scheduler_step.clear()
        self._early |= self.updates == 0
        self._scheduler_steps += 1

    def found(self, names: Sequence[str]) -> None:
        """Note the groups whose scheduled lr something else wrote since the last step. Once may be an edit by hand."""
        self._overwrites += bool(names)
        if names and self._overwrites == 2:
            self._say(
                f"something besides PlanScheduler keeps writing the lr of {listed(names, 3)}, which the plan schedules "
                "(a second scheduler?): whichever writes last wins, so let one of the two go"
            )

    def unfrozen(self, groups: Sequence[dict[str, Any]], report: LoadReport | None) -> None:
        """Note groups that a resume has unfrozen and that had been trained: the checkpoint should have had their state.

        DCP passes over what requires no gradient, so a part that is unfrozen only after the load gets nothing.
        """
        missing = set() if report is None else set(report.missing)
        lost = sorted(group["name"] for group in groups if missing.intersection(names_of(group)))
        if lost:
            self._say(
                f"{listed(lost, 3)} had been trained before this resume, but the optimizer has no state for it: it was "
                "still frozen when the optimizer was loaded. Load the scheduler first, then the optimizer"
            )

    def note(self, sentence: str) -> None:
        """Say a sentence, if there is one, and once."""
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
