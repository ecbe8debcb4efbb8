"""What happens where Keras no longer has a private name that is relied upon: the table of `groupwise.keras._keras`."""

from typing import Any

import keras
import pytest

from groupwise import GroupwiseError, Plan, Rule
from groupwise.keras import GroupedOptimizer, _keras
from groupwise.keras.walker import variables_of
from tests.keras.nets import difference, fit, functional, subclassed


class Without:
    """An object, less some of its attributes."""

    def __init__(self, inner: Any, *missing: str) -> None:
        self._inner, self._missing = inner, missing

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(name)
        return getattr(self._inner, name)


@pytest.mark.parametrize("hook", _keras.HOOKS)
def test_a_base_class_without_a_hook_is_refused(hook: str) -> None:
    base = type("Base", (), {name: lambda self: None for name in _keras.HOOKS if name != hook})
    with pytest.raises(GroupwiseError, match=rf"keras .* has no {hook} in its optimizers"):
        _keras.require_hooks(base)


def test_without_decay_and_update_of_its_own_a_group_does_what_keras_documents() -> None:
    def trained(*missing: str) -> Any:
        kernel = keras.Variable([[1.0, 2.0]], name="kernel")
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
        optimizer.build([kernel])
        rule = Without(optimizer, *missing)
        _keras.update(rule, [keras.ops.ones((1, 2))], [kernel])
        _keras.decay_weights(rule, [kernel])
        _keras.count_update(rule)
        assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 1
        return keras.ops.convert_to_numpy(kernel)

    missing = "_apply_weight_decay", "_backend_update_step", "_iterations"
    assert trained(*missing) == pytest.approx(trained(), rel=1e-6)


def test_without_an_index_variables_are_found_by_identity() -> None:
    optimizer = keras.optimizers.SGD(0.1)
    kernels = [keras.Variable([1.0], name="one"), keras.Variable([1.0], name="two")]
    optimizer.build(kernels)
    for found in (optimizer, Without(optimizer, "_get_variable_index")):
        assert [_keras.place_of(found, kernel) for kernel in kernels] == [0, 1]
        assert _keras.place_of(found, keras.Variable([1.0])) is None


def test_without_a_list_of_its_own_variables_a_layer_is_asked_in_public() -> None:
    model = subclassed()
    for layer in (model, model.body):
        bare = Without(layer, "_trainable_variables")
        assert [id(v) for v in _keras.own_variables(bare)] == [id(v) for v in _keras.own_variables(layer)]


def test_without_the_order_of_registration_names_are_the_same() -> None:
    assert _keras.layers_of(Without(subclassed(), "_flatten_layers")) == []
    names = [info.name for info in variables_of(subclassed())]
    assert names == ["body.kernel", "body.bias", "head.kernel", "head.bias"]


def test_what_frameworks_keep_in_a_layer_is_no_part_of_it() -> None:
    found = set(_keras.attributes_of(subclassed()))
    assert {"body", "head"} <= found
    assert not any(name.startswith("_self_") or name in ("_modules", "_layers") for name in found)
    assert next(_keras.class_names(keras.layers.Dense(1))) == "Dense"
    assert not {"Layer", "Module", "KerasAutoTrackable"} & set(_keras.class_names(keras.layers.Dense(1)))


def test_every_hook_is_called_once_an_update() -> None:
    called: list[str] = []
    model, twin = functional(), functional()
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1)])
    optimizer = GroupedOptimizer(plan).bind(model)
    optimizer.build(model.trainable_variables)
    for hook in _keras.HOOKS:
        inner = getattr(optimizer, hook)
        object.__setattr__(optimizer, hook, lambda *a, _hook=hook, _inner=inner: (called.append(_hook), _inner(*a))[1])
    optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    assert called == list(_keras.HOOKS)
    twin.compile(GroupedOptimizer(plan).bind(twin), "mse")
    fit(twin, epochs=1)
    assert difference(model, twin) > 0
