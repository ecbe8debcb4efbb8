"""Two devices of the host train as one does, where Keras distributes: jax, and tensorflow under a strategy."""

import contextlib
import functools
import importlib
from typing import Any

import keras
import pytest

from groupwise import Plan, Rule, clip_adaptive, clip_norm, trust_ratio, until, update_ratio
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import linear
from tests.keras.nets import difference, fit, functional, weights

PLAN = Plan(
    [
        Rule("*", optimizer="AdamW", lr=linear(0.1, 0.01), weight_decay=0.1),
        Rule("head", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0),
    ],
    clip=clip_norm(0.5),
)
FREEZING = PLAN + [Rule("body", label="early", trainable=until("5 steps"))]
CLIPPING = Plan(
    [
        Rule("*", optimizer="SGD", lr=0.1, momentum=0.9),
        Rule("body", label="bound", clip=clip_norm(0.05)),
        Rule("head", label="units", clip=clip_adaptive(0.05)),
    ],
    clip=clip_norm(0.08),
)

MEASURED = Plan(
    [
        Rule("*", optimizer="SGD", lr=0.5, momentum=0.9, weight_decay=0.1),
        Rule("body", lr=trust_ratio(0.1, of="gradient")),
        Rule("head", lr=trust_ratio(0.1) * update_ratio(0.02, speed=0.5)),
    ]
)


def trained() -> Any:
    model = functional()
    model.compile(GroupedOptimizer(PLAN, total_steps=8).bind(model), "mse")
    fit(model)
    return weights(model)


@pytest.mark.parametrize("kind", ["data", "model"])
def test_two_devices_of_jax_train_as_one(kind: str) -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("keras.distribution is of jax")
    alone = trained()
    devices = keras.distribution.list_devices("cpu")[:2]
    if kind == "data":
        distribution = keras.distribution.DataParallel(devices=devices)
    else:
        mesh = keras.distribution.DeviceMesh((1, 2), ("batch", "model"), devices)
        layout = keras.distribution.LayoutMap(mesh)
        layout["head/kernel"] = (None, None)
        distribution = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    keras.distribution.set_distribution(distribution)
    try:
        together = trained()
    finally:
        keras.distribution.set_distribution(None)
    assert difference(alone, together) < 1e-6


@pytest.fixture
def strategy() -> Any:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("strategies are of tensorflow")
    return mirrored()


@functools.cache
def mirrored() -> Any:
    """One for the process: tensorflow numbers the sums of each anew, and takes one number for one shape for good."""
    return importlib.import_module("tensorflow").distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def under(strategy: Any, optimizer: Any) -> Any:
    """A model that was trained by what `optimizer` makes for it, on the devices of a strategy, or on one for None."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = functional()
        model.compile(optimizer(model), "mse")
    fit(model)
    return model


@pytest.mark.parametrize("plan", [FREEZING, CLIPPING], ids=["freezing", "clipping"])
def test_two_devices_of_a_strategy_train_as_one(strategy: Any, plan: Plan) -> None:
    def ours(model: Any) -> Any:
        return GroupedOptimizer(plan, total_steps=8).bind(model)

    def unclipped(model: Any) -> Any:
        plain = Plan([rule for rule in plan.rules if rule.clip is None])
        return GroupedOptimizer(plain, total_steps=8).bind(model)

    alone = under(None, ours)
    assert difference(alone, under(None, unclipped)) > 1e-3
    assert difference(alone, under(strategy, ours)) < 1e-6


def test_rates_that_follow_measurements_follow_those_of_the_whole_batch(strategy: Any) -> None:
    def ours(model: Any) -> Any:
        return GroupedOptimizer(MEASURED).bind(model)

    alone, together = under(None, ours), under(strategy, ours)
    assert difference(alone, together) < 1e-6
    factors = together.optimizer.rate_factors
    assert factors == pytest.approx(alone.optimizer.rate_factors, rel=1e-4)
    assert all(factor not in (0.0, 1.0) for factor in factors.values())


def test_on_two_devices_of_a_strategy_a_plan_of_one_rule_trains_as_its_class(strategy: Any) -> None:
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.02, weight_decay=0.1)])
    ours = under(strategy, lambda model: GroupedOptimizer(plan).bind(model))
    assert difference(ours, under(strategy, lambda model: keras.optimizers.AdamW(0.02, weight_decay=0.1))) == 0


def test_the_norms_on_two_devices_of_a_strategy_are_those_of_the_whole_batch(strategy: Any) -> None:
    measured = []
    for one in (None, strategy):
        with one.scope() if one else contextlib.nullcontext():
            model = functional()
            model.compile(optimizer := GroupedOptimizer(CLIPPING).bind(model), "mse")
        optimizer.measuring = True
        fit(model, epochs=1)
        measured.append(optimizer.measured)
    assert measured[0].keys() == measured[1].keys()
    for group, found in measured[0].items():
        assert measured[1][group] == pytest.approx(found, abs=1e-6)
