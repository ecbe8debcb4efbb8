"""Around the update: freezing, averages, mixed precision, absent gradients, several devices, every algorithm."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule, after, clip_adaptive, clip_norm, until
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import cosine, exponential, linear
from tests.keras.nets import data, difference, fit, functional, sequential, state, weights
from tests.keras.reference import SGD as PlainSGD
from tests.keras.reference import AdamW, trained

STEPS = 8
BODY = Rule("body", optimizer="AdamW", lr=cosine(0.02, warmup="2 steps"), weight_decay=0.1)
HEAD = Rule("head", optimizer="SGD", lr=exponential(0.1, 0.9, every="1 step"), momentum=0.9)
PLAN = Plan([BODY, HEAD], clip=clip_norm(0.3))


def compiled(model: Any, plan: Plan = PLAN, **options: Any) -> Any:
    model.compile(GroupedOptimizer(plan, total_steps=STEPS, **options).bind(model), "mse")
    return model


def test_a_part_frozen_for_good_stands_still_and_has_no_state() -> None:
    model = compiled(functional(), PLAN + [Rule("body", label="frozen", trainable=False)])
    before = weights(model)
    fit(model)
    now = weights(model)
    assert np.array_equal(now["body.kernel"], before["body.kernel"])
    assert not np.array_equal(now["head.kernel"], before["head.kernel"])
    assert not any(value.shape == (4, 5) for value in state(model.optimizer))


def test_a_part_that_thaws_begins_as_if_training_began_then() -> None:
    model = compiled(functional(), Plan([BODY, HEAD, Rule("body", label="late", trainable=after("3 steps"))]))
    before = weights(model)
    fit(model)

    class Late(AdamW):
        def step(self, name: str, w: Any, g: Any, t: int) -> Any:
            rate, self.lr = self.lr, lambda _: rate(t)  # the schedule runs on; the steps of Adam are counted from here
            stepped = super().step(name, w, g, t - 3) if t >= 3 else w
            self.lr = rate
            return stepped

    lr = cosine(0.02, warmup="2 steps")
    momentum = exponential(0.1, 0.9, every="1 step")
    rules = {
        "body": Late(lr=lambda t: lr.at(t, STEPS), wd=lambda t: 0.1),
        "head": PlainSGD(lr=lambda t: momentum.at(t, STEPS), momentum=lambda t: 0.9),
    }
    assert difference(model, trained(before, *data(), rules, STEPS, 8)) < 2e-6


def test_a_part_that_freezes_stands_still_from_then_on_and_so_does_its_state() -> None:
    model = compiled(functional(), Plan([BODY, HEAD, Rule("body", label="early", trainable=until("4 steps"))]))
    fit(model, epochs=1)
    then = weights(model)
    momenta = [value for value in state(model.optimizer) if value.shape == (4, 5)]
    fit(model, epochs=1)
    assert np.array_equal(weights(model)["body.kernel"], then["body.kernel"])
    now = [value for value in state(model.optimizer) if value.shape == (4, 5)]
    assert all(np.array_equal(a, b) for a, b in zip(momenta, now, strict=True))


def test_a_frozen_part_is_no_part_of_a_clipping_norm() -> None:
    frozen = compiled(functional(), PLAN + [Rule("body", label="frozen", trainable=after("99 steps"))])
    absent = functional()
    absent.layers[1].trainable = False
    plan = Plan([Rule("*", optimizer="SGD", lr=HEAD.hyperparameters["lr"], momentum=0.9)], clip=clip_norm(0.3))
    compiled(absent, plan)
    for model in (frozen, absent):
        fit(model)
    assert difference(frozen, absent) < 1e-7


def test_what_keras_has_frozen_cannot_be_trained_by_a_plan() -> None:
    model = functional()
    model.layers[1].trainable = False
    compiled(model, PLAN + [Rule("*", label="all", trainable=after("1 step"))])
    with pytest.raises(GroupwiseError, match=r"Keras has frozen body\.kernel, body\.bias \(layer\.trainable=False\)"):
        fit(model)


def test_a_layer_that_keras_froze_is_left_out() -> None:
    model = functional()
    model.layers[1].trainable = False
    before = weights(model)
    fit(compiled(model))
    assert np.array_equal(weights(model)["body.kernel"], before["body.kernel"])


def test_adaptive_clipping_bounds_each_unit() -> None:
    bound = 0.05
    plan = Plan([Rule("*", optimizer="SGD", lr=1.0, clip=clip_adaptive(bound))])
    model = compiled(functional(), plan)
    before = weights(model)
    fit(model, epochs=1, batch_size=32)
    for name, after_ in weights(model).items():
        moved = np.sqrt(((after_ - before[name]) ** 2).sum(0 if after_.ndim == 2 else None))
        held = np.sqrt((before[name] ** 2).sum(0 if after_.ndim == 2 else None))
        assert np.all(moved <= bound * np.maximum(held, 1e-3) * (1 + 1e-3) + 1e-7)
        assert np.any(moved > 0)


@pytest.mark.filterwarnings("ignore:the run went on past its end")
def test_averages_go_on_through_two_fits_and_callbacks_swap_them() -> None:
    model = compiled(functional(), use_ema=True, ema_momentum=0.9)
    fit(model)
    fit(model, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    plain = functional()
    fit(compiled(plain))
    assert difference(model, plain) > 1e-4


def test_the_average_is_that_of_keras() -> None:
    ours = functional()
    rate = {"use_ema": True, "ema_momentum": 0.5}
    ours.compile(GroupedOptimizer(Plan([Rule("*", optimizer="SGD", lr=0.1)]), **rate).bind(ours), "mse")
    theirs = functional()
    theirs.compile(keras.optimizers.SGD(0.1, **rate), "mse")
    for model in (ours, theirs):
        fit(model, epochs=1)
    assert difference(ours, theirs) < 1e-7


def test_mixed_precision_scales_the_loss_and_callbacks_still_set_the_factor(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(sequential())
        assert type(model.optimizer).__name__ == "LossScaleOptimizer"
        factor = keras.callbacks.LearningRateScheduler(lambda epoch, lr: 0.5)
        fit(model, epochs=1, callbacks=[factor])
        assert float(keras.ops.convert_to_numpy(model.optimizer.inner_optimizer.learning_rate)) == 0.5
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match="set the dtype policy that it was saved under"):
        keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        fit(one, epochs=1, callbacks=[factor])
    assert difference(model, loaded) == 0


def test_a_group_without_gradients_is_left_alone() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, name="body")(inputs)
    heads = [keras.layers.Dense(1, name=name)(hidden) for name in ("head", "unused")]
    model = keras.Model(inputs, dict(zip(("head", "unused"), heads, strict=True)))
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("unused", optimizer="SGD", lr=0.2, momentum=0.9)])
    model.compile(GroupedOptimizer(plan).bind(model), loss={"head": "mse"})
    before = model.get_layer("unused").get_weights()
    x, y = (array.astype("float32") for array in data())
    if keras.backend.backend() != "jax":
        with pytest.warns(UserWarning, match="Gradients do not exist for variables"):  # as with every Keras optimizer
            model.fit(x, {"head": y}, verbose=0)
    else:
        model.fit(x, {"head": y}, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_layer("unused").get_weights(), strict=True))


def test_several_steps_in_one_execution_are_the_same_steps() -> None:
    if keras.backend.backend() == "torch":
        pytest.skip("Keras has no steps_per_execution on torch")
    models = [functional(), functional()]
    for model, at_once in zip(models, (1, 2), strict=True):
        optimizer = GroupedOptimizer(PLAN, total_steps=STEPS).bind(model)
        model.compile(optimizer, "mse", steps_per_execution=at_once)
        fit(model)
    assert difference(*models) == 0


ALGORITHMS = [
    ("Adafactor", {}, {}),
    ("Adagrad", {}, {"epsilon": 1e-3}),
    ("Adadelta", {}, {"rho": 0.9}),
    ("Adam", {}, {"beta_2": 0.9}),
    ("AdamW", {}, {"weight_decay": 0.3}),
    ("Adamax", {}, {"beta_1": 0.5}),
    ("Ftrl", {}, {"l2_regularization_strength": 0.1}),
    ("Lamb", {}, {"beta_1": 0.5}),
    ("Lion", {}, {"beta_1": 0.5}),
    ("Nadam", {}, {"beta_1": 0.5}),
    ("RMSprop", {"momentum": 0.5}, {"rho": 0.5}),
    ("ScheduleFreeAdamW", {}, {"beta_2": 0.9}),
    ("SGD", {"nesterov": True}, {"momentum": 0.5}),
    ("Muon", {}, {"momentum": 0.5}),
]


@pytest.mark.parametrize(("name", "fixed", "scheduled"), ALGORITHMS, ids=str)
def test_every_algorithm_equals_itself_and_hears_a_schedule(
    name: str, fixed: dict[str, Any], scheduled: dict[str, float]
) -> None:
    """Constant hyperparameters give Keras' own optimizer; a schedule of one of them gives something else."""
    cls = getattr(keras.optimizers, name, None)
    if cls is None:
        pytest.skip(f"this Keras has no {name}")
    moving = {key: linear(value / 2, value) for key, value in scheduled.items()}
    gradients = np.random.default_rng(0).standard_normal((3, 4, 5)) * [[[1.0]], [[0.01]], [[0.01]]]

    def moved(make: Any) -> Any:
        kernel = keras.Variable(np.linspace(0.5, 1, 20, dtype="float32").reshape(4, 5), name="kernel")
        optimizer = make()
        optimizer.build([kernel])
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))], [kernel])
        return keras.ops.convert_to_numpy(kernel)

    def ours(**values: Any) -> Any:
        return GroupedOptimizer(Plan([Rule("*", optimizer=name, lr=0.1, **fixed, **values)]), total_steps=3)

    itself = moved(lambda: cls(learning_rate=0.1, **fixed, **scheduled))
    assert np.abs(moved(lambda: ours(**scheduled)) - itself).max() < 1e-6
    if name != "Adafactor":
        assert np.abs(moved(lambda: ours(**moving)) - itself).max() > 1e-7


