"""Schedulers of torch as schedules: each class that has a twin, and the products and sequences of such.

A scheduler drives the groups of one optimizer, each from a base rate of its own, so what is read is a function from the
base to a schedule. How often a program calls `scheduler.step()` cannot be seen: the unit of all lengths is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from torch.optim import lr_scheduler as torch_schedulers

from groupwise.errors import ScheduleError
from groupwise.schedules import (
    Length,
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    epochs,
    exponential,
    linear,
    multi_step,
    one_cycle,
    plateau,
    polynomial,
    step_decay,
    steps,
    triangular,
)

Unit: TypeAlias = Literal["update", "epoch"]
"""What a program calls `scheduler.step()` after."""

_HELD = (torch_schedulers.StepLR, torch_schedulers.MultiStepLR, torch_schedulers.ConstantLR)
_FACTORS = (*_HELD, torch_schedulers.ExponentialLR, torch_schedulers.LinearLR, torch_schedulers.PolynomialLR)


class UnknownSchedule(Exception):
    """A scheduler that no schedule equals; its text says why."""


def curve(scheduler: Any, group: int, base: float, unit: Unit) -> Schedule:
    """What `scheduler` makes of the group at that position, whose rate is `base` without it.

    Raises `UnknownSchedule` where no schedule equals it, or no value of its can be one.
    """
    read = _READERS.get(type(scheduler))
    if read is None:
        raise UnknownSchedule(f"no schedule of a plan equals {type(scheduler).__name__}")
    length = steps if unit == "update" else epochs
    try:
        return read(scheduler, group, base, length)
    except (ScheduleError, AttributeError, KeyError, IndexError) as error:  # an entry that this version of torch lacks
        raise UnknownSchedule(f"{type(scheduler).__name__}: {error}") from error


def product(schedulers: list[Any], group: int, base: float, unit: Unit) -> Schedule:
    """What several schedulers make of a group together: each multiplies what the others left.

    Raises `UnknownSchedule` where one of them does not only multiply.
    """
    first, *rest = sorted(schedulers, key=lambda each: isinstance(each, _FACTORS))
    for each in rest:
        if type(each) not in _FACTORS:
            raise UnknownSchedule(f"{type(first).__name__} and {type(each).__name__} drive the same groups")
    made = curve(first, group, base, unit)
    for each in rest:
        made = made.scaled(curve(each, group, 1.0, unit))
    return made


def momentum(scheduler: Any, group: Mapping[str, Any], index: int, unit: Unit) -> tuple[str, Schedule] | None:
    """What a scheduler cycles along with the rate, "momentum" or "beta1", and how; None where it does not."""
    if type(scheduler) not in (torch_schedulers.OneCycleLR, torch_schedulers.CyclicLR) or not scheduler.cycle_momentum:
        return None
    rate: Any = curve(scheduler, index, 1.0, unit)
    low, high = group["base_momentum"], group["max_momentum"]
    if isinstance(scheduler, torch_schedulers.CyclicLR):
        low, high = scheduler.base_momentums[index], scheduler.max_momentums[index]
    return "beta1" if "betas" in group else "momentum", rate.momentum(low=low, high=high)


def moves_in_epochs(scheduler: Any) -> bool:
    """Whether the plan's schedule moves within an epoch where the scheduler, stepped once an epoch, holds still."""
    inner = getattr(scheduler, "_schedulers", None)
    return any(map(moves_in_epochs, inner)) if inner else type(scheduler) not in _HELD


def turning_points(scheduler: Any) -> list[int]:
    """After how many steps a cosine begins to rise again, which no cosine of a plan does."""
    inner = getattr(scheduler, "_schedulers", None)
    if inner:
        return [turn for part in inner for turn in turning_points(part)]
    turns = type(scheduler) is torch_schedulers.CosineAnnealingLR
    return [scheduler.T_max] if turns else []


