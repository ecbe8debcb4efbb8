"""The race of one backend of Keras:  KERAS_BACKEND=jax python -m benchmarks.keras_race SECONDS

`keras_step` runs it in a process of its own; its last line is the rows of the table as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.keras_step import PARTS, REFERENCE
from benchmarks.measure import Work, milliseconds, race
from groupwise import Plan, Rule
from groupwise.keras import GroupedOptimizer
from groupwise.select import role

LR, DECAY, MOMENTUM, ROWS = 1e-4, 0.05, 0.9, 32
SIZES = {"24 layers of 64": (24, 64), "12 layers of 512": (12, 512)}

ADAMW = Rule("*", optimizer="AdamW", lr=LR, weight_decay=DECAY)
SGD = Rule("head", optimizer="SGD", lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
PLANS = {
    "plan, 1 group": Plan([ADAMW]),
    "plan, 2 algorithms": Plan([ADAMW, SGD]),
    "plan, 4 groups": Plan([ADAMW, SGD, Rule(role("bias"), weight_decay=0.0)]),
}


def net(layers: int, width: int) -> Any:
    """A row of Dense layers."""
    keras.utils.set_random_seed(0)
    body = [keras.layers.Dense(width, activation="relu", name=f"dense_{i}") for i in range(layers)]
    return keras.Sequential([keras.Input((width,)), *body, keras.layers.Dense(1, name="head")])


def adamw() -> Any:
    """One optimizer of Keras."""
    return keras.optimizers.AdamW(LR, weight_decay=DECAY)


def parts() -> Any:
    """Two optimizers of Keras, by a pattern."""
    by_pattern = keras.optimizers.OptimizerMap(adamw())
    by_pattern[".*head.*"] = keras.optimizers.SGD(LR, momentum=MOMENTUM, weight_decay=DECAY)
    return keras.optimizers.MultiOptimizer(by_pattern)


def step(size: tuple[int, int], optimizer: Callable[[Any], Any]) -> Work:
    """One step of a new model under what `optimizer` makes for it."""
    model, width = net(*size), size[1]
    model.compile(optimizer(model), "mse")
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((ROWS, n)).astype("float32") for n in (width, 1))
    return lambda: model.train_on_batch(x, y)


def raced(seconds: float) -> list[list[str]]:
    """The rows of this process's backend; with 0 seconds the first alone."""
    makers: dict[str, Callable[[Any], Any]] = {REFERENCE: lambda model: adamw(), PARTS: lambda model: parts()}
    makers |= {name: lambda model, plan=plan: GroupedOptimizer(plan).bind(model) for name, plan in PLANS.items()}
    rows = []
    for name, size in [*SIZES.items()][: None if seconds else 1]:
        works = {who: step(size, make) for who, make in makers.items()}
        results = race(works, REFERENCE, seconds, clock=time.process_time)
        others = [results[who] for who in makers if who != REFERENCE]
        ratios = [f"{one.ratio:.2f} ± {one.spread:.2f}" for one in others]
        rows.append([f"{keras.backend.backend()}, {name}", milliseconds(results[REFERENCE].seconds), *ratios])
    return rows


if __name__ == "__main__":
    sys.stdout.write(json.dumps(raced(float(sys.argv[1]))) + "\n")
