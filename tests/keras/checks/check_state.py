"""Whatever Keras' base class does with its own state, it does with all of the plan's."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule
from groupwise.errors import OptimizerError, StateError
from groupwise.keras import GroupedOptimizer
from tests.keras.nets import data, difference, fit, functional, state

PLAN = Plan(
    [
        Rule("*", optimizer="Adam", lr=0.01),
        Rule("head", optimizer="SGD", lr=0.1, momentum=0.9),
    ]
)


def compiled(plan: Plan = PLAN, **options: Any) -> Any:
    model = functional()
    model.compile(GroupedOptimizer(plan, **options).bind(model), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def same(a: Any, b: Any) -> bool:
    pairs = zip(state(a), state(b), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("as_arrays", [False, True])
@pytest.mark.parametrize("options", [{}, {"use_ema": True}, {"gradient_accumulation_steps": 2}])
def test_set_weights_takes_over_everything(as_arrays: bool, options: dict[str, Any]) -> None:
    first, second = compiled(**options), compiled(**options)
    fit(first)
    assert not same(first.optimizer, second.optimizer)
    second.set_weights(first.get_weights())
    second.optimizer.set_weights(state(first.optimizer) if as_arrays else first.optimizer.variables)
    assert same(first.optimizer, second.optimizer)
    fit(first)
    fit(second)
    assert difference(first, second) < 1e-7


def test_set_weights_takes_all_or_nothing() -> None:
    first, second = compiled(), compiled()
    fit(first)
    before, given = state(second.optimizer), state(first.optimizer)
    for wrong, message in (
        (given[:-1], f"set_weights has {len(given) - 1} variables and this optimizer {len(given)}"),
        ([*given, given[0]], f"set_weights has {len(given) + 1} variables"),
        ([], "set_weights has 0 variables"),
        ([*given[:-1], np.zeros(7)], r"set_weights: variable \d+, .*, has shape \(1,\) here and \(7,\) there"),
        ([*given[:-2], given[-1], given[-2]], "set_weights: variable"),
    ):
        with pytest.raises(StateError, match=message):
            second.optimizer.set_weights(wrong)
        assert all(np.array_equal(a, b) for a, b in zip(state(second.optimizer), before, strict=True))


def test_set_weights_of_an_optimizer_that_is_not_built_says_so() -> None:
    with pytest.raises(OptimizerError, match="is not built yet"):
        GroupedOptimizer(PLAN).set_weights([])


def test_a_file_with_a_variable_of_another_shape_changes_nothing(tmp_path: Path) -> None:
    class Store(dict[str, Any]):
        """What Keras hands to an optimizer."""

    first, second = compiled(), compiled()
    fit(first)
    store = Store()
    first.optimizer.save_own_variables(store)
    last = max((key for key in store if key.isdigit()), key=int)
    store[last] = np.zeros((9,), "float32")
    before = state(second.optimizer)
    with pytest.raises(StateError, match=r"the saved optimizer state: variable \d+"):
        second.optimizer.load_own_variables(store)
    assert all(np.array_equal(a, b) for a, b in zip(state(second.optimizer), before, strict=True))


def test_a_file_with_fewer_variables_says_how_many() -> None:
    class Store(dict[str, Any]):
        """What Keras hands to an optimizer."""

    model, store = compiled(), Store()
    model.optimizer.save_own_variables(store)
    size = len(model.optimizer.variables)
    del store[str(size - 1)]
    with pytest.raises(StateError, match=f"does not fit: it has {size - 1} variables, and here are {size}; load it"):
        model.optimizer.load_own_variables(store)


def test_stateless_apply_moves_the_whole_state() -> None:
    if keras.backend.backend() == "tensorflow":
        pytest.skip("Keras has no stateless_apply on tensorflow")
    stateless, plain = compiled(), compiled()
    gradients = [keras.ops.ones(variable.shape) for variable in plain.trainable_variables]
    values = [keras.ops.convert_to_tensor(v) for v in stateless.trainable_variables]
    own = [keras.ops.convert_to_tensor(v) for v in stateless.optimizer.variables]
    for _ in range(3):
        values, own = stateless.optimizer.stateless_apply(own, gradients, values)
        plain.optimizer.apply(gradients, plain.trainable_variables)
    for found, expected in zip(own, state(plain.optimizer), strict=True):
        assert np.allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-7)
    for found, variable in zip(values, plain.trainable_variables, strict=True):
        assert np.allclose(keras.ops.convert_to_numpy(found), keras.ops.convert_to_numpy(variable), atol=1e-7)


def test_the_average_is_put_into_every_variable() -> None:
    model = compiled(use_ema=True, ema_momentum=0.5)
    variables = model.trainable_variables
    averages = [np.zeros(v.shape) for v in variables]
    for step in range(3):
        model.optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
        kept = 0.5 if step else 0.0
        averages = [
            kept * average + (1 - kept) * keras.ops.convert_to_numpy(v)
            for average, v in zip(averages, variables, strict=True)
        ]
    model.optimizer.finalize_variable_values(variables)
    for average, v in zip(averages, variables, strict=True):
        assert np.allclose(keras.ops.convert_to_numpy(v), average, atol=1e-6)


@pytest.mark.parametrize("name", ["weight_decay", "clipnorm", "global_clipnorm", "clipvalue"])
def test_what_a_plan_says_cannot_be_assigned_to_the_optimizer_without_effect(name: str) -> None:
    optimizer = compiled().optimizer
    with pytest.raises(OptimizerError, match=rf"optimizer\.{name} = 0\.1 has no effect: the plan says it, with"):
        setattr(optimizer, name, 0.1)
    setattr(optimizer, name, None)
    assert getattr(optimizer, name) is None


def test_what_a_plan_has_no_meaning_for_is_refused() -> None:
    model = compiled()
    with pytest.raises(
        OptimizerError, match=r"one step over all groups, which optimizer\.apply\(gradients, variables\) makes"
    ):
        model.optimizer.update_step(keras.ops.ones((1,)), model.trainable_variables[-1], 0.1)
    with pytest.raises(GroupwiseError, match="say it in the plan"):
        model.optimizer.exclude_from_weight_decay(var_names=["bias"])


def test_an_update_that_raises_leaves_no_update_under_way() -> None:
    model = compiled()
    variables = model.trainable_variables
    wrong = [keras.ops.ones((3, 3, 3)) for _ in variables]
    with pytest.raises(Exception, match=r"."):
        model.optimizer.apply(wrong, variables)
    assert not model.optimizer._held.updates
    gradients = [keras.ops.ones(v.shape) for v in variables]
    model.optimizer.apply(gradients, variables)
    assert int(model.optimizer.iterations) == 1


def test_tensors_without_a_gradient_are_counted() -> None:
    model = compiled()
    optimizer, variables = model.optimizer, model.trainable_variables
    gradients = [keras.ops.ones(v.shape) for v in variables]
    optimizer.measuring = True
    for missing, told in (((), (0, 0)), ((0,), (1, 0)), ((1, 2), (1, 1)), ((2,), (0, 1))):
        given = [None if i in missing else g for i, g in enumerate(gradients)]
        if missing:
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                optimizer.apply(given, variables)
        else:
            optimizer.apply(given, variables)
        assert tuple(optimizer.measured[name]["no_grad"] for name in ("base", "head")) == told


def test_weights_come_from_another_optimizer_through_a_fit() -> None:
    x, y = (array.astype("float32") for array in data())
    first, second = compiled(), compiled()
    first.fit(x, y, epochs=2, verbose=0, shuffle=False)
    second.set_weights(first.get_weights())
    second.optimizer.set_weights(first.optimizer.variables)
    a = first.fit(x, y, epochs=2, verbose=0, shuffle=False).history["loss"]
    b = second.fit(x, y, epochs=2, verbose=0, shuffle=False).history["loss"]
    assert np.allclose(a, b, rtol=1e-5)