def _step(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return step_decay(base, s.gamma, every=length(s.step_size))


def _multi_step(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return multi_step(base, s.gamma, at=[length(n) for n in sorted(s.milestones.elements())])


def _exponential(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return exponential(base, s.gamma, every=length(1))


def _constant(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return constant(base * s.factor).then(constant(base), at=length(s.total_iters))


def _linear(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return linear(base * s.start_factor, base * s.end_factor, over=length(s.total_iters))


def _polynomial(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return polynomial(base, power=s.power, over=length(s.total_iters))


def _cosine(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return cosine(base, end=s.eta_min, over=length(s.T_max))


def _restarts(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return cosine_restarts(base, end=s.eta_min, first=length(s.T_0), factor=s.T_mult)


def _one_cycle(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    held = s.optimizer.param_groups[group]
    phases = s._schedule_phases
    return one_cycle(
        base * (held["max_lr"] / held["initial_lr"]),
        rise=round((phases[0]["end_step"] + 1) / s.total_steps, 12),
        shape="linear" if s._anneal_func_type == "linear" else "cosine",
        start_divisor=float(f"{held['max_lr'] / held['initial_lr']:.12g}"),
        end_divisor=float(f"{held['initial_lr'] / held['min_lr']:.12g}"),
        three_phase=len(phases) == 3,
        over=length(s.total_steps),
    )


def _cyclic(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    if s.mode not in ("triangular", "triangular2", "exp_range") or s._scale_fn_custom is not None:
        raise UnknownSchedule("CyclicLR with a scale_fn of the program's own")
    up = round(s.total_size * s.step_ratio)
    low, high = s.base_lrs[group], s.max_lrs[group]
    return triangular(
        base, base * (high / low) if base != low else high, up=length(up), down=length(round(s.total_size) - up),
        mode=s.mode, gamma=s.gamma,
    )  # fmt: skip


def _plateau(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return plateau(
        base, s.factor, s.patience, s.threshold, s.threshold_mode, s.mode, s.cooldown, s.min_lrs[group], s.eps
    )


def _sequential(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    unit: Unit = "update" if length is steps else "epoch"
    first, *rest = (curve(part, group, base, unit) for part in s._schedulers)
    for part, milestone in zip(rest, s._milestones, strict=True):
        first = first.then(part, at=length(milestone))
    return first


def _chained(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    return product(list(s._schedulers), group, base, "update" if length is steps else "epoch")


def _lambda(s: Any, group: int, base: float, length: Callable[[int], Length]) -> Schedule:
    """The warmups of transformers, which are partial calls of functions with known names."""
    call = s.lr_lambdas[group]
    function, words = (call.func, call.keywords) if isinstance(call, functools.partial) else (call, {})
    name = getattr(function, "__name__", "")
    if getattr(function, "__module__", "") != "transformers.optimization" or name not in _OF_TRANSFORMERS:
        raise UnknownSchedule("it calls a function of the program's own")
    warm = words.get("num_warmup_steps", 0)
    after = _OF_TRANSFORMERS[name](base, words, length)
    return linear(0.0, base, over=length(warm)).then(after, at=length(warm)) if warm else after


def _falls(base: float, words: Mapping[str, Any], length: Callable[[int], Length]) -> Schedule:
    return linear(base, 0.0, over=length(max(1, words["num_training_steps"] - words["num_warmup_steps"])))


def _half_cosine(base: float, words: Mapping[str, Any], length: Callable[[int], Length]) -> Schedule:
    if words["num_cycles"] != 0.5:
        raise UnknownSchedule(f"a cosine of {words['num_cycles']} cycles")
    return cosine(base, over=length(max(1, words["num_training_steps"] - words["num_warmup_steps"])))


_OF_TRANSFORMERS: Final[Mapping[str, Callable[[float, Mapping[str, Any], Callable[[int], Length]], Schedule]]] = {
    "_get_constant_lambda": lambda base, words, length: constant(base),
    "_get_constant_schedule_with_warmup_lr_lambda": lambda base, words, length: constant(base),
    "_get_linear_schedule_with_warmup_lr_lambda": _falls,
    "_get_cosine_schedule_with_warmup_lr_lambda": _half_cosine,
}
_READERS: Final[Mapping[type, Callable[[Any, int, float, Callable[[int], Length]], Schedule]]] = {
    torch_schedulers.StepLR: _step,
    torch_schedulers.MultiStepLR: _multi_step,
    torch_schedulers.ExponentialLR: _exponential,
    torch_schedulers.ConstantLR: _constant,
    torch_schedulers.LinearLR: _linear,
    torch_schedulers.PolynomialLR: _polynomial,
    torch_schedulers.CosineAnnealingLR: _cosine,
    torch_schedulers.CosineAnnealingWarmRestarts: _restarts,
    torch_schedulers.OneCycleLR: _one_cycle,
    torch_schedulers.CyclicLR: _cyclic,
    torch_schedulers.ReduceLROnPlateau: _plateau,
    torch_schedulers.SequentialLR: _sequential,
    torch_schedulers.ChainedScheduler: _chained,
    torch_schedulers.LambdaLR: _lambda,
}
