"""Two devices of the host train as one does, where Keras distributes (jax)."""

from typing import Any

import keras
import pytest

from groupwise import Plan, Rule, clip_norm
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
