"""One update of one optimizer, from the hook before its step to its line.

    before a step   the gradients as backward, or a balancer, left them; at its time a copy of the weights
    after it        the update, what clipping did, what the loop logged: one vector, one transfer, one line

A record is of an update that was made. What was measured and given of a step that raised goes with it. A
recorder belongs to the process that made it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, final

import torch

from groupwise import _loss_hooks
from groupwise._step_hooks import StepHooks
from groupwise._torch import steps_under_way
from groupwise._warning import warn
from groupwise.errors import RecordError
from groupwise.observe.activations import Activations
from groupwise.observe.budget import Budget
from groupwise.observe.cadence import Cadence
from groupwise.observe.errors import Errors
from groupwise.observe.folders import SEEN_TO_STEP
from groupwise.observe.grouping import Grouping, GroupSnapshot
from groupwise.observe.hyperparameters import Values
from groupwise.observe.measurement import Measurement
from groupwise.observe.noise import FirstMicroBatch, usable
from groupwise.observe.pending import Pending
from groupwise.observe.programs import leaves_gradients, unscale_of
from groupwise.observe.ranks import Ranks
from groupwise.observe.record_builder import Logged, RecordBuilder
from groupwise.observe.run_log import RunLog
from groupwise.observe.sample import Samples
from groupwise.observe.shares import log_seen
from groupwise.observe.step_events import StepEvents
from groupwise.observe.under_way import RESTING, Given, UnderWay, unmeasured
from groupwise.observe.user_metrics import UserMetrics
from groupwise.records import Group, Step

_UNCOUNTED: Final = nullcontext()


@final
class Recorder:
    """Follows the steps of an optimizer, measures them, and has them written.

    Args:
        optimizer: whose steps.
        grouping, cadence, ranks, errors: what is measured, when, by which process, and what becomes of errors.
        log: where records go.
        scaler: a `GradScaler`, if one is used.
        along_path: whether the path of each update is measured.
        activations: what looks at the layers' outputs, if anything does.
        budget: of what measuring may cost, where cadences may be stretched.
        step: the number of the next update.

    Attributes:
        step: the number of the next update.
        lock: held while something of it changes.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        grouping: Grouping,
        cadence: Cadence,
        ranks: Ranks,
        errors: Errors,
        log: RunLog,
        *,
        scaler: torch.amp.GradScaler | None,
        along_path: bool,
        activations: Activations | None,
        budget: Budget | None,
        step: int,
    ) -> None:
        self.step, self.lock = step, threading.RLock()
        self._optimizer, self._grouping, self._cadence = optimizer, grouping, cadence
        self._ranks, self._errors, self._log = ranks, errors, log
        self._scaler, self._along_path = scaler, along_path
        self._process, self._used, self._writes = os.getpid(), False, ranks.rank == 0
        self._loop_given, self._values = Given(), Values()
        self._awake = 0  # the next update that does not rest; known if it is not this one
        self._samples: Samples | None = None
        self._activations, self._budget = activations, budget
        self._watch_activations()
        self._under_way: UnderWay | None = None
        self._shown: Measurement | None = None
        self._pending = Pending(log, self._writes, errors)
        self._events = StepEvents(optimizer, grouping, log, self._pending, scaler)
        self._hooks: StepHooks | None = StepHooks(optimizer, before=self._before, after=self._after)
        _loss_hooks.register(self)

    @property
    def is_here(self) -> bool:
        """Whether this is the process that records."""
        return self._process == os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether it records: not once it is closed, and not in a child of its process."""
        return self._hooks is not None and self.is_here

    @property
    def is_unused(self) -> bool:
        """Whether it was attached, and there never was anything to record."""
        return self._log.is_heard and not self._used

    @property
    def last(self) -> Step | None:
        """The newest record."""
        if self.is_here:
            with self.lock:
                self._pending.write(now=True)
        return self._pending.newest

    def is_due(self, family: str) -> bool:
        """Whether a family is due at the next update."""
        return family in self._cadence.due(self.step)

    def snapshot(self) -> GroupSnapshot:
        """The groups now."""
        return self._grouping.snapshot()

    def given(self) -> Given:
        """What is given belongs to: the update that is under way, or the next one. One that raised is gone."""
        self._used, made = True, self._under_way
        if made is not None and made.thread == threading.get_ident() and steps_under_way(self._optimizer) == 0:
            made = self._under_way = None
        return self._loop_given if made is None else made.loop_given

    def note_loss(self, loss: torch.Tensor) -> None:
        """The loss of the update that comes next, of no dimension and on the CPU."""
        with self.lock:
            if self._under_way is None:
                self._used, given = True, self._loop_given
            else:
                given = self.given()
            given.metrics.loss(loss.item())

    def before_backward(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Take the shares of tasks that a balancer is about to weight, if it is time and nobody has taken them."""
        if not (self.is_open and self.is_due("tasks")):
            return
        with self.lock:
            metrics = self.given().metrics
            if not metrics.has_shares:
                with self.observing, self.measuring():
                    self._errors.attempt("taking shares", self.step, log_seen, losses, self.snapshot(), metrics)

    @property
    def observing(self) -> AbstractContextManager[None]:
        """Counts what happens in a `with` statement against the budget, if there is one."""
        return _UNCOUNTED if self._budget is None else self._budget.observing

    def measuring(self, due: object = True) -> AbstractContextManager[None]:
        """Counts, within `observing`, what goes with the cadences."""
        return self._budget.measuring if self._budget is not None and due else _UNCOUNTED

    def note_micro_batch(self, samples: int, divided: bool) -> None:
        """A micro-batch of so many samples was added to the gradients."""
        loop_given = self.given()
        if loop_given.batch is not None:
            loop_given.batch.another(samples)
        else:
            scale = self._scaler.get_scale() if self._scaler is not None else 1.0
            loop_given.batch = FirstMicroBatch(self.snapshot(), samples, divided, 1 / scale)

    def show_gradients(self) -> None:
        """Look at the gradients now, before somebody clips them."""
        loop_given = self.given()
        with self.observing, self.measuring():
            measurement = self._measured(loop_given, closure=False, clone=True)
        if self._under_way is None:
            self._shown = measurement
        else:
            self._under_way.measurement, self._under_way.shown = measurement, True

    def forget(self) -> None:
        """Forget what was logged and measured of an update that does not come."""
        loop_given = self.given()
        loop_given.metrics, loop_given.batch, self._shown = UserMetrics(), None, None

    def event(self, event: str, text: str, groups: tuple[Group, ...] | None = None) -> None:
        """Write an event at the next update, after the records before it."""
        self._events.write(self.step, event, text, groups)

    def flush(self) -> None:
        """Write the records that wait for others."""
        if self.is_open:
            with self.lock:
                self._pending.write(now=True)
                self._errors.settle()

    def end(self, finished: bool, quietly: bool = False) -> None:
        """Write what is left and take the hooks away; a second time does nothing.

        Args:
            finished: whether to say that the run is.
            quietly: whether another error is on its way.
        """
        if not self.is_open:
            self._unhook()
            return
        with self.lock:
            self._unhook()
            if self._used:
                SEEN_TO_STEP.add(self._optimizer)
            left = UnderWay(self.given(), unmeasured())
            self._under_way = None
            try:
                if left.loop_given.metrics.numbers and self._writes:
                    self._errors.attempt("writing a record", self.step, self._send, self.step, left, False)
                self._pending.write(wait=True)
            finally:
                self._log.close(self.step if finished else None)
            self._errors.close(quietly)

    def _unhook(self) -> None:
        _loss_hooks.remove(self)
        if self._activations is not None:
            self._activations.close()
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.remove()

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """The hook before a step."""
        with self.observing:
            if not self._can_record():
                return None
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            if closure is None and self._rests():
                with self.lock:
                    self._under_way, self._loop_given = UnderWay(self._loop_given, RESTING), Given()
                return None
            with self.lock, self.measuring(), torch.no_grad():
                made = self._begin(closure)
        if closure is None or made.measurement.has_gradients:
            return None
        seeing = self._seeing(closure, made)
        return ((args[0], seeing, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": seeing})

    def _begin(self, closure: Callable[[], Any] | None) -> UnderWay:
        """An update begins: what can be seen before it."""
        self._events.begin()
        loop_given, shown, self._loop_given, self._shown = self._loop_given, self._shown, Given(), None
        attempt = functools.partial(self._errors.attempt, "observing a step", self.step)
        if shown is not None:
            attempt(shown.measure_clipped)
        else:
            shown = attempt(self._measured, loop_given, closure is not None, not leaves_gradients(self._optimizer))
        made = self._under_way = UnderWay(loop_given, shown or unmeasured())
        self._errors.settle()
        return made

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """The hook after a step."""
        made = self._under_way
        if made is None or not self._can_record():
            return
        if made.measurement is RESTING and self._only_numbers(made.loop_given.metrics):
            self._after_rest(made.loop_given.metrics)
            return
        with self.observing, self.lock, self.measuring(made.measurement is not RESTING):
            step, self.step, self._under_way, self._used = self.step, self.step + 1, None, True
            if made.measurement is not RESTING:
                if not self._errors.attempt("observing a step", step, self._measure_update, made.measurement):
                    made = UnderWay(made.loop_given, unmeasured())
                self._watch_activations()
            self._samples = made.measurement.samples
            self._errors.attempt("observing a step", step, self._send, step, made)
            if self._events.in_doubt:
                self._events.restarted(step)
            self._pending.write()
            self._errors.settle()
        if self._budget is not None and self._budget.ended():
            self._keep(self._budget)

    def _only_numbers(self, metrics: UserMetrics) -> bool:
        """Whether an update at which no family is due has nothing to be read but numbers that are at hand."""
        return (
            all(type(number) is float for number in metrics.numbers.values())
            and not (self._ranks.together or self._events.in_doubt or self._pending.awaits_gradients)
            and getattr(self._optimizer, "found_inf", None) is None
        )

    def _after_rest(self, metrics: UserMetrics) -> None:
        """The end of such an update: what was logged is put aside as it is, and read when lines are written."""
        with self.observing, self.lock:
            step, self.step, self._under_way, self._used, self._samples = self.step, self.step + 1, None, True, None
            if metrics.numbers or metrics.conflicting:
                self._pending.add(Logged(step, self._log.seconds, metrics))
            self._pending.write()
            self._errors.settle()
        if self._budget is not None and self._budget.ended():
            self._keep(self._budget)

    def _rests(self) -> bool:
        """Whether nothing is to be looked at before the next update: most are so where cadences are stretched.

        What a step costs then is a few calls of Python, which take long because the forward pass has emptied the
        caches. Groups that have changed are noticed at the next update at which a family is due.
        """
        if self.step >= self._awake:
            self._awake = self._cadence.next_awake(self.step)
        return (
            self.step < self._awake
            and self._events.looked
            and not (self._events.in_doubt or self._ranks.together or self._along_path)
            and self._scaler is None
            and self._activations is None
            and self._shown is None
            and self._loop_given.batch is None
        )

    def _keep(self, budget: Budget) -> None:
        """Stretch the cadences: it is known now what observing takes of the training's time."""
        seconds, share = budget.spent()
        if self._ranks.together or (factor := budget.stretch()) == 1:
            self._budget = None  # ranks that record together have one cadence
            return
        self._cadence, self._awake = self._cadence.stretched(factor), 0
        self._events.stretched(self.step, seconds, share, self._cadence)

    def _watch_activations(self) -> None:
        """Have the layers looked at in the next forward, if their statistics are due then."""
        if self._activations is not None:
            self._activations.active = self._writes and self.is_due("weights")

    def _measure_update(self, measurement: Measurement) -> bool:
        measured = getattr(self._optimizer, "measured", None)
        if measurement.due and (measured or measurement.sharded or "updates" in measurement.due):
            with torch.no_grad():
                measurement.measure_update(self._grouping, measured)
        return True

    def _send(self, step: int, made: UnderWay, exchange: bool = True) -> None:
        """Have the record sent, if it says anything; where ranks record together, each of them sends."""
        measurement, loop_given = made.measurement, made.loop_given
        path = self._along_path and "updates" in measurement.due
        found_inf = getattr(self._optimizer, "found_inf", None)
        values = self._values.read(measurement.snapshot) if "values" in measurement.due else {}
        builder = RecordBuilder(
            step, self._log.seconds, measurement, loop_given.metrics, loop_given.batch, found_inf, path, values
        )
        if measurement is not RESTING:
            measurement.release(path)
        if builder.has_content or self._ranks.together or self._pending.awaits_gradients is not None:
            builder.send(self._ranks if exchange else None)
            self._pending.add(builder)

    def _measured(self, loop_given: Given, closure: bool, clone: bool) -> Measurement:
        """What can be seen before an update: everything, or what does not wait for the gradients of a closure."""
        snapshot, due = self._grouping.snapshot(), self._cadence.due(self.step)
        sharded = snapshot.sharded and self._ranks.world > 1
        if sharded and not self._ranks.together:
            raise RecordError("Observer: parameters are split over the ranks, so every rank has to make an Observer")
        if self._events.skipped(self.step):
            loop_given.batch = None  # the micro-batches of what was skipped are among them
        self._events.regrouped(self.step, snapshot)
        self._events.look_once(self.step)
        measurement = Measurement(snapshot, due if self._writes or sharded else frozenset(), self._ranks.world)
        measurement.measure_weights(closure)
        if self._activations is not None:
            measurement.measure_activations(self._activations.take())
        if not closure:
            self._measure_gradients(measurement, loop_given.batch, clone)
        return measurement

    def _measure_gradients(self, measurement: Measurement, batch: FirstMicroBatch | None, clone: bool) -> None:
        """The gradients, and with them the end of the path of the update before."""
        sampled = self._cadence.due_next("cosines", self.step) and (self._writes or measurement.sharded)
        waiting = self._pending.awaits_gradients
        if not (measurement.due or sampled or waiting):
            measurement.has_gradients = True  # nobody asks for them
            return
        measurement.measure_gradients(self._samples, unscale_of(self._optimizer), clone, sampled)
        if batch is not None and (first := usable(batch)) is not None and "gradients" in measurement.due:
            measurement.measure_first(batch.params, first)
        if waiting is not None:
            measurement.measure_path(waiting.measurement)

    def _seeing(self, closure: Callable[[], Any], made: UnderWay) -> Callable[[], Any]:
        """The closure, which shows the gradients of its first call, before or after clipping in it."""

        def seeing() -> Any:
            loss = closure()
            with self.lock, torch.no_grad():
                if made.shown:
                    made.shown = False
                    self._errors.attempt("observing a step", self.step, made.measurement.measure_clipped)
                elif not made.measurement.has_gradients:
                    take = functools.partial(
                        self._measure_gradients, made.measurement, made.loop_given.batch, clone=True
                    )
                    self._errors.attempt("observing a step", self.step, take)
            return loss

        return seeing

    def _can_record(self) -> bool:
        """Whether this is the process that records; a child that steps is warned once that it does not."""
        here = self.is_here
        if not here and self._hooks is not None:
            self._hooks = None
            if self._log.is_heard:
                warn(
                    f"this process was forked from process {self._process}, whose Observer records; its own steps are "
                    "not recorded: make an Observer here, with a folder of its own"
                )
        return here and self._hooks is not None
