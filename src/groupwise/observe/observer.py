"""The observer: what a user calls. It follows an optimizer through its step hooks, and changes nothing.

Gradients are seen before clipping wherever clipping is part of the step (a plan's, or a closure's in a trainer). A loop
that clips by itself before `step()` calls `before_clip` in front of it; otherwise its clipped gradients are what there
is to see.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Literal, NoReturn, final

import torch

from groupwise._paths import path_of
from groupwise._spelling import shown
from groupwise._warning import warn
from groupwise.errors import RecordError, within
from groupwise.observe.activations import Activations
from groupwise.observe.budget import UNSEEN, Budget
from groupwise.observe.cadence import Cadence
from groupwise.observe.errors import Errors, OnError
from groupwise.observe.folders import folder_of
from groupwise.observe.grouping import Grouping
from groupwise.observe.layers import Model
from groupwise.observe.lengths import lengths_of
from groupwise.observe.programs import inmost, scale_of, table_of
from groupwise.observe.ranks import Ranks
from groupwise.observe.recorder import Recorder
from groupwise.observe.run_log import RunLog, header_of
from groupwise.observe.shares import log_balanced, log_shares
from groupwise.observe.sinks import Sink
from groupwise.observe.user_metrics import Balanced, UserMetrics, is_at_hand
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
            By default the cadences of docs/observe.md, stretched by a whole factor once ten seconds and 200 updates
            have shown that observing takes more than 2.5 % of the training's time; an event of the run says so.
        by: what a line is about: "group", "rule" (groups that differ by their depth alone are one), "network", or
            "layer": each module that holds parameters, by its path, in the order of the model.
        model: whose names the layers have, with `by="layer"`: the model, or networks by name. Without it the names are
            those that the optimizer has (a plan's, or `AdamW(model.named_parameters())`).
        activations: record what each layer puts out, with `by="layer"` and `model=`: `activation_rms`, its root mean
            square, and `dead_units`, the share of its units that are 0 on a whole batch. At the cadence of "weights".
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
        path: the folder that is written, None where there is none.

    Under `torch.distributed` make one on every rank, as the optimizer is: rank 0 writes.

    Raises:
        RecordError: the folder cannot be written, or an argument is none of those above.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        path: str | os.PathLike[str] | None,
        every: int | Mapping[str, int] | None = None,
        by: Literal["group", "rule", "network", "layer"] = "group",
        *,
        model: Model | None = None,
        activations: bool = False,
        along_path: bool = False,
        sinks: Sequence[Sink] = (),
        scaler: torch.amp.GradScaler | None = None,
        step: int | None = None,
        part_bytes: int = PART_BYTES,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        total_steps: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        ranks = Ranks()  # first: ranks count their observers, also those that come to nothing
        with within("Observer"):
            inner, cadence, errors = inmost(optimizer), Cadence.of(every), Errors(on_error)
            grouping = Grouping(inner, by, model)
            cadence = replace(cadence, turns=grouping.has_networks)
            header = header_of(grouping, cadence, table_of(inner), lengths_of(scheduler, total_steps))
            scale_of(scaler)
            watched = _watched(model, by) if activations else None
        writes = ranks.rank == 0
        _require_free(path if writes else None)
        self.path = folder_of(path if writes else None, inner, step)
        self._folder = None if self.path is None else os.path.realpath(self.path)
        log = RunLog(grouping, header, self.path, sinks if writes else (), errors, part_bytes)
        budget = Budget(header.total_steps, cadence.every["updates"], unseen=UNSEEN) if cadence.budgeted else None
        first = log.begin(step)
        self._recorder = Recorder(
            inner,
            grouping,
            cadence,
            ranks,
            errors,
            log,
            scaler=scaler,
            along_path=along_path,
            activations=watched,
            budget=budget,
            step=first,
        )
        ranks.announce()
        _observers.add(self)

    @staticmethod
    def writing(folder: str | os.PathLike[str]) -> Observer | None:
        """The observer of this process that writes into a folder, if there is one: to close it, say, in a notebook."""
        path = os.path.realpath(path_of(folder, RecordError, "the folder of a run"))
        return next((each for each in list(_observers) if each._folder == path and each._recorder.is_open), None)

    @staticmethod
    def recording() -> tuple[Observer, ...]:
        """The observers of this process that still record: to close those that nobody can reach, say, in a notebook."""
        return tuple(each for each in list(_observers) if each._recorder.is_open)

    @property
    def last(self) -> Step | None:
        """The newest record. On an accelerator it is one update behind."""
        return self._recorder.last

    @property
    def step(self) -> int:
        """The number of the next update."""
        return self._recorder.step

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
        recorder = self._recorder
        with recorder.observing:
            if not recorder.is_here:
                return
            if balance is None and losses is None and scalars is None and is_at_hand(loss):
                recorder.note_loss(loss)
                return
            with within("Observer.log"), recorder.lock:
                loop_given = recorder.given()
                metrics = loop_given.metrics.copy()
                if scalars is not None and not isinstance(scalars, Mapping):
                    raise RecordError(f"scalars are numbers by name, {{'accuracy': 0.9}}, not {shown(scalars)}")
                for name, value in {**({} if loss is None else {"loss": loss}), **(scalars or {})}.items():
                    metrics.scalar(name, value)
                if losses is not None:
                    metrics.losses(losses)
                if balance is not None:
                    self._balanced(balance, metrics)
                loop_given.metrics = metrics

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
        due = self._recorder.is_due("tasks") and self._recorder.is_open
        if self._recorder.is_here:
            with within("Observer.tasks"), self._recorder.lock, self._recorder.observing, self._recorder.measuring(due):
                loop_given = self._recorder.given()
                metrics = loop_given.metrics.copy()
                metrics.losses(losses)
                metrics.weights(losses, weights)
                if due:
                    log_shares(losses, self._recorder.snapshot(), metrics)
                loop_given.metrics = metrics
        return due

    @torch.no_grad()
    def micro_batch(self, samples: int, divided: bool = True) -> None:
        """Note that a micro-batch of so many samples was added to the gradients; call it after each backward.

        With two or more of one size in an update, the record has the gradient noise scale.

        Args:
            samples: the size of the micro-batch.
            divided: whether the losses were divided by the number of micro-batches (else the gradients are their sum).
        """
        if self._recorder.is_open:
            with self._recorder.lock:
                self._recorder.note_micro_batch(samples, divided)

    @torch.no_grad()
    def before_clip(self) -> None:
        """Look at the gradients now; call it in front of your own clipping, after `scaler.unscale_` if there is one."""
        if self._recorder.is_open:
            with self._recorder.lock:
                self._recorder.show_gradients()

    def discard(self) -> None:
        """Forget what was logged and measured of an update that does not come: of a batch that is given up, say."""
        if self._recorder.is_here:
            with self._recorder.lock:
                self._recorder.forget()

    def flush(self) -> None:
        """Write the records that wait: without sinks they are written up to 64 at a time, or every two seconds.

        Whoever reads the run while it goes on sees all of it then. At the end of the program it is done for you.
        """
        self._recorder.flush()

    def close(self) -> None:
        """Write what is left, say that the run is finished, and take the hooks away; a second time does nothing."""
        self._recorder.end(finished=True)

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.end(finished=error is None, quietly=error is not None)  # a run that broke off has no end mark

    def __reduce__(self) -> NoReturn:
        raise RecordError(
            "an Observer is not copied and not pickled: it belongs to one optimizer of one process. Make one where the "
            "copy is, and leave this one out of what is copied"
        )

    def __del__(self) -> None:
        recorder = getattr(self, "_recorder", None)
        if recorder is None or sys.is_finalizing() or not recorder.is_open:
            return
        if recorder.is_unused:
            warn(
                "an Observer records for as long as somebody holds it, and nobody holds this one: "
                "observer = Observer(…), or with Observer(…) as observer: …"
            )
        recorder.end(finished=False, quietly=True)

    def _balanced(self, result: Balanced, metrics: UserMetrics) -> None:
        metrics.balance(result)
        if self._recorder.is_due("tasks"):
            log_balanced(result, self._recorder.snapshot(), metrics)
        for task, why in (result.skipped if self._recorder.is_open else {}).items():
            self._recorder.event("nonfinite", f"task {task!r} was left out: {why}")


def _watched(model: Model | None, by: str) -> Activations:
    """What looks at the layers' outputs. Raises `RecordError` where there are no layers to look at."""
    if model is None or by != "layer":
        given = f"by={by!r}" if by != "layer" else "no model"
        raise RecordError(
            f"activations=True records what layers put out, and there is {given}: "
            "give Observer(…, by='layer', model=model, activations=True)"
        )
    return Activations(model)


def _require_free(path: str | os.PathLike[str] | None) -> None:
    """Raises `RecordError` if another observer of this process writes into a folder."""
    if path is not None and Observer.writing(path) is not None:
        raise RecordError(
            f"Observer: this process is writing into {os.fspath(path)}: Observer.writing({os.fspath(path)!r}).close() "
            "ends that, and the run goes on; or give this one a folder of its own"
        )


_observers: Final[weakref.WeakSet[Observer]] = weakref.WeakSet()
"""The observers of this process, and of those that it was forked from."""


@atexit.register
def _write_all() -> None:
    """A program that ends without closing its observers loses nothing."""
    for each in list(_observers):
        each.flush()
