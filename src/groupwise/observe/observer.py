"""The observer: it watches an optimizer through its step hooks, and changes nothing.

    before a step   the gradients as backward, or a balancer, left them; at its time a copy of the weights
    after it        the update, what clipping did, what the loop logged: one vector, one transfer, one line

Gradients are seen before clipping wherever clipping is part of the step (a plan's, or a closure's in a trainer). A loop
that clips by itself before `step()` calls `before_clip` in front of it; otherwise its clipped gradients are what there
is to see.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, final

import torch

from groupwise.errors import RecordError, within
from groupwise.observe.cadence import Cadence
from groupwise.observe.draft import Draft
from groupwise.observe.grouping import NOTHING, Grouping
from groupwise.observe.logged import Balanced, Logged
from groupwise.observe.noise import FirstMicroBatch, NoiseScale, usable
from groupwise.observe.programs import inmost, leaves_gradients, scale_of, table_of, unscale_of
from groupwise.observe.ranks import Ranks
from groupwise.observe.run_log import RunLog
from groupwise.observe.shares import log_balanced, log_shares
from groupwise.observe.sinks import Sink
from groupwise.observe.taking import Samples, Taking
from groupwise.observe.values import Values
from groupwise.records import PART_BYTES, Step


@final
class Observer:
    """Record what an optimizer does, group by group.

    Args:
        optimizer: any `torch.optim.Optimizer`. Its groups go by their `name`, or as "group 0", "group 1", …
        path: the folder of the run (docs/records.md); a run that is there goes on. None writes no file.
        every: a factor on all the cadences, or numbers of updates for some families (`{"updates": 100, "cosines": 0}`).
        by: what a line speaks of: "group", "rule" (groups that differ by their depth alone are one) or "network".
        along_path: take `path_contribution` with every update. It keeps the update until the next gradients are there.
        sinks: where else the numbers go: anything with `log(mapping, step)`.
        scaler: a `GradScaler`, if one is used: updates that it skips are then told, as events.
        step: the number of the next update. By default 0, or what follows the last step of the run that is there.
        part_bytes: at which size a file is followed by another one.

    Attributes:
        last: the newest record. On an accelerator it is one update behind.

    Under `torch.distributed` make one on every rank, as the optimizer is: rank 0 writes.

    Raises:
        RecordError: the folder cannot be written, or an argument is none of those above.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        path: str | os.PathLike[str] | None,
        every: int | Mapping[str, int] = 1,
        by: Literal["group", "rule", "network"] = "group",
        *,
        along_path: bool = False,
        sinks: Sequence[Sink] = (),
        scaler: torch.amp.GradScaler | None = None,
        step: int | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        with within("Observer"):
            self._optimizer = inmost(optimizer)
            self._cadence = Cadence.of(every)
            self._grouping = Grouping(self._optimizer, by)
            seen, scale = self._grouping.seen(), scale_of(scaler)
        self._along_path, self._scaler = along_path, scaler
        self._scale = scale
        self._ranks, self._noise, self._logged, self._values = Ranks(), NoiseScale(), Logged(), Values()
        self._taking: Taking | None = None
        self._batch: FirstMicroBatch | None = None
        self._samples: Samples = {}
        self._drafts: deque[Draft] = deque()
        self.last: Step | None = None
        self._writes = self._ranks.rank == 0
        to = (path, sinks) if self._writes else (None, ())
        self._log = RunLog(self._grouping, seen, self._cadence, table_of(self._optimizer), *to, part_bytes)
        self.step = self._log.begin(step)
        hooks = self._optimizer.register_step_pre_hook, self._optimizer.register_step_post_hook
        self._hooks = [hooks[0](self._before), hooks[1](self._after)]

    def log(
        self,
        loss: float | torch.Tensor | None = None,
        balance: Balanced | None = None,
        losses: Mapping[str, float | torch.Tensor] | None = None,
        scalars: Mapping[str, float | torch.Tensor] | None = None,
    ) -> None:
        """Tell the numbers of the update that comes next; call it before `optimizer.step()`.

        Args:
            loss: the loss, recorded as the scalar "loss".
            balance: what a balancer's `backward` returned.
            losses: the losses of tasks, by name.
            scalars: any other numbers, by name.

        A tensor (of one number) stays on its device until the record does. Told twice, the later number stands.

        Raises:
            RecordError: something is not one number.
        """
        with within("Observer.log"):
            for name, value in {**({} if loss is None else {"loss": loss}), **(scalars or {})}.items():
                self._logged.scalar(name, value)
            if losses is not None:
                self._logged.losses(losses)
            if balance is not None:
                self._balanced(balance)

    def tasks(self, losses: Mapping[str, torch.Tensor]) -> bool:
        """Take each task's share of the gradient in each group, at the cadence of "tasks"; call it before backward.

        Each loss is differentiated once more, so the graph is kept and every `.grad` stays as it is. Returns whether
        it was time. The losses themselves are logged every time.

        Raises:
            RecordError: a loss is not one number, does not require grad, or reaches no parameter.
        """
        self.log(losses=losses)
        due = "tasks" in self._cadence.due(self.step) and bool(self._hooks)
        if due:
            with within("Observer.tasks"):
                log_shares(losses, self._grouping.seen(), self._logged)
        return due

    @torch.no_grad()
    def micro_batch(self, samples: int, divided: bool = True) -> None:
        """Tell that a micro-batch of so many samples was added to the gradients; call it after each backward.

        With two or more of one size in an update, the record has the gradient noise scale.

        Args:
            samples: the size of the micro-batch.
            divided: whether the losses were divided by the number of micro-batches (else the gradients are their sum).
        """
        if self._batch is not None:
            self._batch.another(samples)
        elif self._hooks:
            scale = self._scaler.get_scale() if self._scaler is not None else 1.0
            self._batch = FirstMicroBatch(self._grouping.seen(), samples, divided, 1 / scale)

    @torch.no_grad()
    def before_clip(self) -> None:
        """Look at the gradients now; call it in front of your own clipping, after `scaler.unscale_` if there is one."""
        if self._hooks:
            self._taking = self._begin(closure=False)
            self._take_gradients(self._taking, clone=True)

    def close(self) -> None:
        """Write what is left, say that the run is finished, and take the hooks away; a second time does nothing."""
        self._end(finished=True)

    def _end(self, finished: bool) -> None:
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._logged.numbers and self._writes:
            nothing = Taking(NOTHING, frozenset(), 1)
            self._drafts.append(
                Draft(self.step, self._log.seconds, nothing, self._logged, None, None, path=False, values={})
            )
        self._flush(wait=True, exchange=False)
        self._log.close(self.step if finished else None)

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(finished=error is None)  # a run that broke off has no end mark

    @torch.no_grad()
    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """The hook before a step."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if self._taking is not None and self._taking.has_gradients:
            self._taking.take_clipped()
            return None
        self._taking = taking = self._begin(closure is not None)
        if closure is None:
            self._take_gradients(taking, clone=not leaves_gradients(self._optimizer))
            return None
        seeing = self._seeing(closure, taking)
        return ((args[0], seeing, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": seeing})

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """The hook after a step."""
        taking, self._taking = self._taking, None
        if taking is None:
            return
        if taking.due:
            taking.take_update(self._grouping, getattr(self._optimizer, "measured", None))
        path = self._along_path and "updates" in taking.due
        found_inf = getattr(self._optimizer, "found_inf", None)
        values = self._values.read(taking.seen) if "values" in taking.due else {}
        draft = Draft(self.step, self._log.seconds, taking, self._logged, self._batch, found_inf, path, values)
        taking.release(path)
        self._samples, self._logged, self._batch = taking.samples, Logged(), None
        self.step += 1
        if draft.says_something or self._ranks.together or self._drafts:
            self._drafts.append(draft)
        self._flush()

    def _begin(self, closure: bool) -> Taking:
        """What can be taken before the gradients are there."""
        seen, due = self._grouping.seen(), self._cadence.due(self.step)
        sharded = seen.sharded and self._ranks.world > 1
        if sharded and not self._ranks.together:
            raise RecordError("Observer: parameters are split over the ranks, so every rank has to make an Observer")
        self._watch_scaler()
        self._log.watch_groups(self.step, seen)
        taking = Taking(seen, due if self._writes or sharded else frozenset(), self._ranks.world)
        taking.take_weights(closure)
        return taking

    def _watch_scaler(self) -> None:
        """A scaler skips by not calling `step`, which its scale shows; a fused step is called, and tells by itself."""
        if self._scaler is None or getattr(self._optimizer, "_step_supports_amp_scaling", False):
            return
        before, self._scale = self._scale, self._scaler.get_scale()
        if self._scale < before:
            self._log.event(self.step, "skipped", f"an update before this one; the loss scale is {self._scale:g} now")

    def _take_gradients(self, taking: Taking, clone: bool) -> None:
        """The gradients, and with them the end of the path of the update before."""
        sampled = self._cadence.due_next("cosines", self.step) and (self._writes or taking.sharded)
        waiting = bool(self._drafts) and self._drafts[-1].path
        if not (taking.due or sampled or waiting):
            taking.has_gradients = True  # nobody asks for them
            return
        taking.take_gradients(self._samples, unscale_of(self._optimizer), clone, sampled)
        if self._batch is not None and (first := usable(self._batch)) is not None and "gradients" in taking.due:
            taking.take_first(self._batch.params, first)
        if waiting:
            taking.take_path(self._drafts[-1].taking)

    def _balanced(self, result: Balanced) -> None:
        self._logged.balance(result)
        for task, why in result.skipped.items():
            self._log.event(self.step, "nonfinite", f"task {task!r} was left out: {why}")
        if "tasks" in self._cadence.due(self.step):
            log_balanced(result, self._grouping.seen(), self._logged)

    def _seeing(self, closure: Callable[[], Any], taking: Taking) -> Callable[[], Any]:
        """The closure, which shows the gradients of its first call."""

        def seeing() -> Any:
            loss = closure()
            if not taking.has_gradients:
                with torch.no_grad():
                    self._take_gradients(taking, clone=True)
            return loss

        return seeing

    def _flush(self, wait: bool = False, exchange: bool = True) -> None:
        """Send what was taken; write, in order, what is complete and has arrived."""
        for draft in self._drafts:
            draft.send(self._ranks if exchange else None)
        while self._drafts and self._complete(wait) and (wait or self._drafts[0].arrived):
            draft = self._drafts.popleft()
            record = draft.read(self._noise)
            if draft.skipped:
                self._log.event(record.step, "skipped", "the fused step found gradients that are not finite")
            elif self._writes and draft.says_something:
                self.last = record
                self._log.step(record)

    def _complete(self, wait: bool) -> bool:
        """Whether the first draft lacks nothing; the end of a path comes with the draft that follows."""
        first, following = self._drafts[0], self._drafts[1] if len(self._drafts) > 1 else None
        if first.path and (wait or (following is not None and following.arrived)):
            first.end_path(following)
        return not first.path
