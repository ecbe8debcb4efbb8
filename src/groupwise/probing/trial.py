"""One shortened run: the plan with another rate, on a copy, its schedules compressed to the length that is afforded.

A run of n updates in place of N stands, before update i, where the whole run would at i N / n: warmup, decay and
unfreezing come at the same share of the way, in whatever unit their lengths are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol, TypeAlias, final

from torch import Tensor

from groupwise.balance import Balancer, Static
from groupwise.balance.plan_table import decode
from groupwise.errors import ProbeError
from groupwise.optim import GroupedOptimizer, PlanScheduler
from groupwise.plan import Plan, Rule, scale
from groupwise.probing.job import JUDGED_ON, Job, tensors_of
from groupwise.probing.single import Single

GROWN = 1.5
"""A run that is judged at so many times the loss of its start has diverged."""

SURE = 3.0
"""Standard errors of a slope from which the loss is said to grow."""

FORWARD = 1 / 3
"""What judging on a batch costs, in updates."""


@final
@dataclass(frozen=True)
class Setting:
    """What a contestant changes of the plan.

    Attributes:
        rate: the factor on every learning rate.
        part, factor: a factor more on those that the rule at this place of the plan matches; -1 for none.
        weights: static weights of the tasks, by name; empty for those that the plan has, or 1.
        adamw: the rate of one AdamW in the place of the plan's algorithms and rates; 0 for the plan's own.
    """

    rate: float = 1.0
    part: int = -1
    factor: float = 1.0
    weights: tuple[tuple[str, float], ...] = ()
    adamw: float = 0.0

    def on(self, plan: Plan, single: Single | None = None) -> Plan:
        """The plan that is tried; `single` makes the one AdamW of it."""
        if self.adamw and single is not None:
            return single.plan(plan, self.adamw)
        rules = [Rule("*", label="probe", lr=scale(self.rate))] if self.rate != 1 else []
        if self.part >= 0:
            rules.append(Rule(plan.rules[self.part].match, label="probe part", lr=scale(self.factor)))
        return plan + rules if rules else plan


@final
@dataclass(frozen=True)
class Trial:
    """How a shortened run went.

    Attributes:
        setting, seed, steps: what was run.
        losses: the weighted total before each update, as far as it went.
        start, end: for each batch that all are judged on, the loss of each task before and after.
    """

    setting: Setting
    seed: int
    steps: int
    losses: tuple[float, ...]
    start: tuple[Mapping[str, float], ...]
    end: tuple[Mapping[str, float], ...]

    @property
    def cost(self) -> float:
        """In updates."""
        return len(self.losses) + FORWARD * len(self.end)

    @property
    def diverged(self) -> bool:
        """Whether it met what is not finite, or is judged worse by half than before it began."""
        if len(self.losses) < self.steps or not self.end or not all(map(math.isfinite, self.losses)):
            return True
        return not fmean(self.scores) <= math.log(GROWN)

    @property
    def grows(self) -> bool:
        """Whether the loss rose in the second half beyond its own noise."""
        late = [math.log(x) if x > 0 else math.nan for x in self.losses[self.steps // 2 :]]
        if self.diverged or any(math.isnan(x) for x in late) or len(late) < 4:
            return self.diverged
        slope, error = _slope(late)
        return slope > 0 and slope > SURE * error

    @property
    def scores(self) -> list[float]:
        """For each batch judged on: the mean over tasks of the logarithm of the loss over its start; lower is better.

        Where a loss is not above 0, its change over the size of its start in place of the logarithm.
        """
        return self.scores_of(list(self.start[0]))

    @property
    def changes(self) -> list[float]:
        """The scores beside the start of the same batch, so that how hard a batch is does not count as noise."""
        pairs = zip(self.start, self.end, strict=True)
        return [fmean(_change(after[task], before[task]) for task in before) for before, after in pairs]

    def scores_of(self, tasks: Sequence[str]) -> list[float]:
        """The same of some of the tasks."""
        first = {task: fmean(batch[task] for batch in self.start) for task in tasks}
        return [fmean(_change(batch[task], first[task]) for task in tasks) for batch in self.end]


Judged: TypeAlias = tuple[Mapping[str, float], ...]


class Watch(Protocol):
    """What looks at a run while it is made."""

    def begin(self, optimizer: GroupedOptimizer, model: Any) -> None:
        """Before the first update."""

    def before(self, losses: Mapping[str, Tensor]) -> None:
        """Before the backward pass of an update."""

    def end(self) -> None:
        """After the last update."""


def train(
    job: Job, setting: Setting, seed: int, steps: int, start: Judged | None = None, watch: Watch | None = None
) -> Trial:
    """Run a contestant; `start` is how the model of this seed is judged before, where that is known.

    Raises `ProbeError` if the loss reaches nothing that trains, and whatever the caller's code raises.
    """
    model = job.fresh(seed)
    start = tuple(job.judged(model)) if start is None else start
    plan = setting.on(job.plan, job.single)
    optimizer = GroupedOptimizer(model, plan)
    scheduler = PlanScheduler(optimizer, total_steps=job.total_steps, steps_per_epoch=job.steps_per_epoch)
    balancer = _balancer(job, setting, model)
    if watch is not None:
        watch.begin(optimizer, model)
    job.seeded(seed)
    totals: list[float] = []
    for done, batch in enumerate(job.take(seed, steps), 1):
        losses = job.losses(model, batch)
        total = sum(losses.values()) if balancer is None else None
        if watch is not None:
            watch.before(losses)
        totals.append(_backward(losses, total, balancer))
        if done == 1:
            _require_gradient(model, job)
        if not math.isfinite(totals[-1]):
            break
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step(epoch=round(done * job.total_steps / steps))
    if watch is not None:
        watch.end()
    finished = len(totals) == steps and math.isfinite(totals[-1])
    return Trial(setting, seed, steps, tuple(totals), start, tuple(job.judged(model)) if finished else ())


def _balancer(job: Job, setting: Setting, model: Any) -> Balancer | None:
    if setting.weights:
        return Balancer(Static(dict(setting.weights)))
    if job.plan.balance is None:
        return None
    stated = decode(job.plan.balance)
    return Balancer(
        stated.method, task_only=stated.task_only, total_steps=job.total_steps, steps_per_epoch=job.steps_per_epoch
    )


def _backward(losses: Mapping[str, Tensor], total: Any, balancer: Balancer | None) -> float:
    """Gradients of the total, or as a balancer has them; the total."""
    if balancer is None:
        if not total.requires_grad:
            raise ProbeError("the loss has no graph: it was computed without gradients, or from detached values")
        total.backward()
        return float(total.detach())
    if not all(math.isfinite(float(loss.detach())) for loss in losses.values()):
        return math.nan
    return float(balancer.backward(losses).loss)


def _require_gradient(model: Any, job: Job) -> None:
    """Raises `ProbeError` if the first loss reached nothing of the copy."""
    tensors = tensors_of(model)
    if not any(p.requires_grad for p in tensors):
        raise ProbeError("no parameter trains at the start of the run: there is no rate to be found")
    if all(p.grad is None for p in tensors):
        raise ProbeError(
            "the loss reached no parameter of the model that it was called with: loss(model, batch) has to use that "
            "model, which is a copy, and not the one outside"
        )


def _change(loss: float, start: float) -> float:
    if not math.isfinite(loss):
        return math.inf
    if loss > 0 and start > 0:
        return math.log(max(loss / start, 1e-6))
    return (loss - start) / (abs(start) + 1e-12)


def _slope(values: Sequence[float]) -> tuple[float, float]:
    """Of a line through values one apart, and its standard error."""
    n, middle, mean = len(values), (len(values) - 1) / 2, fmean(values)
    spread = sum((i - middle) ** 2 for i in range(n))
    slope = sum((i - middle) * (v - mean) for i, v in enumerate(values)) / spread
    rest = sum((v - mean - slope * (i - middle)) ** 2 for i, v in enumerate(values))
    return slope, math.sqrt(rest / max(1, n - 2) / spread)


def overhead() -> float:
    """Updates that judging a contestant costs."""
    return FORWARD * JUDGED_ON
