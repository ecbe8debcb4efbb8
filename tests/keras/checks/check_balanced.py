"""Balanced losses: the weights that each method's formula gives, in the compiled step, saved and restored."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule
from groupwise.errors import BalanceError
from groupwise.keras import (
    DWA,
    RLW,
    BalancedModel,
    GeometricMean,
    GroupedOptimizer,
    Static,
    Uncertainty,
)
from groupwise.keras.balancing import method_of
from groupwise.schedules import linear

PLAN = Plan([Rule("*", optimizer="SGD", lr=0.05), Rule("near", lr=0.02)])


def inner(seed: int = 0) -> Any:
    """Two heads on one layer."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, activation="tanh", name="body")(inputs)
    return keras.Model(inputs, {name: keras.layers.Dense(1, name=name)(hidden) for name in ("near", "far")})


def data(rows: int = 32) -> tuple[Any, dict[str, Any]]:
    x = np.random.default_rng(0).standard_normal((rows, 4)).astype("float32")
    return x, {"near": np.sin(x.sum(1)), "far": 3 * x[:, 0] - 2}  # targets of shape (n,), predictions of (n, 1)


def compiled(method: Any, **options: Any) -> Any:
    model = BalancedModel(inner(), method, **options)
    model.compile(GroupedOptimizer(PLAN).bind(model), loss={"near": "mse", "far": "mae"})
    return model


def fit(model: Any, steps: int = 1) -> Any:
    x, y = data(8 * steps)
    return model.fit(x, y, batch_size=8, shuffle=False, verbose=0)


def losses(model: Any, rows: slice) -> Any:
    """The two losses at the present weights, in numpy."""
    x, y = data(32)
    outputs = {k: keras.ops.convert_to_numpy(v)[:, 0] for k, v in model(x[rows]).items()}
    near = ((outputs["near"] - y["near"][rows]) ** 2).mean()
    return np.array([near, np.abs(outputs["far"] - y["far"][rows]).mean()])


def weights(model: Any) -> Any:
    return np.array(list(model.task_weights.values()))


def test_stated_weights_are_those_of_keras_loss_weights() -> None:
    ours = compiled(Static({"near": 0.5, "far": 2.0}))
    theirs = inner()
    optimizer = GroupedOptimizer(PLAN).bind(theirs)
    theirs.compile(optimizer, loss={"near": "mse", "far": "mae"}, loss_weights={"near": 0.5, "far": 2.0})
    x, y = data()
    for model in (ours, theirs):
        model.fit(x, {k: v[:, None] for k, v in y.items()}, batch_size=8, shuffle=False, verbose=0)
    pairs = zip(ours.inner.get_weights(), theirs.get_weights(), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) < 1e-6


def test_a_weight_may_be_a_schedule_over_training_steps() -> None:
    model = compiled(Static({"near": linear(1.0, 0.0), "far": 1.0}), total_steps=4)
    seen = []
    for _ in range(3):
        fit(model)
        seen.append(model.task_weights["near"])
    assert seen == [linear(1.0, 0.0).at(t, 4) for t in range(3)]


def test_the_geometric_mean_has_the_weights_of_its_gradient() -> None:
    model = compiled(GeometricMean())
    found = losses(model, slice(8))
    fit(model)
    assert np.allclose(weights(model), np.exp(np.log(found).mean()) / (2 * found), rtol=1e-5)


def test_uncertainty_learns_log_variances_with_an_adam_of_its_own() -> None:
    model = compiled(Uncertainty())
    s = m = v = np.zeros(2)
    for t in range(3):
        found = losses(model, slice(8))
        fit(model)
        assert np.allclose(weights(model), 0.5 * np.exp(-s), rtol=1e-5)
        g = 0.5 * (1 - np.exp(-s) * found)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        s = s - 0.025 * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)


def test_dwa_compares_the_means_of_the_last_two_epochs() -> None:
    model = compiled(DWA(), steps_per_epoch=2)
    means = []
    for _ in range(3):
        found = []
        for step in range(2):
            x, y = data(16)
            rows = slice(8 * step, 8 * step + 8)
            found.append(losses(model, rows))
            model.fit(x[rows], {k: v[rows] for k, v in y.items()}, batch_size=8, verbose=0)
        means.append(np.mean(found, axis=0))
        if len(means) < 3:
            assert np.allclose(weights(model), 1.0)
    rates = np.exp(means[1] / means[0] / 2.0)
    assert np.allclose(weights(model), 2 * rates / rates.sum(), rtol=1e-5)


