"""The observer: it follows an optimizer through its step hooks, and changes nothing.

    before a step   the gradients as backward, or a balancer, left them; at its time a copy of the weights
    after it        the update, what clipping did, what the loop logged: one vector, one transfer, one line

Gradients are seen before clipping wherever clipping is part of the step (a plan's, or a closure's in a trainer). A loop
that clips by itself before `step()` calls `before_clip` in front of it; otherwise its clipped gradients are what there
is to see.

A record is of an update that was made. What was measured and told of a step that raised goes with it.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, final

import torch

from groupwise._step_hooks import StepHooks
from groupwise._torch import steps_under_way
from groupwise.errors import GroupwiseWarning, RecordError, within
from groupwise.observe.cadence import Cadence
from groupwise.observe.errors import Errors, OnError
from groupwise.observe.folders import SEEN_TO_STEP, folder_of
from groupwise.observe.grouping import Grouping
from groupwise.observe.hyperparameters import Values
from groupwise.observe.layers import Model
from groupwise.observe.lengths import lengths_of
from groupwise.observe.measurement import Measurement, Samples
from groupwise.observe.noise import FirstMicroBatch, usable
from groupwise.observe.pending import Pending
from groupwise.observe.programs import inmost, leaves_gradients, scale_of, table_of, unscale_of
from groupwise.observe.ranks import Ranks
from groupwise.observe.record_builder import RecordBuilder
from groupwise.observe.run_log import RunLog, header_of
from groupwise.observe.shares import log_balanced, log_shares
from groupwise.observe.sinks import Sink
from groupwise.observe.under_way import Given, UnderWay
from groupwise.observe.user_metrics import Balanced, UserMetrics
from groupwise.records import PART_BYTES, Step


@final
class Observer:
    """Record what an optimizer does, group by group.

    It records until it is closed, or dropped: hold it, or use it in a `with` statement. (One that is dropped has no end
    mark in its run; one that was dropped before it was of any use says so.) It belongs to the process that made it: in
    a child that is forked from there it does nothing.

    Args:
        optimizer: any `torch.optim.Optimizer`. Its groups go by their `name`, or as "group 0", "group 1", …
        path: the folder of the run (docs/records.md); a run that is there goes on, but if it is finished and the
            optimizer has made no update, a new folder beside it is taken, which a warning names. None writes no file.
        every: a factor on all the cadences, or numbers of updates for some families (`{"updates": 100, "cosines": 0}`).
        by: what a line is about: "group", "rule" (groups that differ by their depth alone are one), "network", or
            "layer": each module that holds parameters, by its path, in the order of the model.
        model: whose names the layers have, with `by="layer"`: the model, or networks by name. Without it the names are
            those that the optimizer has (a plan's, or `AdamW(model.named_parameters())`).
        along_path: take `path_contribution` with every update. It keeps the update until the next gradients are there.
        sinks: where else the numbers go: anything with `log(mapping, step)`.
        scaler: a `GradScaler`, if one is used: updates that it skips are then recorded, as events.
        step: the number of the next update. By default 0, or what follows the last step of the run that is there.
        part_bytes: at which size a file is followed by another one.
        scheduler: a `PlanScheduler`, or another one that has `total_steps`: the run's length is then in its header, so
            a report can tell a run that was stopped, or that outlived its schedule.
        total_steps: the same as a number, where no scheduler has it.
        on_error: what becomes of an error while a step is observed, in a sink for instance. "raise": it comes out of
            `step()`, or of `close()`: before the update, which is not made then, or after it and its record are
            complete. "warn": it is warned of once, as a
            `GroupwiseWarning`, and training goes on. (A disk that is full is always a warning, and ends the recording.)

    Attributes:
        last: the newest record. On an accelerator it is one update behind.
        step: the number of the next update.
        path: the folder that is written, None where there is none.

    Under `torch.distributed` make one on every rank, as the optimizer is: rank 0 writes.

    Raises:
        RecordError: the folder cannot be written, or an argument is none of those above.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        path: str | os.PathLike[str] | None,
        every: int | Mapping[str, int] = 1,
        by: Literal["group", "rule", "network", "layer"] = "group",
        *,
        model: Model | None = None,
        along_path: bool = False,
        sinks: Sequence[Sink] = (),
        scaler: torch.amp.GradScaler | None = None,
        step: int | None = None,
        part_bytes: int = PART_BYTES,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        total_steps: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self._ranks = Ranks()  # first: ranks count their observers, also those that come to nothing
        self._process, self._lock = os.getpid(), threading.RLock()
        with within("Observer"):
            self._optimizer = inmost(optimizer)
            self._cadence, self._errors = Cadence.of(every), Errors(on_error)
            self._grouping = Grouping(self._optimizer, by, model)
            snapshot, self._scale = self._grouping.snapshot(), scale_of(scaler)
            lengths = lengths_of(scheduler, total_steps)
        self._along_path, self._scaler, self._values = along_path, scaler, Values()
        self._told = Given()
        self._samples: Samples = {}
        self._under_way: UnderWay | None = None
        self._shown: Measurement | None = None
        self._writes, self._used = self._ranks.rank == 0, False
        _require_free(path if self._writes else None)
        self.path = folder_of(path if self._writes else None, self._optimizer, step)
        self._folder = None if self.path is None else os.path.realpath(self.path)
        to = (self.path, sinks if self._writes else ())
        header = header_of(self._grouping, snapshot, self._cadence, table_of(self._optimizer), lengths)
        self._log = RunLog(self._grouping, snapshot, header, *to, self._errors, part_bytes)
        self.step = self._log.begin(step)
        self._pending = Pending(self._log, self._writes, self._errors)
        self._hooks: StepHooks | None = StepHooks(self._optimizer, before=self._before, after=self._after)
        self._ranks.announce()
        _observers.add(self)

    @staticmethod
    def writing(folder: str | os.PathLike[str]) -> Observer | None:
        """The observer of this process that writes into a folder, if there is one: to close it, say, in a notebook."""
        path = os.path.realpath(folder)
        return next((each for each in list(_observers) if each._folder == path and each._is_open), None)

    @staticmethod
    def recording() -> tuple[Observer, ...]:
        """The observers of this process that still record: to close those that nobody can reach, say, in a notebook."""
        return tuple(each for each in list(_observers) if each._is_open)

    @property
    def last(self) -> Step | None:
        """The newest record. On an accelerator it is one update behind."""
        return self._pending.newest

    def log(
        self,
        loss: float | torch.Tensor | None = None,
        balance: Balanced | None = None,
        losses: Mapping[str, float | torch.Tensor] | None = None,
        scalars: Mapping[str, float | torch.Tensor] | None = None,
    ) -> None:
        """Record the numbers of the update that comes next; call it before `optimizer.step()`, or in its closure.

        Args:
            loss: the loss, recorded as the scalar "loss".
            balance: what a balancer's `backward` returned.
            losses: the losses of tasks, by name.
            scalars: any other numbers, by name.

        A tensor (of one number) stays on its device until the record does. Of two calls the later number stands.

        Raises:
            RecordError: something is not one number; nothing of the call is kept then.
        """
        if self._process != os.getpid():
            return
        with within("Observer.log"), self._lock:
            told = self._now()
            metrics = told.metrics.copy()
            for name, value in {**({} if loss is None else {"loss": loss}), **(scalars or {})}.items():
                metrics.scalar(name, value)
            if losses is not None:
                metrics.losses(losses)
            if balance is not None:
                self._balanced(balance, metrics)
            told.metrics = metrics

    def tasks(
        self, losses: Mapping[str, torch.Tensor], weights: Mapping[str, float | torch.Tensor] | None = None
    ) -> bool:
        """Take each task's share of the gradient in each group, at the cadence of "tasks"; call it before backward.

        Each loss is differentiated once more, so the graph is kept and every `.grad` stays as it is. Returns whether
        it was time. The losses themselves are logged every time.

        Args:
            losses: the losses, before any weight.
            weights: by task, what each loss is multiplied by. Those of a balancer's result, which is logged with
                `log(balance=…)`, need not be given; without either all are 1.

        Raises:
            RecordError: a loss is not one number, does not require grad, or reaches no parameter, or weights are not of
                the same tasks; nothing of the call is kept then.
        """
        due = "tasks" in self._cadence.due(self.step) and self._is_open
        if self._process == os.getpid():
            with within("Observer.tasks"), self._lock:
                told = self._now()
                metrics = told.metrics.copy()
                metrics.losses(losses)
                metrics.weights(losses, weights)
                if due:
                    log_shares(losses, self._grouping.snapshot(), metrics)
                told.metrics = metrics
        return due

    @torch.no_grad()
    def micro_batch(self, samples: int, divided: bool = True) -> None:
        """Note that a micro-batch of so many samples was added to the gradients; call it after each backward.

        With two or more of one size in an update, the record has the gradient noise scale.

        Args:
            samples: the size of the micro-batch.
            divided: whether the losses were divided by the number of micro-batches (else the gradients are their sum).
        """
        if not self._is_open:
            return
        with self._lock:
            told = self._now()
            if told.batch is not None:
                told.batch.another(samples)
            else:
                scale = self._scaler.get_scale() if self._scaler is not None else 1.0
                told.batch = FirstMicroBatch(self._grouping.snapshot(), samples, divided, 1 / scale)

    @torch.no_grad()
    def before_clip(self) -> None:
        """Look at the gradients now; call it in front of your own clipping, after `scaler.unscale_` if there is one."""
        if not self._is_open:
            return
        with self._lock:
            told = self._now()
            measurement = self._measured(told, closure=False, clone=True)
            if self._under_way is None:
                self._shown = measurement
            else:
                self._under_way.measurement, self._under_way.shown = measurement, True

    def discard(self) -> None:
        """Forget what was logged and measured of an update that does not come: of a batch that is given up, say."""
        if self._process == os.getpid():
            with self._lock:
                told = self._now()
                told.metrics, told.batch, self._shown = UserMetrics(), None, None

    def close(self) -> None:
        """Write what is left, say that the run is finished, and take the hooks away; a second time does nothing."""
        self._end(finished=True)

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(finished=error is None, quietly=error is not None)  # a run that broke off has no end mark

    def __del__(self) -> None:
        if getattr(self, "_hooks", None) is None or sys.is_finalizing() or not self._is_open:
            return
        if self._log.is_heard and not self._used:
            warnings.warn(
                "an Observer records for as long as somebody holds it, and nobody holds this one: "
                "observer = Observer(…), or with Observer(…) as observer: …",
                GroupwiseWarning,
                stacklevel=2,
            )
        self._end(finished=False, quietly=True)

    def _end(self, finished: bool, quietly: bool = False) -> None:
        if not self._is_open:
            self._unhook()
            return
        with self._lock:
            self._unhook()
            if self._used:
                SEEN_TO_STEP.add(self._optimizer)
            left = UnderWay(self._now())
            self._under_way = None
            try:
                if left.told.metrics.numbers and self._writes:
                    self._errors.attempt("writing a record", self.step, self._send, self.step, left, False)
                self._pending.write(wait=True)
            finally:
                self._log.close(self.step if finished else None)
            self._errors.close(quietly)

    def _unhook(self) -> None:
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.remove()

    @property
    def _is_open(self) -> bool:
        """Whether it records: not once it is closed, and not in a child of its process."""
        return self._hooks is not None and self._process == os.getpid()

    def _now(self) -> Given:
        """What is told of: the update that is under way, or the next one. One that raised is gone."""
        self._used, made = True, self._under_way
        if made is not None and made.thread == threading.get_ident() and steps_under_way(self._optimizer) == 0:
            made = self._under_way = None
        return self._told if made is None else made.told

    @torch.no_grad()
    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """The hook before a step."""
        if not self._is_here():
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        with self._lock:
            made, shown = UnderWay(self._told), self._shown
            self._told, self._shown, self._under_way = Given(), None, made
            attempt = functools.partial(self._errors.attempt, "observing a step", self.step)
            if shown is not None:
                attempt(shown.measure_clipped)
            else:
                clone = not leaves_gradients(self._optimizer)
                shown = attempt(self._measured, made.told, closure is not None, clone)
            made.measurement = shown or made.measurement
            self._errors.settle()
        if closure is None or made.measurement.has_gradients:
            return None
        seeing = self._seeing(closure, made)
        return ((args[0], seeing, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": seeing})

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """The hook after a step."""
        made = self._under_way
        if made is None or not self._is_here():
            return
        with self._lock:
            step, self.step, self._under_way, self._used = self.step, self.step + 1, None, True
            taken = self._errors.attempt("observing a step", step, self._measure_update, made.measurement)
            if not taken:
                made = UnderWay(made.told)
            self._samples = made.measurement.samples
            self._errors.attempt("observing a step", step, self._send, step, made)
            self._pending.write()
            self._errors.settle()

    def _measure_update(self, measurement: Measurement) -> bool:
        if measurement.due:
            measurement.measure_update(self._grouping, getattr(self._optimizer, "measured", None))
        return True

    def _send(self, step: int, made: UnderWay, exchange: bool = True) -> None:
        """Have the record sent, if it says anything; where ranks record together, each of them sends."""
        measurement, told = made.measurement, made.told
        path = self._along_path and "updates" in measurement.due
        found_inf = getattr(self._optimizer, "found_inf", None)
        values = self._values.read(measurement.snapshot) if "values" in measurement.due else {}
        builder = RecordBuilder(step, self._log.seconds, measurement, told.metrics, told.batch, found_inf, path, values)
        measurement.release(path)
        if builder.has_content or self._ranks.together or self._pending:
            builder.send(self._ranks if exchange else None)
            self._pending.add(builder)

    def _measured(self, told: Given, closure: bool, clone: bool) -> Measurement:
        """What can be seen before an update: everything, or what does not wait for the gradients of a closure."""
        snapshot, due = self._grouping.snapshot(), self._cadence.due(self.step)
        sharded = snapshot.sharded and self._ranks.world > 1
        if sharded and not self._ranks.together:
            raise RecordError("Observer: parameters are split over the ranks, so every rank has to make an Observer")
        self._watch_scaler(told)
        self._log.watch_groups(self.step, snapshot)
        measurement = Measurement(snapshot, due if self._writes or sharded else frozenset(), self._ranks.world)
        measurement.measure_weights(closure)
        if not closure:
            self._measure_gradients(measurement, told.batch, clone)
        return measurement

    def _watch_scaler(self, told: Given) -> None:
        """A scaler skips by not calling `step`, which its scale shows; a fused step is called, and tells by itself."""
        if self._scaler is None or getattr(self._optimizer, "_step_supports_amp_scaling", False):
            return
        before, self._scale = self._scale, self._scaler.get_scale()
        if self._scale < before:
            told.batch = None  # the micro-batches of what was skipped are among them
            self._log.event(self.step, "skipped", f"an update before this one; the loss scale is {self._scale:g} now")

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

    def _balanced(self, result: Balanced, metrics: UserMetrics) -> None:
        metrics.balance(result)
        if "tasks" in self._cadence.due(self.step):
            log_balanced(result, self._grouping.snapshot(), metrics)
        for task, why in (result.skipped if self._is_open else {}).items():
            self._log.event(self.step, "nonfinite", f"task {task!r} was left out: {why}")

    def _seeing(self, closure: Callable[[], Any], made: UnderWay) -> Callable[[], Any]:
        """The closure, which shows the gradients of its first call, before or after clipping in it."""

        def seeing() -> Any:
            loss = closure()
            with self._lock, torch.no_grad():
                if made.shown:
                    made.shown = False
                    self._errors.attempt("observing a step", self.step, made.measurement.measure_clipped)
                elif not made.measurement.has_gradients:
                    take = functools.partial(self._measure_gradients, made.measurement, made.told.batch, clone=True)
                    self._errors.attempt("observing a step", self.step, take)
            return loss

        return seeing

    def _is_here(self) -> bool:
        """Whether this is the process that records; a child that steps is told once that it does not."""
        here = self._process == os.getpid()
        if not here and self._hooks is not None:
            self._hooks = None
            if self._log.is_heard:
                warnings.warn(
                    f"this process was forked from process {self._process}, whose Observer records; its own steps are "
                    "not recorded: make an Observer here, with a folder of its own",
                    GroupwiseWarning,
                    stacklevel=4,
                )
        return here and self._hooks is not None


def _require_free(path: str | os.PathLike[str] | None) -> None:
    """Raises `RecordError` if another observer of this process writes into a folder."""
    if path is not None and Observer.writing(path) is not None:
        raise RecordError(
            f"Observer: this process is writing into {os.fspath(path)}: Observer.writing({os.fspath(path)!r}).close() "
            "ends that, and the run goes on; or give this one a folder of its own"
        )


_observers: Final[weakref.WeakSet[Observer]] = weakref.WeakSet()
"""The observers of this process, and of those that it was forked from."""
