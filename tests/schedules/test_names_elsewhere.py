"""Who writes torch's arguments is told ours: for every argument of every twin, as torch's own signatures list them."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from torch.optim import lr_scheduler as torchs

from groupwise import schedules
from groupwise.errors import ScheduleError

TWINS: dict[str, type] = {
    "constant": torchs.ConstantLR,
    "cosine": torchs.CosineAnnealingLR,
    "cosine_restarts": torchs.CosineAnnealingWarmRestarts,
    "exponential": torchs.ExponentialLR,
    "function": torchs.LambdaLR,
    "linear": torchs.LinearLR,
    "multi_step": torchs.MultiStepLR,
    "one_cycle": torchs.OneCycleLR,
    "plateau": torchs.ReduceLROnPlateau,
    "polynomial": torchs.PolynomialLR,
    "step_decay": torchs.StepLR,
    "triangular": torchs.CyclicLR,
}
SAID = {
    ("one_cycle", "max_lr"): "say peak=",
    ("triangular", "max_lr"): "say high=",
    ("triangular", "base_lr"): "say low=",
    ("plateau", "min_lr"): "say floor=",
    ("cosine", "eta_min"): "say end=",
    ("cosine", "T_max"): r"PlanScheduler\(optimizer, total_steps=…\)",
    ("cosine", "warmup_ratio"): "say warmup=.* '5%'",
    ("linear", "start_factor"): r"values, not factors: linear\(1e-4, end=1e-3\)",
    ("one_cycle", "cycle_momentum"): r"beta1=rate.momentum\(\)",
    ("cosine", "wramup"): r"did you mean warmup=\?",
    ("cosine", "colour"): "there is peak, end, warmup, over",
}


@pytest.mark.parametrize("kind", TWINS)
def test_every_argument_of_the_twin_is_taken_or_says_what_it_is_here(kind: str) -> None:
    shape: Callable[..., Any] = getattr(schedules, kind)
    ours = inspect.signature(shape).parameters
    theirs = [name for name in inspect.signature(TWINS[kind]).parameters if name != "optimizer" and name not in ours]
    for name in theirs:
        with pytest.raises(ScheduleError, match=f"{kind} has no argument {name}=: ") as said:
            shape(**{name: 1})
        assert "there is " not in str(said.value)
        assert "did you mean" not in str(said.value)


@pytest.mark.parametrize(("kind", "argument"), SAID)
def test_an_argument_from_elsewhere_is_named(kind: str, argument: str) -> None:
    with pytest.raises(ScheduleError, match=SAID[kind, argument]):
        getattr(schedules, kind)(**{argument: 1})