def test_random_weights_add_up_to_one_and_change_with_every_step_but_not_with_a_repetition() -> None:
    first, again, other = compiled(RLW()), compiled(RLW()), compiled(RLW(seed=1))
    seen = []
    for model in (first, again, other):
        for _ in range(2):
            fit(model)
            seen.append(weights(model))
    assert all(np.isclose(w.sum(), 1) for w in seen)
    assert np.array_equal(seen[0], seen[2])
    assert np.array_equal(seen[1], seen[3])
    assert len({tuple(w) for w in seen}) == 4


@pytest.mark.parametrize(
    "method", [Uncertainty(), DWA(window=2), RLW(seed=3), Static({"near": linear(1, 0), "far": 1.0})], ids=str
)
def test_a_saved_balanced_model_goes_on_exactly(method: Any, tmp_path: Path) -> None:
    model = compiled(method, total_steps=16)
    fit(model, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        fit(one, 4)
    assert model.task_weights == loaded.task_weights
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))


def test_evaluation_uses_the_last_weights_and_changes_nothing() -> None:
    model = compiled(Uncertainty())
    fit(model, 2)
    before = model.get_weights()
    x, y = data()
    found = model.evaluate(x, y, batch_size=32, verbose=0, return_dict=True)
    assert np.isclose(found["loss"], (weights(model) * losses(model, slice(32))).sum(), rtol=1e-5)
    assert np.isclose(found["far_loss"], losses(model, slice(32))[1], rtol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_models_own_losses_are_added_unweighed() -> None:
    model = compiled(Static({"near": 0.0, "far": 0.0}))
    body = model.inner.get_layer("body")
    body.kernel_regularizer = keras.regularizers.L2(0.1)
    body.kernel.regularizer = body.kernel_regularizer
    x, y = data()
    expected = 0.1 * (body.get_weights()[0] ** 2).sum()
    fit(model)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["loss"] < expected


def test_names_of_rules_are_those_of_the_inner_model() -> None:
    model = compiled(Uncertainty())
    names = {info.name for info in model.optimizer.resolution.parameters}
    assert names == {f"{layer}.{leaf}" for layer in ("body", "near", "far") for leaf in ("kernel", "bias")}


def test_the_balance_table_of_a_plan_is_a_method() -> None:
    text = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = 0.1\n[balance]\nmethod = "Static"\n'
    plan = Plan.loads(text + "weights = { near = 1.0, far = { linear = 1.0, end = 0.5 } }\n")
    model = BalancedModel(inner(), plan.balance or {}, total_steps=4)
    assert model.method == Static({"near": 1.0, "far": linear(1.0, 0.5)})


def test_what_cannot_be_balanced_says_why() -> None:
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (Static({"near": 1.0}), {}, "no weight for far"),
        (Static({"near": 1.0, "fra": 1.0}), {}, "unknown task 'fra'; did you mean 'far'"),
        (Static({"near": linear(1, 0), "far": 1.0}), {}, "needs BalancedModel"),
        (DWA(), {}, "steps_per_epoch"),
        ({"method": "CAGrad"}, {}, "unknown method 'CAGrad'.*need gradients by task"),
        ({"method": "DWA", "temprature": 1.0}, {}, "did you mean 'temperature'"),
        ("RLW", {}, "a method is an instance of one of groupwise.keras .* this is 'RLW'"),
        (RLW, {}, r"this is groupwise\.keras\.balancing\.RLW"),
    ]
    for method, options, message in wrong:
        with pytest.raises(GroupwiseError, match=message):
            BalancedModel(inner(), method, **options)
    model = BalancedModel(inner(), RLW())
    with pytest.raises(GroupwiseError, match="no loss for far"):
        model.compile("sgd", loss={"near": "mse"})
    with pytest.raises(GroupwiseError, match="compile needs a loss for each task"):
        model.compile("sgd")
    with pytest.raises(GroupwiseError, match="two answers to one question"):
        model.compile("sgd", loss="mse", loss_weights={"near": 1.0})
    with pytest.raises(GroupwiseError, match=r"tasks=\[…\]"):
        BalancedModel(keras.layers.Dense(1), RLW())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"method": "Uncertainty", "heads": "raw"}, "heads is called task_only now"),
        ({"method": "Uncertainty", "task_only": "unweighted"}, r"one weighted sum of the losses.*not 'unweighted'"),
    ],
)
def test_what_a_weighted_sum_cannot_do_for_the_heads_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(BalanceError, match=message):
        method_of(table)


def test_a_table_may_say_that_heads_see_the_weights() -> None:
    assert method_of({"method": "Uncertainty", "task_only": "weighted"}) == Uncertainty()
