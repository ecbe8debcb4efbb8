"""The two halves of a check on two backends: one saves a run and goes on, the other loads it and goes on."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from groupwise import Plan, Rule, clip_norm
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import cosine, linear
from tests.keras.nets import fit, functional, weights

PLAN = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(0.02), weight_decay=linear(0.1, 0.2), beta1=0.8),
        Rule("head", optimizer="SGD", lr=cosine(0.1), momentum=0.9, weight_decay=0.0),
    ],
    clip=clip_norm(0.5),
)


def _place(name: str) -> Path:
    return Path(os.environ["EXCHANGE"]) / name


def _gone_on(model: Any) -> Any:
    fit(model)
    return np.concatenate([value.ravel() for value in weights(model).values()])


def test_save() -> None:
    model = functional()
    model.compile(GroupedOptimizer(PLAN, total_steps=16).bind(model), "mse")
    fit(model)
    model.save(_place("model.keras"))
    np.save(_place("after.npy"), _gone_on(model))


def test_load() -> None:
    model = keras.models.load_model(_place("model.keras"))
    if keras.backend.backend() == "torch":
        model.jit_compile = False  # "auto" was saved as what it came to: from jax inductor would compile the step here
    assert [group.algorithm for group in model.optimizer.resolution.groups] == ["AdamW", "SGD"]
    assert np.abs(_gone_on(model) - np.load(_place("after.npy"))).max() < 5e-6