def test_one_class_of_anyone_serves_a_group() -> None:
    class Plain(keras.optimizers.Optimizer):
        def __init__(self, learning_rate: float = 0.1, boost: float = 2.0, **kwargs: Any) -> None:
            super().__init__(learning_rate=learning_rate, **kwargs)
            self.boost = boost

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            self.assign_sub(variable, gradient * self.boost * keras.ops.cast(learning_rate, variable.dtype))

    ours, theirs = functional(), functional()
    plan = Plan([Rule("*", optimizer=Plain, lr=0.1, boost=0.5)])
    ours.compile(GroupedOptimizer(plan).bind(ours), "mse")
    theirs.compile(keras.optimizers.SGD(0.05), "mse")
    for model in (ours, theirs):
        fit(model)
    assert difference(ours, theirs) < 1e-6


@pytest.mark.parametrize("spread", ["data", "model"])
def test_two_devices_train_as_one(spread: str) -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("keras.distribution is for jax")
    alone = compiled(functional())
    fit(alone)
    devices = keras.distribution.list_devices()
    assert len(devices) == 2
    if spread == "data":
        distribution: Any = keras.distribution.DataParallel(devices=devices)
    else:
        mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], devices)
        layout = keras.distribution.LayoutMap(mesh)
        layout["body.*kernel"] = ("model", None)
        distribution = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    keras.distribution.set_distribution(distribution)
    try:
        model = compiled(functional())
        fit(model)
        kernels = [variable for variable in model.optimizer.variables if variable.shape == (4, 5)]
        assert len(kernels) == 2
        assert all(kernel.value.sharding == model.trainable_variables[0].value.sharding for kernel in kernels)
    finally:
        keras.distribution.set_distribution(None)
    assert difference(model, alone) < 1e-6
