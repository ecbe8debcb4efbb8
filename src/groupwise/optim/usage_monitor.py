"""What happens between the optimizer's steps and the scheduler's.

Mistakes in time make no noise: a scheduler that does not exist any more, or is never stepped, leaves every value where
it stands; one that is stepped per epoch while its lengths are in updates hardly moves, and one that is stepped by every
process runs ahead; one that is stepped before the first update loses the first value; one whose state was left behind
at a resume begins anew; one whose place another scheduler takes leaves undone what the plan has still due; of two
schedulers on one learning rate the last to write wins; a part whose training starts late finds its warmup over. Each is
warned about once. What a trainer does to gradients before the step leaves no trace, so clipping twice cannot be seen
here.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch

from groupwise import _torch
from groupwise._warning import warn
from groupwise.errors import listed
from groupwise.optim.first_updates import FirstUpdates
from groupwise.optim.live import StepInfo, names_of
from groupwise.optim.load_report import LoadReport
from groupwise.optim.rates import RateEdit, UndoneEdits
from groupwise.optim.run_length import other_rate, plateau_without_metric, still_due
from groupwise.optim.scheduled_values import Overwritten, Position

UNSTEPPED = 50
"""So many updates without one step of the scheduler are a mistake; a part may train alone for a while before."""

STOPPED = 10
"""So many updates without a step of the scheduler, which had been stepped before, are a mistake, unless as many as
half of them had passed between two of its steps before."""

TAKEN_OVER = 3
"""So many of them are, at rates that something else writes: another scheduler is in its place."""

IN_A_ROW = 3
"""Updates in a row with several steps of the scheduler each; a scaler may skip an update once in a while."""


class Scheduler(Protocol):
    """What the optimizer reads of a scheduler that runs its plan; `write` writes the values of the current update."""

    last_epoch: int

    @property
    def counts_steps(self) -> bool: ...
    @property
    def step_info(self) -> StepInfo: ...
    def write(self, stood: Overwritten | None = None) -> None: ...
    def overwritten(self) -> list[list[Any]]: ...


class UsageMonitor:
    """Counts updates between the scheduler's steps, by each one's first group: views, one-group steps count apart."""

    def __init__(self, scheduled: bool) -> None:
        self.updates = 0
        self.attached: weakref.ref[Scheduler] | None = None
        self._scheduled = scheduled
        self._pass: int | None = None
        self._since_scheduler_step: Counter[str] = Counter()
        self._scheduler_steps = 0
        self._made = self._eager = 0
        self._early = False
        self._loaded: int | None = None
        self._placed = False
        self._overwrites = 0
        self._beside = False
        self._steps_before_update = self._updates_with_several = self._longest = 0
        self._trained: set[str] = set()
        self._position: Position | None = None
        self._done = False
        self._first_updates = FirstUpdates()
        self._edits = UndoneEdits()
        self._saved_rates: Mapping[str, Any] = {}
        self._said: set[str] = set()

    @property
    def scheduler(self) -> Scheduler | None:
        """The scheduler that is attached, if it is still alive."""
        return self.attached() if self.attached is not None else None

    @_torch.untraced
    def stepped(self, groups: Sequence[dict[str, Any]]) -> None:
        """Note an update of `groups`. One at lr 0 everywhere is nobody's: checkpointing has the state made by it.

        The steps that hooks take inside of one backward pass, each for what has its gradient already, are one update.
        """
        before, self._pass = self._pass, _torch.backward_pass()
        if self._pass is not None and self._pass == before:
            return
        self.updates += 1
        steps, self._steps_before_update = self._steps_before_update, 0
        if steps:
            self._updates_with_several = self._updates_with_several + 1 if steps > 1 else 0
            if self._updates_with_several == IN_A_ROW:
                self._say_several(steps)
        if all(map(_is_at_zero, groups)):
            return
        headline = str(groups[0].get("name"))
        self._since_scheduler_step[headline] = since = self._since_scheduler_step[headline] + 1
        self._trained.add(headline)
        self._made += 1
        if self._scheduled and (since > 1 or self._made == 1):
            self._check_scheduler(since, groups)
        if not torch.compiler.is_compiling():  # a compiled step looks at no gradients here: who was updated is unknown
            self._eager += 1
            if self._scheduled and self._eager == self._made and self._first_updates.awaits:
                self.note(self._first_updates.made(groups, self._position, alone=self._made == 1))
            if self._edits.watches:
                self.note(self._edits.found(groups))

    def _say_several(self, steps: int) -> None:
        """Look at updates that were preceded by several steps of the scheduler, as one for each process."""
        scheduler = self.scheduler
        if scheduler is not None and scheduler.counts_steps:
            total = scheduler.step_info[1]
            over = f": total_steps={total} is over after {total // steps} updates" if total is not None else ""
            self._say(
                f"PlanScheduler was stepped {steps} times before each of the last {IN_A_ROW} updates, and its lengths "
                f"are in updates, so they pass {steps} times as fast{over}. Call scheduler.step() once after each "
                "optimizer.step(). (A scheduler that Accelerate prepared does it once for each process: give "
                "Accelerator step_scheduler_with_optimizer=False, and step it where accelerator.sync_gradients)",
                once="several",
            )

    def _check_scheduler(self, since_scheduler_step: int, groups: Sequence[dict[str, Any]]) -> None:
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
                self._check_gone()
            return
        if scheduler.last_epoch < 0:  # one of a SequentialLR, whose turn has not come
            return
        if self._made == 1:
            self._check_start(scheduler)
        if not scheduler.counts_steps:
            return
        if self._scheduler_steps:
            self._check_place(groups)
        elif min(self._since_scheduler_step.values()) >= UNSTEPPED:
            self._check_unstepped()

    def _check_unstepped(self) -> None:
        """Look at a scheduler that was never stepped. A plateau needs none of its steps, only its metric."""
        if self._position is None or "unstepped" in self._said:
            return
        if not self._due():
            self.note(plateau_without_metric(self._position.scheduled_values, self._made))
            return
        self._say(
            "the plan has schedules, but its PlanScheduler has not been stepped since it was built or loaded: "
            f"{UNSTEPPED} updates were made with the same values. Call scheduler.step() after each optimizer.step()",
            once="unstepped",
        )

    def _check_gone(self) -> None:
        due = self._due() if "gone" not in self._said else []
        if due or self._position is None:
            left = f", and what the plan has still due never comes: {listed(due, 4)}" if due else ""
            self._say(
                "the plan has schedules, but its PlanScheduler is gone, since nothing refers to it any more: values "
                f"stay where they are{left}. Keep it, and call its step() after each optimizer.step()",
                once="gone",
            )

    def _due(self, without_rates: bool = False) -> list[str]:
        """What the plan has still to do; looked for until there was nothing, or it was said."""
        due = [] if self._position is None or self._done else still_due(self._position, without_rates)
        self._done = not due
        return due

    def _check_place(self, groups: Sequence[dict[str, Any]]) -> None:
        """Look at updates that are made without steps of the scheduler, which had been stepped before."""
        since, position = min(self._since_scheduler_step[name] for name in self._trained), self._position
        if since < TAKEN_OVER or position is None or "stopped" in self._said:
            return
        taken = position.overwritten(groups)
        if not taken and since < max(STOPPED, 2 * self._longest):
            return
        due = self._due(without_rates=bool(taken))
        if due:
            whose = f"another scheduler has taken over the lr of {listed(taken, 3)}: " if taken else ""
            way_out = _TAKEN if taken else "Call scheduler.step() after each optimizer.step()"
            self._say(
                f"{whose}the last {since} updates were made without a step of PlanScheduler, which stands at update "
                f"{position.update}, and what the plan has still due does not come: {listed(due, 4)}. {way_out}",
                once="stopped",
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
        if self._loaded is None and not self._placed and scheduler.last_epoch == 0 and self._position is not None:
            self.note(other_rate(self._position, self._saved_rates))

    def attach(self, scheduler: Scheduler, beside: bool) -> None:
        """Note the scheduler that is to be stepped from now on, and has not been yet; `beside` says whether there is
        another of torch's already."""
        self._beside = beside and self.attached is None
        self.attached, self._scheduler_steps = weakref.ref(scheduler), 0
        self._since_scheduler_step.clear()

    def loaded(self, updates: int | None, begun: Collection[str], rates: Mapping[str, Any]) -> None:
        """Note that the optimizer has the state of an earlier run.

        Args:
            updates: of so many updates, 0 if it does not say, None if there was no state.
            begun: the groups that were updated in it.
            rates: by group, the learning rate that it had, where the plan declares the same one.
        """
        self._loaded, self._scheduler_steps, self._early = updates, 0, False
        self._since_scheduler_step.clear()
        self._made = self._eager = 0
        self._saved_rates = rates
        self._first_updates.have(begun)

    def edited(self, edits: Iterable[RateEdit]) -> None:
        """Note learning rates that were edited while a scheduler of torch's had them at their base."""
        self._edits = UndoneEdits(edits)

    def at(self, position: Position) -> None:
        """Note where the plan stands: what the scheduler has written last."""
        self._position, self._done = position, False
        self._first_updates.expect(position)

    def placed(self) -> None:
        """Note that the scheduler has the state of an earlier run."""
        self._placed, self._scheduler_steps = True, 0
        self._since_scheduler_step.clear()
        if self._position is not None:
            self._first_updates.pass_over(self._position)

    def turned(self) -> None:
        """Note that the scheduler's turn in a SequentialLR has come."""
        self._since_scheduler_step.clear()
        self._beside = False

    def jumped(self) -> None:
        """Note that the scheduler was told which update it stands at."""
        self._since_scheduler_step.clear()

    def scheduler_stepped(self, counts_steps: bool) -> None:
        """Note a step of the scheduler; `counts_steps` is whether its lengths are meant in updates."""
        since = min(self._since_scheduler_step.values(), default=0)
        self._longest = max(self._longest, since)
        if counts_steps and since > 1:
            self._say(
                f"the optimizer stepped {since} times between two steps of PlanScheduler, whose lengths are in "
                "updates: call scheduler.step() after each optimizer.step(), not once per epoch. (If each of its steps "
                "is meant as an epoch, or a round of several updates, and total_steps counts those, say "
                "steps_per_epoch=1)",
                once="between",
            )
        self._since_scheduler_step.clear()
        self._early |= self.updates == 0
        self._scheduler_steps += 1
        self._steps_before_update += 1

    def found(self, names: Sequence[str]) -> None:
        """Note the groups whose scheduled lr something else wrote since the last step. Once may be an edit by hand,
        unless a scheduler was there before: one like ConstantLR or StepLR writes seldom.
        """
        self._overwrites += bool(names)
        if names and self._overwrites == (1 if self._beside else 2):
            wrote = "wrote" if self._beside else "keeps writing"
            which = "the torch scheduler that was built before it" if self._beside else "a second scheduler"
            self._say(
                f"something besides PlanScheduler {wrote} the lr of {listed(names, 3)}, which the plan schedules "
                f"({which}?): whichever writes last wins, so let one of the two go. (A factor over time is a part of "
                "the plan: lr=scale(linear(0.1, 1.0)))"
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

    def regrouped(self, scheduled: bool, fresh: Collection[str]) -> None:
        """Note that the groups are new ones, some with `fresh` parameters alone: the scheduler writes into them."""
        self._scheduled, self._position = scheduled, None
        self._trained.clear()
        self._since_scheduler_step.clear()
        self._first_updates.restart(fresh)
        scheduler = self.scheduler
        if scheduler is not None and scheduler.last_epoch >= 0:
            scheduler.write()

    def _say(self, message: str, once: str = "") -> None:
        """Say a message that was not said before; messages of one kind, which differ in their numbers, count as one."""
        if (once or message) not in self._said:
            self._said.add(once or message)
            warn(message)


def _is_at_zero(group: Mapping[str, Any]) -> bool:
    rate = group.get("lr")
    return not isinstance(rate, torch.Tensor) and rate == 0


_TAKEN = (
    "Write that rate into the plan, lr=….then(constant(…), at=…), and go on stepping PlanScheduler alone; or regroup "
    "with the plan that is to hold from here on"
)
