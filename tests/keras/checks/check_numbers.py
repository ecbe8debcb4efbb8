"""Every number of every class, declared in a plan, against the same class of Keras with the same number."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule
from groupwise.errors import GroupwiseWarning
from groupwise.keras import GroupedOptimizer
from groupwise.keras.algorithms import KerasAlgorithms, hyperparameters_of
from groupwise.schedules import linear
from tests.keras.nets import difference, fit, functional, weights

CLASSES = (
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam", "RMSprop",
    "SGD", "ScheduleFreeAdamW",
)  # fmt: skip
GRADIENTS = np.random.default_rng(0).standard_normal((2, 4, 5)).astype("float32")


def numbers_of(cls: Any) -> Iterator[tuple[str, float]]:
    """Each number that the constructor takes, at another value than its default."""
    for name, default in hyperparameters_of(cls).items():
        if name == "weight_decay":
            yield name, 0.05
        elif isinstance(default, int | float) and not isinstance(default, bool) and name != "learning_rate":
            yield name, default + 1 if isinstance(default, int) else default * 0.99 if default else 0.01


def moved(optimizer: Any, dtype: str = "float32") -> Any:
    """A kernel after two updates."""
    kernel = keras.Variable(np.linspace(0.5, 1, 20, dtype="float32").reshape(4, 5), name="kernel", dtype=dtype)
    optimizer.build([kernel])
    for gradient in GRADIENTS:
        optimizer.apply([keras.ops.cast(keras.ops.convert_to_tensor(gradient), dtype)], [kernel])
    return keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))


def require_that_it_runs(cls: Any, dtype: str = "float32") -> None:
    """Skip where Keras' own class cannot make a step: Muon of Keras 3.12 on tensorflow, Nadam in bfloat16 on torch."""
    try:
        moved(cls(learning_rate=0.1), dtype)
    except (AttributeError, TypeError) as error:
        pytest.skip(f"{cls.__name__} of Keras {keras.__version__} raises by itself: {error}")


@pytest.mark.parametrize("name", CLASSES)
def test_a_declared_number_is_that_of_the_class(name: str) -> None:
    cls = getattr(keras.optimizers, name, None)
    if cls is None:
        pytest.skip(f"this Keras has no {name}")
    require_that_it_runs(cls)
    for key, value in numbers_of(cls):
        ours = GroupedOptimizer(Plan([Rule("*", optimizer=name, lr=0.1, **{key: value})]))
        away = np.abs(moved(ours) - moved(cls(learning_rate=0.1, **{key: value}))).max()
        assert away < 2e-6, (key, value, away)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", CLASSES)
def test_in_half_precision_the_weights_are_those_of_the_class_bit_for_bit(name: str, dtype: str) -> None:
    cls = getattr(keras.optimizers, name, None)
    if cls is None:
        pytest.skip(f"this Keras has no {name}")
    require_that_it_runs(cls, dtype)
    every = dict(numbers_of(cls))
    buffered = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    for declared in ({}, buffered, every):
        expected = moved(cls(learning_rate=0.1, **declared), dtype)  # not finite in some: epsilon is 0 in float16
        for rate in (0.1, linear(0.1, 0.1)):
            ours = GroupedOptimizer(Plan([Rule("*", optimizer=name, lr=rate, **declared)]), total_steps=2)
            np.testing.assert_array_equal(moved(ours, dtype), expected, err_msg=f"{declared}, {rate}")


LOW: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    "RMSprop": {"rho": 0.95, "momentum": 0.9, "centered": True},
    "AdamW": {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3, "weight_decay": 0.05},
    "Muon": {"momentum": 0.9, "ns_steps": 2, "weight_decay": 0.05},
}
POLICIES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
COMPILED = {  # each class whole and mixed, each policy under two classes: compiling is most of the time
    *itertools.product(("SGD", "Muon"), ("float16", "mixed_bfloat16")),
    *itertools.product(("RMSprop", "AdamW"), ("bfloat16", "mixed_float16")),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LOW)
def test_a_fit_under_a_policy_of_low_precision_is_that_of_the_class(name: str, policy: str) -> None:
    """Bit for bit in half precision; as jax and tensorflow compile it, to one rounding step.

    XLA computes w·decay·rate as w·(rate·decay) where the decay is a constant, as it is to the class and not here.
    """
    declared = LOW[name]
    require_that_it_runs(getattr(keras.optimizers, name))
    rounding = {"float16": 2**-10, "bfloat16": 2**-7}
    keras.config.set_dtype_policy(policy)
    try:
        for eager in (True, False) if (name, policy) in COMPILED else (True,):
            ours, theirs = functional(), functional()
            plan = Plan([Rule("*", optimizer=name, lr=0.05, **declared)])
            ours.compile(GroupedOptimizer(plan).bind(ours), "mse", run_eagerly=eager)
            theirs.compile(getattr(keras.optimizers, name)(0.05, **declared), "mse", run_eagerly=eager)
            for model in (ours, theirs):
                fit(model)
            exact = eager or keras.backend.backend() == "torch"
            assert difference(ours, theirs) <= (1e-6 if policy not in rounding else 0 if exact else rounding[policy])
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_number_fixed_in_half_precision_says_so_where_another_is_assigned_or_loaded() -> None:
    optimizers = []
    for beta in (0.9, 0.99):
        plan = Plan([Rule("*", optimizer="Adam", lr=0.1, beta_2=beta)])
        optimizer = GroupedOptimizer(plan)
        moved(optimizer, "float16")
        optimizers.append(optimizer)
    first, second = optimizers
    (values,) = first.hyperparameters.values()
    with pytest.raises(GroupwiseError, match=r"beta_2: it is a Python number .* half precision, 0\.9 for as long"):
        values["beta_2"] = 0.95
    with pytest.warns(GroupwiseWarning, match=r"beta_2=0\.99, here 0\.9\. Those of this plan count"):
        first.set_weights(second.variables)
    assert values["beta_2"] == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["Ftrl", "Muon", "RMSprop"])
