"""The two halves of a check on two backends: one saves a run and goes on, the other loads it and goes on.

A run is stopped where as much as possible is under way: schedules, an average of the weights, gradients that are
accumulated and not applied, a loss scale that has grown.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import Plan, Rule, clip_norm
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import cosine, linear
from tests.keras.nets import difference, fit, functional, state, weights

PLAN = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(0.02), weight_decay=linear(0.1, 0.2), beta1=0.8),
        Rule("head", optimizer="SGD", lr=cosine(0.1), momentum=0.9, weight_decay=0.0),
    ],
    clip=clip_norm(0.5),
)
ACCUMULATED = {"gradient_accumulation_steps": 3, "use_ema": True, "ema_momentum": 0.8}  # 3 does not divide the batches
CASES = {"float32": ({}, 5e-6), "accumulated": (ACCUMULATED, 5e-6), "mixed_float16": ({}, 5e-3)}
"""What the optimizer is told, and how far apart two backends may come, by the run's name."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[str]:
    name = str(request.param)
    keras.mixed_precision.set_global_policy(name if name == "mixed_float16" else "float32")
    yield name
    keras.mixed_precision.set_global_policy("float32")


def _place(name: str) -> Path:
    return Path(os.environ["EXCHANGE"]) / name


def test_save(case: str) -> None:
    model = functional()
    optimizer: Any = GroupedOptimizer(PLAN, total_steps=16, **CASES[case][0]).bind(model)
    if case == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0, dynamic_growth_steps=3)
    model.compile(optimizer, "mse")
    fit(model)
    model.save(_place(f"{case}.keras"))
    np.savez(_place(f"{case}_state.npz"), *state(optimizer))
    np.savez(_place(f"{case}_before.npz"), **weights(model))
    fit(model)
    np.savez(_place(f"{case}_after.npz"), **weights(model))


def test_load(case: str) -> None:
    model = keras.models.load_model(_place(f"{case}.keras"))
    if keras.backend.backend() == "torch":
        model.jit_compile = False  # "auto" was saved as what it came to: from jax inductor would compile the step here
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert [group.algorithm for group in optimizer.resolution.groups] == ["AdamW", "SGD"]
    saved = np.load(_place(f"{case}_state.npz"))
    assert len(saved) == len(model.optimizer.variables)
    for own, key in zip(state(model.optimizer), saved, strict=True):
        np.testing.assert_array_equal(own, saved[key])
    assert difference(model, dict(np.load(_place(f"{case}_before.npz")))) == 0
    if case == "mixed_float16":
        assert float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale)) > 4
    fit(model)
    assert difference(model, dict(np.load(_place(f"{case}_after.npz")))) < CASES[case][1]
