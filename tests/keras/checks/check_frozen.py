"""Layers that are frozen or unfrozen around saving, and parts that a plan freezes."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule, after
from groupwise.errors import GroupwiseWarning
from groupwise.keras import GroupedOptimizer
from tests.keras.nets import data, difference, fit, functional, state, weights

PLAN = Plan([Rule("*", optimizer="SGD", lr=0.1, momentum=0.9), Rule("body", optimizer="Adam", lr=0.01)])
NOT_LOADED = "the weights are loaded and the optimizer's state is not"


def compiled(model: Any, plan: Plan = PLAN) -> Any:
    model.compile(GroupedOptimizer(plan, total_steps=16).bind(model), "mse")
    return model


@pytest.mark.parametrize("first", [True, False])
def test_a_model_that_was_frozen_or_unfrozen_after_training_loads_and_goes_on_in_its_groups(
    first: bool, tmp_path: Path
) -> None:
    model = functional()
    model.get_layer("body").trainable = first
    fit(compiled(model), epochs=1)
    model.get_layer("body").trainable = not first
    model.save(tmp_path / "model.keras")
    with pytest.warns(GroupwiseWarning, match=rf"{NOT_LOADED}: it was saved for {4 if first else 2} variables"):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert difference(model, loaded) == 0
    assert int(keras.ops.convert_to_numpy(loaded.optimizer.iterations)) == 0
    twin = functional()
    twin.set_weights(model.get_weights())
    twin.get_layer("body").trainable = not first
    compiled(twin)
    for one in (loaded, twin):
        fit(one, epochs=1)
    assert difference(loaded, twin) == 0
    assert (
        loaded.get_layer("body").trainable,
        np.array_equal(weights(loaded)["body.kernel"], weights(model)["body.kernel"]),
    ) == (not first, first)


def test_one_layer_frozen_and_another_unfrozen_never_exchange_their_state(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, name=name) for name in ("one", "two")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    layers[1].trainable = False
    compiled(model, Plan([Rule("*", optimizer="SGD", lr=0.1, momentum=0.9)]))
    x, _ = data()
    model.fit(x, x, verbose=0)
    layers[0].trainable, layers[1].trainable = False, True
    model.save(tmp_path / "model.keras")
    with pytest.warns(GroupwiseWarning, match=rf"{NOT_LOADED}: .* and others train here"):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    momenta = [value for value in state(loaded.optimizer) if value.shape == (4, 4)]
    assert [float(np.abs(value).max()) for value in momenta] == [0.0]
    before = [layer.get_weights()[0] for layer in loaded.layers]
    loaded.fit(x, x, verbose=0)
    moved = [not np.array_equal(a, layer.get_weights()[0]) for a, layer in zip(before, loaded.layers, strict=True)]
    assert moved == [False, True]


def test_a_part_on_a_timeline_that_keras_froze_after_training_loads(tmp_path: Path) -> None:
    model = compiled(functional(), PLAN + [Rule("body", label="late", trainable=after("2 steps"))])
    fit(model, epochs=1)
    model.get_layer("body").trainable = False
    model.save(tmp_path / "model.keras")
    with pytest.warns(GroupwiseWarning, match=NOT_LOADED):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(loaded, epochs=1)
    assert np.array_equal(weights(loaded)["body.kernel"], weights(model)["body.kernel"])


def test_variables_that_the_build_did_not_have_are_named_with_the_way_out() -> None:
    model = functional()
    model.get_layer("body").trainable = False
    fit(compiled(model), epochs=1)
    model.get_layer("body").trainable = True
    model.train_function = None
    with pytest.raises(GroupwiseError, match=r"(body/kernel|4 variables).*model\.compile\(GroupedOptimizer"):
        fit(model, epochs=1)


def test_lora_that_is_enabled_after_a_fit_asks_for_a_new_optimizer_and_trains_with_one() -> None:
    model = functional()
    fit(compiled(model), epochs=1)
    if not hasattr(model.get_layer("body"), "enable_lora"):
        pytest.skip("this Keras has no LoRA")
    model.get_layer("body").enable_lora(2)
    plan = PLAN + [Rule("*lora*", optimizer="SGD", lr=0.5, momentum=0.0)]
    model.compile(GroupedOptimizer(plan).bind(model), "mse")
    names = {info.name for info in model.optimizer.resolution.parameters}
    assert {"body.lora_kernel_a", "body.lora_kernel_b"} < names
    fit(model, epochs=1)


CHANGES = {
    "frozen": (lambda layer: setattr(layer, "trainable", False), r"body/kernel, body/bias trained on, frozen or not"),
    "lora": (lambda layer: layer.enable_lora(2), r"lora_kernel_a, \S*lora_kernel_b did not train and \S*body/kernel"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_fit_whose_compiled_step_is_older_than_the_model_is_said_or_raises(change: str, scaled: bool) -> None:
    model, (apply, told) = functional(), CHANGES[change]
    compiled(model)
    if scaled:
        model.compile(keras.optimizers.LossScaleOptimizer(model.optimizer), "mse")
    fit(model, epochs=1)
    fit(model, epochs=1)  # with the same step: nothing to say
    apply(model.get_layer("body"))
    before = model.get_weights()
    if keras.backend.backend() == "tensorflow":
        with pytest.warns(GroupwiseWarning, match=told):
            fit(model, epochs=1)
        fit(model, epochs=1)  # once is enough
    elif change == "lora" or keras.backend.backend() == "jax":
        with pytest.raises((GroupwiseError, ValueError), match=r"and was built for others|variables"):
            fit(model, epochs=1)
    else:
        fit(model, epochs=1)
        assert np.array_equal(model.get_weights()[0], before[0])


def test_a_step_that_is_compiled_anew_after_a_change_has_nothing_to_say() -> None:
    model = functional()
    fit(compiled(model), epochs=1)
    model.get_layer("body").trainable = False
    for optimizer in (GroupedOptimizer(PLAN).bind(model), GroupedOptimizer(PLAN).bind(model)):
        model.compile(optimizer, "mse")
        fit(model, epochs=1)


@pytest.mark.parametrize("bound", [True, False])
def test_a_model_with_nothing_to_train_fits(bound: bool) -> None:
    model = functional()
    model.trainable = False
    before = weights(model)
    optimizer = GroupedOptimizer(PLAN if bound else Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    model.compile(optimizer.bind(model) if bound else optimizer, "mse")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model does not have any trainable weights")  # torch alone says it
        fit(model, epochs=1)
    assert difference(model, before) == 0


def normed() -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, name="dense"), keras.layers.BatchNormalization(name="norm")]
    body = keras.Sequential([keras.Input((4,)), *layers], name="body")
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(body(inputs)))


def test_a_frozen_part_that_goes_on_averaging_is_said_under_the_table(tmp_path: Path) -> None:
    base = Rule("*", optimizer="SGD", lr=0.1)
    model = normed()
    with pytest.warns(GroupwiseWarning, match=r"still averaging what they see: norm\. .* layer\.trainable = False"):
        compiled(model, Plan([base, Rule("body", trainable=False)]))
    said = str(model.optimizer.resolution)
    assert "still averaging what they see: norm" in said
    fit(model, epochs=1)
    model.save(tmp_path / "model.keras")
    assert str(keras.models.load_model(tmp_path / "model.keras").optimizer.resolution) == said
    silent = normed()
    silent.get_layer("body").trainable = False
    compiled(silent, Plan([base]))
    assert "averaging" not in str(silent.optimizer.resolution)
    mean = silent.get_layer("body").get_layer("norm").moving_mean
    fit(silent, epochs=1)
    assert float(keras.ops.convert_to_numpy(keras.ops.max(keras.ops.abs(mean)))) == 0
