"""The public function: check what was given, run on copies, put everything back, say what was found."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from groupwise._shards import is_sharded
from groupwise._spelling import shown
from groupwise.errors import ProbeError, within
from groupwise.optim import GroupedOptimizer
from groupwise.plan import Plan
from groupwise.probing.advice import advise
from groupwise.probing.batches import Batches
from groupwise.probing.games import check_no_game
from groupwise.probing.inspecting import inspected
from groupwise.probing.job import Job, Loss, Model, checked_loss, checked_model, tensors_of
from groupwise.probing.measuring import Recording, Seen
from groupwise.probing.progress import Progress
from groupwise.probing.restoring import restored
from groupwise.probing.result import ProbeResult
from groupwise.probing.saved import Saved
from groupwise.probing.search import Schedule, Trials, classes_of, planned, search
from groupwise.probing.seeing import dominant
from groupwise.probing.single import Single, single_of
from groupwise.probing.trial import Setting
from groupwise.probing.widths import Widths, carried, checked_width

SEVERAL = 2.0
"""The budget from which one AdamW is tried where there are several tasks; below it goes into their weights."""


def probe(
    model: Model | Callable[[], Model] | Callable[[int], Model],
    plan: Plan | str | os.PathLike[str],
    batches: object,
    *,
    loss: Loss,
    total_steps: int,
    steps_per_epoch: int | None = None,
    budget: float = 1.5,
    validation: object = None,
    width: tuple[int, int] | None = None,
    save: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> ProbeResult:
    """Try learning rates on copies of a model for a stated budget, and say what that bears out, if anything.

    Nothing that was given is changed: weights, buffers, gradients, modes and random generators are bit for bit as they
    were, also after an error or an interrupt. What cannot be put back (the batches of an iterator) is said.

    Args:
        model: a module, or a mapping of names to modules or parameters, which is copied; or a function without
            arguments that makes one, so that each seed has initial weights of its own; with `width`, a function of a
            width.
        plan: a `Plan`, or the path of a plan file.
        batches: a list, a DataLoader or another iterable, which is an epoch and is begun again; or a function of a
            seed, or of nothing, that makes one; or an iterator, which is used up as far as it is needed.
        loss: `loss(model, batch)`, a scalar, or a mapping of task to scalar; it is called with the copy.
        total_steps, steps_per_epoch: of the run that is planned, in updates. Shorter runs have its schedules
            compressed.
        budget: what the probe may cost, in runs of `total_steps` updates. Beyond 1.5, rules are tried on their own, and
            more seeds; from 2, one AdamW beside a plan of several tasks.
        validation: what contestants are judged on, in the form of `batches`; by default on batches like those.
        width: that of the runs, and that of the run that is planned, as (16, 256). The plan's factors of shape carry
            the advice from one to the other; the budget is in runs of the first.
        save: a file that takes each contestant when it is done, whole or not at all; with it, a probe that was
            interrupted goes on where it was.
        progress: whether to show a bar, on stderr.

    Returns:
        The result: print it; `result.patch` is TOML, `result.plan` the plan that follows it.

    Raises:
        ProbeError: what was given cannot be tried: no model, a loss that is no scalar, batches that end, no parameter
            that trains, a budget that is too small; losses that work against one another, as a GAN's; no factor of the
            plan that follows the width; or the file is of another probe.
        GroupwiseError: whatever `GroupedOptimizer` raises of the plan.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from groupwise import Plan, Rule, probe
        >>> data = [torch.full((1, 1), 2.0)] * 100
        >>> found = probe(
        ...     nn.Linear(1, 1), Plan([Rule("*", optimizer="SGD", lr=1e-3)]), data,
        ...     loss=lambda model, x: model(x).square().mean(), total_steps=400,
        ... )
        >>> found.rates.verdict
        'change'
    """
    with within("probe"):
        pair = None if width is None else checked_width(width, model)
        narrow = model if pair is None else functools.partial(cast(Callable[[int], Model], model), pair[0])
        job = _job(narrow, plan, batches, loss, _count("total_steps", total_steps), steps_per_epoch, validation)
        spend, bar = _budget(budget), Progress(shown=progress)
        made = None if job.is_made else model
        with restored(made, job.generators()), torch.enable_grad(), bar:
            if pair is not None:
                job = replace(job, widths=_widths(job, model, pair))
            return _probed(job, spend, save, bar)


def _probed(job: Job, budget: float, save: str | os.PathLike[str] | None, bar: Progress) -> ProbeResult:
    """Look, plan the rounds, search, advise."""
    first, single = _first_look(job)
    if len(first) > 1:
        check_no_game(job)
    tries = job.widths is None and (len(first) == 1 or budget >= SEVERAL)
    job = replace(job, single=single if tries else None)
    saved = None if save is None else Saved.at(save, job, budget)
    looked = inspected(job)
    classes = classes_of(job.plan)
    schedule = planned(job.total_steps, budget, _may_weigh(job, first), len(classes), job.single)
    for source in (job.batches, job.validation):
        if source is not None:
            source.keep(schedule.longest)
    trials = Trials(job, {} if saved is None else saved.trials())
    bar.begin(budget * job.total_steps)

    def after(_: object) -> None:
        bar.at(trials.cost)
        if saved is not None:
            saved.write(trials.done.values())

    trials.after = after
    seen = _seen(trials, schedule)
    weights = _weights(first) if _may_weigh(job, first) else ()
    found = search(trials, schedule, weights, classes, job.single, dominant(seen) is not None)
    notes = [source.note for source in (job.batches, job.validation) if source is not None and source.note]
    return advise(job, found, seen, looked, trials.cost / job.total_steps, budget, notes)


def _widths(job: Job, model: Any, width: tuple[int, int]) -> Widths:
    """How the plan carries rates from one width to the other."""

    def made(each: int) -> Model:
        job.seeded(1)
        return checked_model(model(each))

    return carried(made, job.plan, width)


def _seen(trials: Trials, schedule: Schedule) -> Seen:
    """The plan as it is, observed: the rung of the ladder that is run anyway."""
    recording = Recording()
    trials.run(Setting(), 1, schedule.ladder, recording)
    return recording.seen()


def _first_look(job: Job) -> tuple[dict[str, float], Single | None]:
    """The loss of each task before any update, and the one AdamW to be tried beside the plan; what is wrong with a
    model, a loss or a plan comes out here."""
    model = job.fresh(1)
    tensors = tensors_of(model)
    if not tensors:
        raise ProbeError("the model has no parameters")
    if any(map(is_sharded, tensors)):
        raise ProbeError("the model is sharded, and copies of it would have to be, too: probe it before it is wrapped")
    for source in (job.batches, job.validation):
        if source is not None:
            source.keep(1)
    losses = job.losses(model, next(job.take(1, 1)))
    resolution = GroupedOptimizer(model, job.plan).resolution
    total = torch.stack([loss.detach() if not loss.requires_grad else loss for loss in losses.values()]).sum()
    if total.requires_grad:
        torch.autograd.backward(total)
    return {task: float(value.detach()) for task, value in losses.items()}, single_of(
        resolution, [tensor.grad for tensor in tensors]
    )


def _may_weigh(job: Job, first: Mapping[str, float]) -> bool:
    """Whether static weights are to be tried: several tasks, none balanced, each loss above 0."""
    return len(first) > 1 and job.plan.balance is None and all(loss > 0 for loss in first.values())


def _weights(first: Mapping[str, float]) -> Sequence[tuple[str, float]]:
    """1 over the first losses, such that their weighted sum begins where the plain one does; two digits."""
    mean = sum(first.values()) / len(first)
    return tuple((task, float(f"{mean / loss:.1e}")) for task, loss in first.items())


def _job(
    model: Any, plan: Any, batches: Any, loss: Any, total_steps: int, steps_per_epoch: int | None, validation: Any
) -> Job:
    if isinstance(model, torch.nn.Module | Mapping) or not callable(model):
        checked_model(model)
    return Job(
        model,
        plan if isinstance(plan, Plan) else Plan.load(plan),
        Batches(batches),
        checked_loss(loss),
        total_steps,
        None if steps_per_epoch is None else _count("steps_per_epoch", steps_per_epoch),
        None if validation is None else Batches(validation, "validation"),
    )


def _count(name: str, given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ProbeError(f"{name} is the number of updates, a positive whole number, not {shown(given)}")
    return given


def _budget(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise ProbeError(f"budget is a multiple of one whole run, such as 1.5, not {shown(given)}")
    return float(given)
