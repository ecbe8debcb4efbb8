"""The two halves of a check on two backends: one saves a run and goes on, the other loads it and goes on.

A run is stopped where as much as possible is under way: schedules, an average of the weights, gradients that are
accumulated and not applied, a loss scale that has grown. One net has every kind of layer that keeps something besides
a kernel, and an algorithm for each of its branches.

Two backends round otherwise, and where a gradient is zero but for rounding, an update that is divided by the gradient's
own size is one of noise. Softmax is the same wherever all scores have one more summand, and normalisation takes the
mean away, so the bias of an attention's keys and that of a convolution below a BatchNormalization are such variables:
trained by Adam they end about 1e-4 apart, in plain Keras and here.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import Plan, Rule, clip_norm, trust_ratio
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import cosine, linear
from tests.keras.nets import difference, fit, functional, state, weights

K = keras.layers

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


LAYERS = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(0.005), weight_decay=0.05),
        Rule("conv", optimizer="Muon", lr=0.005, weight_decay=0.01),
        Rule("tokens", optimizer="Adafactor", lr=0.005, weight_decay=0.0),
        Rule("gru", optimizer="SGD", lr=linear(0.05, 0.01), momentum=0.9, nesterov=True, weight_decay=0.0),
        Rule("attention", optimizer="Nadam", lr=0.005, weight_decay=0.0),
        Rule(["attention.key*bias", "conv.bias"], optimizer="SGD", lr=0.05, weight_decay=0.0),  # see above
        Rule("einsum", optimizer="RMSprop", lr=0.005, momentum=0.5, weight_decay=0.0),
        Rule("head", lr=trust_ratio(0.5)),
    ],
    clip=clip_norm(0.5),
)


def layers() -> Any:
    """Images, tokens and a sequence, a branch of layers for each, and one head."""
    keras.utils.set_random_seed(0)
    image, tokens, sequence = keras.Input((6, 6, 3)), keras.Input((7,), dtype="int32"), keras.Input((6, 8))
    seen = K.BatchNormalization(name="norm")(K.Conv2D(4, 3, name="conv")(image))
    read = K.GRU(4, name="gru")(K.Embedding(9, 5, name="tokens")(tokens))
    heard = K.LayerNormalization(name="layer_norm")(K.MultiHeadAttention(2, 4, name="attention")(sequence, sequence))
    mapped = K.EinsumDense("abc,cd->abd", output_shape=(None, 3), bias_axes="d", name="einsum")(sequence)
    pooled = [K.GlobalAveragePooling2D()(K.ReLU()(seen)), *map(K.GlobalAveragePooling1D(), (heard, mapped)), read]
    return keras.Model([image, tokens, sequence], K.Dense(1, name="head")(K.Concatenate()(pooled)))


def fit_layers(model: Any, epochs: int = 2) -> None:
    """Fit on 32 rows in order, in batches of 8."""
    rng = np.random.default_rng(0)
    image, sequence, y = (rng.standard_normal((32, *shape)).astype("float32") for shape in ((6, 6, 3), (6, 8), (1,)))
    x = [image, rng.integers(0, 9, (32, 7)), sequence]
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, epochs=epochs)


def apart(model: Any, other: Any) -> dict[str, float]:
    """By the variables that differ by more than what the rounding of two backends comes to, how much they do."""
    found = {
        v.path: float(np.abs(a - b).max()) for v, a, b in zip(model.weights, model.get_weights(), other, strict=True)
    }
    return {path: size for path, size in found.items() if not size < 1e-4}


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


@pytest.mark.parametrize("scaled", [False, True], ids=["accumulated", "scaled"])
def test_save_layers(scaled: bool) -> None:
    name, model = f"layers_{scaled}", layers()
    options: dict[str, Any] = {} if scaled else ACCUMULATED
    optimizer: Any = GroupedOptimizer(LAYERS, total_steps=16, **options).bind(model)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0, dynamic_growth_steps=3)
    model.compile(optimizer, "mse")
    fit_layers(model)
    model.save(_place(f"{name}.keras"))
    np.savez(_place(f"{name}_state.npz"), *state(optimizer))
    fit_layers(model)
    np.savez(_place(f"{name}_after.npz"), *model.get_weights())


@pytest.mark.parametrize("scaled", [False, True], ids=["accumulated", "scaled"])
def test_load_layers(scaled: bool) -> None:
    name = f"layers_{scaled}"
    model = keras.models.load_model(_place(f"{name}.keras"))
    if keras.backend.backend() == "torch":
        model.jit_compile = False
    saved = np.load(_place(f"{name}_state.npz"))
    assert len(saved) == len(model.optimizer.variables)
    for own, key in zip(state(model.optimizer), saved, strict=True):
        np.testing.assert_array_equal(own, saved[key])
    fit_layers(model)
    after = np.load(_place(f"{name}_after.npz"))
    assert apart(model, [after[key] for key in after]) == {}


def _attention() -> tuple[Any, Any]:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8))
    outputs = K.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    model = keras.Model(inputs, K.Dense(1, name="head")(K.GlobalAveragePooling1D()(outputs)))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(-0.5, 0.5, w.shape) for w in model.get_weights()])  # a seed differs by backend
    return model, (rng.standard_normal((32, 6, 8)).astype("float32"), rng.standard_normal((32, 1)).astype("float32"))


def _trained_attention(who: str) -> list[Any]:
    model, (x, y) = _attention()
    plan = Plan([Rule("*", optimizer="Adam", lr=0.01)])
    model.compile(GroupedOptimizer(plan).bind(model) if who == "ours" else keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, epochs=4)
    return [*model.get_weights()]


@pytest.mark.parametrize("who", ["ours", "plain"])
def test_save_attention(who: str) -> None:
    np.savez(_place(f"attention_{who}.npz"), *_trained_attention(who))


def test_load_attention() -> None:
    """Only the bias that no gradient reaches is apart, as in plain Keras."""
    model, _ = _attention()
    for who in ("ours", "plain"):
        saved = np.load(_place(f"attention_{who}.npz"))
        model.set_weights(_trained_attention(who))
        assert apart(model, [saved[key] for key in saved]).keys() <= {"attention/key/bias"}
