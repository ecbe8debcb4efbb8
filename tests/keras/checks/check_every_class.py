"""Every class of Keras: what is saved in mid-run goes on bit for bit, and a loss scale changes no update.

All classes train at once, each a layer of one net. Nadam keeps a number that is no variable's own, as any class may;
Keras does not list it where it builds the optimizer inside a `LossScaleOptimizer`.
"""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import Plan, Rule, after, until
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import linear
from tests.keras.nets import fit, state

AROUND = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap")
NAMED = [cls for name, cls in sorted(vars(keras.optimizers).items()) if isinstance(cls, type) and name not in AROUND]


def runs(cls: Any) -> bool:
    """Whether Keras' own class makes a step here: Muon of Keras 3.12 does not on tensorflow."""
    kernel = keras.Variable(np.ones((4, 5), "float32"), name="kernel")
    try:
        cls(learning_rate=0.1).apply([keras.ops.ones((4, 5))], [kernel])
    except (AttributeError, TypeError):
        return False
    return True


CLASSES = [cls.__name__ for cls in NAMED if issubclass(cls, keras.optimizers.Optimizer) and runs(cls)]


@keras.saving.register_keras_serializable("tests")
class Counting(keras.optimizers.SGD):
    """Slows down by counts of its own: by itself, in a list, in a dictionary, as a class may hold a variable."""

    def __init__(self, learning_rate: float = 0.01, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.alone = keras.Variable(0.0, trainable=False, name="alone")

    def build(self, variables: Any) -> None:
        if not self.built:
            super().build(variables)
            self.listed = [keras.Variable(0.0, trainable=False, name="listed")]
            self.named = {"inner": [keras.Variable(0.0, trainable=False, name="named")]}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        counts = (self.alone, self.listed[0], self.named["inner"][0])
        for count in counts:
            count.assign_add(1.0)
        super().update_step(gradient / (counts[0] + 2 * counts[1] + 3 * counts[2]), variable, learning_rate)


def net() -> Any:
    """A layer for each class, side by side, below one head; the layer of a class has its name."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    parts = [keras.layers.Dense(3, activation="tanh", name=name)(inputs) for name in (*CLASSES, "Counting")]
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(keras.layers.Concatenate()(parts)), name="net")


def planned(**timeline: Any) -> Plan:
    base = Rule("*", optimizer="SGD", lr=linear(0.02, 0.01))
    own = [Rule(name, optimizer=name, lr=0.01, **timeline) for name in CLASSES]
    return Plan([base, *own, Rule("Counting", optimizer=Counting, lr=0.01, **timeline)])


def compiled(plan: Plan, scaled: bool, eager: bool = False, **options: Any) -> Any:
    model = net()
    optimizer: Any = GroupedOptimizer(plan, total_steps=16, **options).bind(model)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0, dynamic_growth_steps=3)
    model.compile(optimizer, "mse", run_eagerly=eager)
    return model


def away(a: Any, b: Any) -> dict[str, float]:
    """By the layers that differ, by how much the weights of two models do."""
    found = {
        layer.name: max(
            (float(np.abs(x - y).max()) for x, y in zip(layer.get_weights(), other.get_weights(), strict=True)),
            default=0.0,
        )
        for layer, other in zip(a.layers, b.layers, strict=True)
    }
    return {name: size for name, size in found.items() if size}


@pytest.mark.parametrize("scaled", [False, True], ids=["bare", "scaled"])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 3, "use_ema": True}], ids=["", "accumulated"])
def test_a_saved_run_of_every_class_goes_on_bit_for_bit(scaled: bool, options: dict[str, Any], tmp_path: Path) -> None:
    eager = scaled != bool(options)  # compiled with neither and with both: what is saved is the same
    model = compiled(planned(), scaled, eager, **options)
    fit(model, epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = eager
    before = net()
    before.set_weights(model.get_weights())
    for one in (model, loaded):
        fit(one)
    assert not away(model, loaded)
    assert all(np.array_equal(*pair) for pair in zip(state(model.optimizer), state(loaded.optimizer), strict=True))
    assert away(model, before).keys() == {*CLASSES, "Counting", "head"}


def test_under_a_loss_scale_every_class_makes_the_updates_that_it_makes_without() -> None:
    bare, scaled = compiled(planned(), False), compiled(planned(), True)
    for one in (bare, scaled):
        fit(one)
    assert float(keras.ops.convert_to_numpy(scaled.optimizer.dynamic_scale)) > 4
    assert {name: size for name, size in away(bare, scaled).items() if not size < 2e-6} == {}


@pytest.mark.parametrize("timeline", [after("4 steps"), until("4 steps")], ids=["after", "until"])
def test_all_that_a_class_keeps_stands_still_while_its_group_is_frozen_under_a_loss_scale(timeline: Any) -> None:
    model = compiled(planned(trainable=timeline), True)
    fit(model)  # eight updates, four of them of each class
    held = [(v.path.rpartition("/")[2], keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    assert [float(value) for name, value in held if name in ("alone", "listed", "named")] == [
        8.0
    ] * 3  # kernel and bias
    if "Nadam" in CLASSES:
        product = math.prod(0.9 * (1 - 0.5 * 0.96**step) for step in range(1, 5))
        assert sum(value.shape == () and math.isclose(value, product, rel_tol=1e-5) for _, value in held) == 1
