"""Rates that come from outside: factors or rates, each said once where it looks like the other."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule, scale
from groupwise.errors import GroupwiseWarning
from groupwise.keras import GroupedOptimizer, Observer
from groupwise.records import read
from groupwise.schedules import cosine
from tests.keras.nets import difference, fit, functional

PLAN = Plan([Rule("*", optimizer="SGD", lr=1e-3), Rule("body", lr=scale(0.1))])
LOOKS_ABSOLUTE = "looks like a rate: as a factor, what the plan declares as 0.001 trains at"


def compiled(plan: Plan = PLAN, **options: Any) -> Any:
    model = functional()
    model.compile(GroupedOptimizer(plan, total_steps=16, **options).bind(model), "mse")
    return model


def absolute(epoch: int, rate: float) -> float:
    return 1e-2 if epoch < 1 else 1e-3


def test_a_scheduler_of_absolute_rates_is_said_once_with_both_readings() -> None:
    model = compiled()
    both = rf"0\.01 {LOOKS_ABSOLUTE} 1e-05; as a rate .* at 0\.01\. .*learning_rate_as"
    with pytest.warns(GroupwiseWarning, match=both) as told:
        fit(model, callbacks=[keras.callbacks.LearningRateScheduler(absolute)])
    assert sum(one.category is GroupwiseWarning for one in told) == 1


def test_as_a_rate_it_is_that_of_the_first_rule_and_the_others_keep_their_proportion() -> None:
    model, twin = compiled(learning_rate_as="rate"), functional()
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(1e-3)
    rates = Plan([Rule("*", optimizer="SGD", lr=1e-2), Rule("body", lr=scale(0.1))])
    twin.compile(GroupedOptimizer(rates).bind(twin), "mse")
    history = fit(model, epochs=1, callbacks=[keras.callbacks.LearningRateScheduler(absolute)]).history
    fit(twin, epochs=1)
    assert history["learning_rate"] == pytest.approx([1e-2])
    assert model.optimizer.rates == pytest.approx({"base": 1e-2, "body": 1e-3})
    assert difference(model, twin) < 1e-6


def test_a_schedule_of_keras_is_read_either_way() -> None:
    decay = keras.optimizers.schedules.ExponentialDecay(1e-2, 4, 0.5)
    with pytest.warns(GroupwiseWarning, match=rf"ExponentialDecay, which reaches 0\.01 {LOOKS_ABSOLUTE}"):
        GroupedOptimizer(PLAN, learning_rate=decay)
    model, twin = compiled(learning_rate=decay, learning_rate_as="rate"), functional()
    twin.compile(keras.optimizers.SGD(decay), "mse")
    body = Plan([Rule("*", optimizer="SGD", lr=1e-3)])
    alone = compiled(body, learning_rate=decay, learning_rate_as="rate")
    for one in (model, twin, alone):
        fit(one)
    assert difference(alone, twin) < 1e-6
    assert model.optimizer.rates["base"] == pytest.approx(1e-2 * 0.5 ** (7 / 4), rel=1e-5)


def test_a_warning_is_about_the_line_that_set_the_rate() -> None:
    decay = keras.optimizers.schedules.ExponentialDecay(1e-2, 4, 0.5)
    model = compiled()
    for wrong in (
        lambda: setattr(model.optimizer, "learning_rate", 1e-3),
        lambda: setattr(compiled().optimizer, "learning_rate", decay),
        lambda: GroupedOptimizer(PLAN, learning_rate=1e-3),
        lambda: GroupedOptimizer(PLAN, learning_rate=decay),
    ):
        with pytest.warns(GroupwiseWarning, match=LOOKS_ABSOLUTE) as told:
            wrong()
        assert [one.filename for one in told if one.category is GroupwiseWarning] == [__file__]


def test_a_plateau_with_an_absolute_floor_is_said() -> None:
    model = compiled()
    with pytest.warns(GroupwiseWarning, match=LOOKS_ABSOLUTE):
        for factor in (0.1, 0.01, 1e-3, 1e-4):
            model.optimizer.learning_rate = factor


def test_reductions_that_come_to_the_declared_rate_are_factors_all_the_same() -> None:
    model = compiled(Plan([Rule("*", optimizer="SGD", lr=1e-2)]))
    worse = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=0, min_delta=1e3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GroupwiseWarning)
        fit(model, epochs=3, callbacks=[worse])
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    "factors",
    [(0.1, 0.01), (0.5, 0.25, 0.1), [0.5 * (1 + np.cos(np.pi * t / 20)) for t in range(19)], (2.0, 1.0), (0.0, 1.0)],
    ids=["plateau", "halving", "cosine", "above", "off"],
)
def test_factors_are_taken_in_silence(factors: Any) -> None:
    optimizer = compiled().optimizer
    with warnings.catch_warnings():
        warnings.simplefilter("error", GroupwiseWarning)
        for factor in factors:
            optimizer.learning_rate = factor
    assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(float(factors[-1]))


def test_what_cannot_be_a_rate_is_refused() -> None:
    optimizer = compiled().optimizer
    for wrong in (-1.0, float("nan"), float("inf"), np.float32(-0.5)):
        with pytest.raises(GroupwiseError, match="a finite number from 0, not"):
            optimizer.learning_rate = wrong
    with pytest.raises(GroupwiseError, match=r"a finite number from 0, not -0\.1"):
        GroupedOptimizer(PLAN, learning_rate=-0.1)
    with pytest.raises(GroupwiseError, match='"factor" or "rate", not \'absolute\''):
        GroupedOptimizer(PLAN, learning_rate_as="absolute")  # type: ignore[arg-type]


def test_what_other_optimizers_take_is_answered_in_the_plans_words() -> None:
    wrong: dict[str, tuple[Any, str]] = {
        "clipnorm": (1.0, r'clip_norm\(…, per="parameter"\)'),
        "clipvalue": (1.0, r"clip=clip_value\(…\)"),
        "global_clipnorm": (1.0, r"clip=clip_norm\(…\)"),
        "weight_decay": (0.1, r"Rule\(…, weight_decay=…\)"),
        "last_epoch": (3, "goes on where it was"),
    }
    for name, (value, way) in wrong.items():
        with pytest.raises(GroupwiseError, match=way):
            GroupedOptimizer(PLAN, **{name: value})
    for name in ("clipvalue", "global_clipnorm", "last_epoch"):
        with pytest.raises(GroupwiseError, match=r"clip=clip_(value|norm)|goes on where it was"):
            GroupedOptimizer(Plan([Rule("*", optimizer="SGD", lr=0.1, **{name: 1.0})])).bind(functional())


def test_records_hold_the_rate_in_force(tmp_path: Path) -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=cosine(0.1)), Rule("body", lr=scale(0.1))])
    decay = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    model = compiled(plan, learning_rate=decay)
    fit(model, callbacks=[Observer(tmp_path)])
    rates = read(tmp_path).series("values", "body", "lr")[1]
    assert list(rates) == pytest.approx([0.1 * cosine(0.1).at(t, 16) * 0.5**t for t in range(8)], rel=1e-5)


def test_either_reading_is_saved(tmp_path: Path) -> None:
    for reading, value in (("factor", 0.01), ("rate", 5e-3)):
        model = compiled(learning_rate_as=reading)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GroupwiseWarning)
            model.optimizer.learning_rate = value
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for one in (model, loaded):
            fit(one, epochs=1)
        assert loaded.optimizer.rates == model.optimizer.rates
        assert difference(model, loaded) == 0