def test_all_numbers_together_train_alike_in_the_compiled_step(name: str) -> None:
    cls = getattr(keras.optimizers, name, None)
    if cls is None:
        pytest.skip(f"this Keras has no {name}")
    require_that_it_runs(cls)
    ours, theirs = functional(), functional()
    declared: dict[str, Any] = dict(numbers_of(cls))
    ours.compile(GroupedOptimizer(Plan([Rule("*", optimizer=name, lr=0.01, **declared)])).bind(ours), "mse")
    theirs.compile(cls(learning_rate=0.01, **declared), "mse")
    for model in (ours, theirs):
        fit(model, epochs=1)
    assert difference(ours, theirs) < 2e-6


class Python(keras.optimizers.SGD):
    """Uses its numbers as Python does: the length of a loop, a shape, an if."""

    def __init__(
        self, learning_rate: float = 0.01, inner: int = 1, wide: Any = None, sharp: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.inner, self.wide, self.sharp = inner, wide, sharp

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        for _ in range(self.inner):
            gradient = gradient * 0.9
        if self.sharp > 0.4:
            gradient = gradient * 2
        tiled = keras.ops.tile(keras.ops.reshape(gradient, (-1, 1)), (1, self.wide or 1))
        super().update_step(keras.ops.reshape(keras.ops.sum(tiled, 1), variable.shape), variable, learning_rate)


@pytest.mark.parametrize("declared", [{"inner": 3}, {"wide": 2}, {"sharp": 0.5}, {"sharp": 0.3, "weight_decay": 0.1}])
def test_a_class_that_uses_its_numbers_as_python_numbers_trains_alike(declared: dict[str, Any]) -> None:
    ours, theirs = functional(), functional()
    ours.compile(GroupedOptimizer(Plan([Rule("*", optimizer=Python, lr=0.1, **declared)])).bind(ours), "mse")
    theirs.compile(Python(0.1, **declared), "mse")
    for model in (ours, theirs):
        fit(model, epochs=1)
    assert difference(ours, theirs) < 1e-6


def test_a_number_below_zero_answers_comparisons_with_zero_by_its_sign() -> None:
    class Signed(keras.optimizers.SGD):
        def __init__(self, learning_rate: float = 0.01, tilt: float = 0.5, **kwargs: Any) -> None:
            super().__init__(learning_rate=learning_rate, **kwargs)
            self.tilt = tilt

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            factor = 1.0 if self.tilt > 0 else 3.0 if self.tilt < 0 and self.tilt != 0 and self.tilt else 0.0
            super().update_step(gradient * factor * self.tilt, variable, learning_rate)

    for tilt in (0.5, -0.5):
        ours, theirs = functional(), functional()
        optimizer = GroupedOptimizer(Plan([Rule("*", optimizer=Signed, lr=0.1, tilt=tilt)])).bind(ours)
        ours.compile(optimizer, "mse")
        theirs.compile(Signed(0.1, tilt=tilt), "mse")
        for model in (ours, theirs):
            fit(model, epochs=1)
        assert difference(ours, theirs) < 1e-6
        with pytest.raises(GroupwiseError, match="its sign is compiled in"):
            optimizer.hyperparameters["base"]["tilt"] = -tilt


def test_what_cannot_be_a_variable_cannot_be_scheduled() -> None:
    plan = Plan([Rule("*", optimizer="Muon", lr=0.1, ns_steps=linear(3, 5))])
    if not hasattr(keras.optimizers, "Muon"):
        pytest.skip("this Keras has no Muon")
    require_that_it_runs(keras.optimizers.Muon)
    with pytest.raises(GroupwiseError, match=r"ns_steps (as a Python number|once, when it is built)"):
        GroupedOptimizer(plan, total_steps=8).bind(functional())


def test_a_scheduled_number_meets_variables_in_double_precision() -> None:
    if keras.backend.backend() == "jax":
        pytest.skip("jax has no double precision unless it is switched on")
    keras.config.set_dtype_policy("float64")
    try:
        model, plain = functional(), functional()
        rule = Rule("*", optimizer="SGD", lr=0.1, momentum=linear(0.5, 0.5))
        model.compile(GroupedOptimizer(Plan([rule]), total_steps=8).bind(model), "mse")
        plain.compile(keras.optimizers.SGD(0.1, momentum=0.5), "mse")
        for one in (model, plain):
            fit(one, epochs=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.trainable_variables[0].dtype == "float64"
    assert difference(model, plain) < 1e-7


def test_a_declared_decay_of_zero_is_the_default_of_none() -> None:
    model = functional()
    rules = [Rule("*", optimizer="AdamW", lr=0.1, weight_decay=0.0), Rule("head", optimizer="SGD", lr=0.1)]
    model.compile(GroupedOptimizer(Plan(rules)).bind(model), "mse")
    before = weights(model)
    fit(model, epochs=1)
    assert difference(model, before) > 0
    assert "SGD" in KerasAlgorithms(Plan(rules))["SGD"].name
