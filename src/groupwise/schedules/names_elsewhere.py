"""What the arguments of a schedule are called in torch, Keras, optax, timm and transformers.

A shape that is called by one of these, as in `cosine(1e-3, eta_min=1e-5)`, says what it is here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from groupwise._misuse import explained
from groupwise.errors import ScheduleError

if TYPE_CHECKING:
    from groupwise.schedules.shape import Shape

_T = TypeVar("_T", bound="Shape")

_HERE = {
    **dict.fromkeys(("max_lr", "peak_lr", "peak_value"), ("high", "peak", "start", "value")),
    **dict.fromkeys(("lr", "learning_rate", "init_value"), ("peak", "start", "value", "low")),
    **dict.fromkeys(("initial_learning_rate", "initial_lr", "base_lr"), ("low", "peak", "start", "value")),
    **dict.fromkeys(
        ("eta_min", "min_lr", "lr_min", "lr_end", "end_lr", "final_lr", "end_value"), ("end", "floor", "low")
    ),
    **dict.fromkeys(("step_size", "step_size_epochs", "decay_steps", "decay_t"), ("every",)),
    **dict.fromkeys(("gamma", "decay_rate"), ("gamma", "factor")),
    **dict.fromkeys(("milestones", "boundaries", "step_lr_at"), ("at", "points")),
    "pct_start": ("rise",),
    "div_factor": ("start_divisor",),
    "final_div_factor": ("end_divisor",),
    "anneal_strategy": ("shape",),
    "T_0": ("first",),
    "T_mult": ("factor",),
    "step_size_up": ("up",),
    "step_size_down": ("down",),
    "lr_lambda": ("call",),
}
"""By argument elsewhere, the first of these fields that the shape has."""

_WARMUP = ("warmup_steps", "num_warmup_steps", "warmup_ratio", "warmup_epochs", "warmup_t", "warmup_iters", "warm_up")
_LENGTH = ("T_max", "total_steps", "total_iters", "num_training_steps", "max_steps", "num_steps", "t_initial", "epochs")
_MOMENTUM = ("cycle_momentum", "base_momentum", "max_momentum")
_MEANT = {
    **dict.fromkeys(_WARMUP, "say warmup='500 steps', '2 epochs' or '5%'"),
    **dict.fromkeys(_LENGTH, "the length of the run is the scheduler's: PlanScheduler(optimizer, total_steps=…)"),
    **dict.fromkeys(_MOMENTUM, "momentum is a schedule of its own: beta1=rate.momentum()"),
    **dict.fromkeys(
        ("factor", "start_factor", "end_factor"), "a schedule is of values, not factors: linear(1e-4, end=1e-3)"
    ),
    **dict.fromkeys(("scale_fn", "scale_mode"), "a curve of your own is function(call)"),
    "last_epoch": "nothing: a scheduler that is loaded goes on where it was",
    "steps_per_epoch": "it is the scheduler's: PlanScheduler(optimizer, steps_per_epoch=…)",
}


def explained_arguments(cls: type[_T]) -> type[_T]:
    """A class decorator: a call by an argument of another library is a `ScheduleError` that says what it is here."""
    known = {field.name.removesuffix("_") for field in fields(cls)}
    here = {name: next((ours for ours in options if ours in known), None) for name, options in _HERE.items()}
    meant = _MEANT | {name: f"say {ours}=" for name, ours in here.items() if ours is not None}
    type.__setattr__(cls, "__init__", explained(ScheduleError, cls.kind, meant)(vars(cls)["__init__"]))
    return cls
