"""What is saved goes on exactly; what does not fit is refused."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, GroupwiseWarning, Plan, Rule, after, clip_norm, scale
from groupwise.errors import StateError
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import cosine, exponential, linear
from groupwise.select import magnitude, role, where
from tests.keras.nets import FORMS, data, difference, fit, functional, nested, sequential, state, subclassed, weights

PLAN = Plan(
    [
        Rule("*body*", optimizer="AdamW", lr=cosine(0.02), weight_decay=linear(0.1, 0.2), beta1=0.8),
        Rule("head", optimizer="SGD", lr=exponential(0.1, 0.9, every="1 epoch"), momentum=linear(0, 0.9)),
        Rule(role("bias"), label="biases", lr=scale(0.5), optional=True),
        Rule("head.bias", trainable=after("2 epochs")),
    ],
    clip=clip_norm(0.5),
)


def compiled(model: Any, plan: Plan = PLAN, **options: Any) -> Any:
    model.compile(GroupedOptimizer(plan, total_steps=16, steps_per_epoch=4, **options).bind(model), "mse")
    return model


def same(a: Any, b: Any) -> bool:
    pairs = zip(state(a.optimizer), state(b.optimizer), strict=True)
    return difference(a, b) == 0 and all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        *((form, {}) for form in FORMS),
        (functional, {"gradient_accumulation_steps": 3}),
        (functional, {"use_ema": True}),
    ],
)
def test_a_saved_model_goes_on_exactly(form: Callable[[], Any], options: dict[str, Any], tmp_path: Path) -> None:
    model = compiled(form(), **options)
    fit(model, epochs=1)  # four batches
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert same(model, loaded)
    for one in (model, loaded):
        fit(one)
    assert same(model, loaded)
    assert str(loaded.optimizer.resolution) == str(model.optimizer.resolution)


def test_a_model_saved_before_any_step_goes_on_exactly(tmp_path: Path) -> None:
    model = compiled(functional())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        fit(one)
    assert same(model, loaded)


def test_groups_chosen_by_the_weights_are_not_chosen_anew(tmp_path: Path) -> None:
    base, small = Rule("*", optimizer="SGD", lr=0.1), Rule(magnitude(below=1e-9), label="small", lr=scale(0.1))
    model = compiled(functional(), Plan([base, small]))  # the biases, which are zero at first
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [len(group.parameters) for group in loaded.optimizer.resolution.groups] == [2, 2]


def test_an_optimizer_resolved_by_paths_goes_on_exactly_though_the_paths_change(tmp_path: Path) -> None:
    model = sequential()
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1, momentum=0.9), Rule("*/body/*", optimizer="Adam", lr=0.01)])
    model.compile(GroupedOptimizer(plan), "mse")
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        fit(one)
    assert same(model, loaded)


def test_weights_saved_with_the_state_go_on_exactly(tmp_path: Path) -> None:
    model = compiled(functional())
    fit(model)
    model.save_weights(tmp_path / "now.weights.h5")
    fresh = compiled(functional(seed=5))
    fresh.optimizer.build(fresh.trainable_variables)
    fresh.load_weights(tmp_path / "now.weights.h5")
    for one in (model, fresh):
        fit(one)
    assert same(model, fresh)


def test_an_interrupted_fit_goes_on_from_its_backup(tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt("stop")

    whole, broken, resumed = (compiled(functional()) for _ in range(3))
    fit(whole, epochs=4)
    backup = str(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt, match="stop"):
        fit(broken, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(backup), Stop()])
    fit(resumed, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(backup)])
    assert same(whole, resumed)


def test_state_of_other_groups_is_refused(tmp_path: Path) -> None:
    model = compiled(functional())
    fit(model)
    model.save_weights(tmp_path / "now.weights.h5")
    swapped = Plan([Rule("body", optimizer="SGD", lr=0.1, momentum=0.9), Rule("head", optimizer="AdamW", lr=0.1)])
    other = compiled(functional(), swapped)
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match=r"does not fit: other groups or algorithms for body\.kernel"):
        other.load_weights(tmp_path / "now.weights.h5")


def test_state_of_another_class_of_optimizer_is_refused(tmp_path: Path) -> None:
    model = functional()
    model.compile("adamw", "mse")
    fit(model)
    model.save_weights(tmp_path / "plain.weights.h5")
    ours = compiled(functional())
    ours.optimizer.build(ours.trainable_variables)
    with pytest.raises(ValueError, match="it is that of another class of optimizer"):
        ours.load_weights(tmp_path / "plain.weights.h5")


def test_the_groups_of_another_architecture_are_said_and_never_step() -> None:
    saved = compiled(functional())
    saved.optimizer.build(saved.trainable_variables)
    variables = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(1)]).trainable_variables
    for own, message in (
        (variables, r"'body\.kernel' with shape \(4, 5\).*\(4, 6\): the model was changed"),
        (variables[:2], "groups 4 variables, while this model trains 2"),
    ):
        again = keras.optimizers.deserialize(keras.optimizers.serialize(saved.optimizer))
        with pytest.warns(GroupwiseWarning, match=message):
            again.build(own)
        with pytest.raises(StateError, match=message):
            again.apply([keras.ops.ones(variable.shape) for variable in own], own)


def lora(model: Any) -> Any:
    model.get_layer("body").enable_lora(2)
    return model


def quantized(model: Any) -> Any:
    for name in ("body", "head"):
        model.get_layer(name).quantize("int8")
    return model


@pytest.mark.parametrize("change", [lora, quantized])
def test_a_model_that_was_changed_after_its_fit_loads_and_asks_for_a_new_optimizer(
    change: Callable[[Any], Any], tmp_path: Path
) -> None:
    model = compiled(functional())
    fit(model, epochs=1)
    change(model).save(tmp_path / "model.keras")
    with pytest.warns(GroupwiseWarning, match="the weights are loaded, and the saved optimizer groups"):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    x, _ = data()
    assert np.array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    with pytest.raises(StateError, match=r"model\.compile\(GroupedOptimizer\(plan, …\)\.bind\(model\), …\)"):
        loaded.optimizer.apply([keras.ops.ones(v.shape) for v in loaded.trainable_variables])
    loaded.compile(GroupedOptimizer(PLAN + [Rule("*", lr=0.01)], 16, 4).bind(loaded), "mse")
    fit(loaded, epochs=1)


def test_state_that_is_loaded_before_the_build_comes_with_it(tmp_path: Path) -> None:
    model = compiled(functional())
    fit(model)
    model.save_weights(tmp_path / "now.weights.h5")
    fresh = compiled(functional(seed=5))
    fresh.load_weights(tmp_path / "now.weights.h5")
    fresh.save_weights(tmp_path / "again.weights.h5")  # before any step
    third = compiled(functional(seed=6))
    third.load_weights(tmp_path / "again.weights.h5")
    for one in (model, fresh, third):
        fit(one, epochs=1)
    assert same(model, fresh)
    assert same(model, third)


@pytest.mark.parametrize("built", [True, False])
def test_a_checkpoint_of_tensorflow_holds_the_groups(built: bool, tmp_path: Path) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("it is tensorflow's")
    tensorflow = pytest.importorskip("tensorflow")
    model, fresh = compiled(functional()), compiled(functional(seed=5))
    fit(model)
    path = tensorflow.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "now"))
    if built:
        fresh.optimizer.build(fresh.trainable_variables)
    tensorflow.train.Checkpoint(model=fresh, optimizer=fresh.optimizer).restore(path)
    for one in (model, fresh):
        fit(one, epochs=1)
    assert same(model, fresh)


def test_a_copy_of_an_optimizer_has_its_state() -> None:
    model = compiled(functional())
    fit(model)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    twin.compile(copy.deepcopy(model.optimizer), "mse")
    for one in (model, twin):
        fit(one, epochs=1)
    assert same(model, twin)


def test_state_of_other_groups_that_is_loaded_before_the_build_is_refused_by_it(tmp_path: Path) -> None:
    model = compiled(functional())
    fit(model)
    model.save_weights(tmp_path / "now.weights.h5")
    other = compiled(functional(), Plan([Rule("*", optimizer="SGD", lr=0.1, momentum=0.9)]))
    other.load_weights(tmp_path / "now.weights.h5")
    with pytest.raises(StateError, match="other groups or algorithms"):
        other.optimizer.build(other.trainable_variables)


def wider() -> Any:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    body = keras.layers.Dense(5, activation="tanh", name="body")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(body), name="net")


@pytest.mark.parametrize("built", [False, True])
def test_weights_of_other_shapes_are_skipped_together_with_the_state(built: bool, tmp_path: Path) -> None:
    model = compiled(functional())
    fit(model)
    model.save_weights(tmp_path / "now.weights.h5")
    other = compiled(wider())
    if built:
        other.optimizer.build(other.trainable_variables)
    fresh = state(other.optimizer)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        other.load_weights(tmp_path / "now.weights.h5", skip_mismatch=True)
        other.optimizer.build(other.trainable_variables)
    assert built or any("weights of other shapes were skipped, and so is" in str(one.message) for one in told)
    assert np.array_equal(other.get_weights()[0], model.get_weights()[0])
    assert not built or all(np.array_equal(a, b) for a, b in zip(fresh, state(other.optimizer), strict=True))
    assert int(keras.ops.convert_to_numpy(other.optimizer.iterations)) == 0
    fit(other, epochs=1)


def test_a_config_that_has_met_no_model_can_be_bound() -> None:
    again = GroupedOptimizer.from_config(GroupedOptimizer(PLAN, 16, 4).get_config())
    model = functional()
    assert len(again.bind(model).resolution.groups) == 4


def test_python_only_parts_of_a_plan_cannot_be_saved(tmp_path: Path) -> None:
    model = compiled(functional(), Plan([Rule(where(lambda info: True), optimizer="SGD", lr=0.1)]))
    with pytest.raises(GroupwiseError, match=r"the optimizer cannot be saved: .*where"):
        model.save(tmp_path / "model.keras")


def test_a_file_without_optimizer_state_leaves_a_fresh_one(tmp_path: Path) -> None:
    functional(seed=3).save_weights(tmp_path / "bare.weights.h5")
    model = compiled(functional())
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):  # as with every Keras optimizer
        model.load_weights(tmp_path / "bare.weights.h5")
    assert difference(model, weights(functional(seed=3))) == 0
    fit(model)


def test_models_within_models_are_told_apart() -> None:
    model = nested()
    names = {info.name for info in compiled(model).optimizer.resolution.parameters}
    assert names == {"body.dense.kernel", "body.dense.bias", "head.kernel", "head.bias"}
    assert {info.name for info in compiled(subclassed()).optimizer.resolution.parameters} == {
        "body.kernel",
        "body.bias",
        "head.kernel",
        "head.bias",
    }
