"""Sparse gradients of embeddings: a group's optimizer gets them as plain Keras' gets them."""

from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest

from groupwise import Plan, Rule, clip_norm, clip_value
from groupwise.keras import GroupedOptimizer

TOKENS = np.array([[1, 1, 2, 3], [3, 3, 3, 0]] * 4, "int32")  # the same ones several times
TARGETS = np.linspace(-1, 1, 16, dtype="float32").reshape(8, 2)


def net() -> Any:
    keras.utils.set_random_seed(0)
    table = keras.layers.Embedding(10, 4, name="table")
    return keras.Sequential(
        [keras.Input((4,), dtype="int32"), table, keras.layers.Flatten(), keras.layers.Dense(2, name="head")]
    )


def trained(model: Any, optimizer: Any) -> Any:
    model.compile(optimizer, "mse")
    model.fit(TOKENS, TARGETS, batch_size=4, epochs=2, verbose=0, shuffle=False)
    return np.concatenate([value.ravel() for value in model.get_weights()])


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "RMSprop"])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"use_ema": True}])
def test_an_embedding_trains_as_in_keras(name: str, options: dict[str, Any]) -> None:
    model = net()
    ours = GroupedOptimizer(Plan([Rule("*", optimizer=name, lr=0.1)]), **options).bind(model)
    theirs = getattr(keras.optimizers, name)(0.1, **options)
    assert np.array_equal(trained(model, ours), trained(net(), theirs))


@pytest.mark.parametrize(
    ("clip", "argument"),
    [
        (clip_norm(0.1), {"global_clipnorm": 0.1}),
        (clip_norm(0.05, per="parameter"), {"clipnorm": 0.05}),
        (clip_value(0.001), {"clipvalue": 0.001}),
    ],
    ids=["norm", "norm of each", "value"],
)
def test_an_embedding_is_clipped_as_in_keras(clip: Any, argument: dict[str, float]) -> None:
    model = net()
    ours = GroupedOptimizer(Plan([Rule("*", optimizer="SGD", lr=0.1)], clip=clip)).bind(model)
    assert np.abs(trained(model, ours) - trained(net(), keras.optimizers.SGD(0.1, **argument))).max() < 1e-6


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_a_sparse_gradient_is_sparse_to_the_class(name: str) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only tensorflow has sparse gradients in fit")
    import tensorflow

    model = net()
    optimizer = GroupedOptimizer(Plan([Rule("*", optimizer=name, lr=0.1)])).bind(model)
    optimizer.build(model.trainable_variables)
    inner = optimizer._held.program.engines[0].optimizer
    table = model.trainable_variables[0]
    gradient = tensorflow.IndexedSlices(tensorflow.ones((2, 4)), tensorflow.constant([1, 3]), (10, 4))
    with mock.patch.object(inner, "assign_sub", wraps=inner.assign_sub) as assigned:
        optimizer.apply([gradient], [table])
    assert isinstance(assigned.call_args.args[1], tensorflow.IndexedSlices)
