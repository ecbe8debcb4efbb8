"""What happens where Keras no longer has a private name that is relied upon: the table of `groupwise.keras._keras`."""

import re
from pathlib import Path
from typing import Any

import keras
import pytest

from groupwise import GroupwiseError, Plan, Rule
from groupwise.keras import GroupedOptimizer, _keras
from groupwise.keras.walker import variables_of
from tests.keras.nets import difference, fit, functional, subclassed


def optimizers() -> list[Any]:
    """One of each class whose private names are read, built."""
    made = [keras.optimizers.SGD(0.1)]
    if hasattr(keras.optimizers, "MultiOptimizer"):
        made.append(keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))))
    made[0].build([keras.Variable([1.0], name="one")])
    made[0].exclude_from_weight_decay(var_names=["bias"])
    return made


OF_OPTIMIZERS = {
    **dict.fromkeys(_keras.HOOKS, "no plan runs: clipping, decay and update are not one step over all groups"),
    "_iterations": "under accumulation a group counts micro-steps: bias corrections are not those of its updates",
    "_get_variable_index": "variables are found one by one, which takes longer with each of them",
    "_trainable_variables": "jax updates whatever it is given; an audit does not see what the optimizer was built for",
    "_use_weight_decay": "an audit takes excluded variables for decayed",
    "_exclude_from_weight_decay_pattern": "an audit does not see exclusions that match nothing",
    "_learning_rate": "an audit takes a schedule for a number",
}
if keras.backend.backend() == "tensorflow":
    OF_OPTIMIZERS["_track_trackable"] = "tf.train.Checkpoint holds no state of groups"
OF_MULTI = {"_optimizer_map": "an audit does not see the parts of a MultiOptimizer"}
OF_LAYERS = {
    "_flatten_layers": "layers of subclassed models come in the order of attributes: depth may differ",
    "_trainable_variables": "layers with frozen variables of their own may lose them from the names",
    "_layers": "bookkeeping that has another name now becomes a part of names",
}
"""Private names that are read, and what breaks without each: what a failure with a newer Keras says."""


@pytest.mark.parametrize("name", sorted(OF_OPTIMIZERS))
def test_keras_has_what_is_read_of_an_optimizer(name: str) -> None:
    assert name in dir(optimizers()[0]), f"keras {keras.__version__}: no {name} of optimizers: {OF_OPTIMIZERS[name]}"


@pytest.mark.parametrize("name", sorted(OF_MULTI))
def test_keras_has_what_is_read_of_an_optimizer_of_parts(name: str) -> None:
    for multi in optimizers()[1:]:
        assert name in dir(multi), f"keras {keras.__version__}: no {name} of MultiOptimizer: {OF_MULTI[name]}"


@pytest.mark.parametrize("name", sorted(OF_LAYERS))
def test_keras_has_what_is_read_of_a_layer(name: str) -> None:
    assert name in dir(keras.layers.Dense(1)), f"keras {keras.__version__}: no {name} of layers: {OF_LAYERS[name]}"


def test_every_name_that_is_read_is_in_these_tables() -> None:
    read = set(re.findall(r'getattr\(\w+, "(_\w+)"', Path(str(_keras.__file__)).read_text(encoding="utf-8")))
    assert read <= OF_OPTIMIZERS.keys() | OF_MULTI.keys() | OF_LAYERS.keys() | {"_track_trackable"}


def test_without_exclusions_parts_and_schedules_an_audit_sees_none() -> None:
    variable = keras.Variable([1.0], name="bias")
    plain = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), weight_decay=0.1)
    plain.exclude_from_weight_decay(var_names=["bias"])
    plain.build([variable])
    assert not _keras.is_decayed(plain, variable)
    assert (_keras.excluded_names(plain) is None, _keras.has_schedule(plain)) == (False, True)
    bare = Without(plain, *OF_OPTIMIZERS, *OF_MULTI)
    assert _keras.is_decayed(bare, variable)
    assert (_keras.excluded_names(bare), _keras.has_schedule(bare)) == (None, False)
    assert [_keras.map_of(Without(one, *OF_MULTI)) for one in optimizers()] == [None] * len(optimizers())
    assert _keras.built_for(bare) is None


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
    assert {name for name in found if name.startswith("_self_")} <= {"_self_attention"}
    assert not found & {"_modules", "_layers"}
    assert next(_keras.class_names(keras.layers.Dense(1))) == "Dense"
    assert not {"Layer", "Module", "KerasAutoTrackable"} & set(_keras.class_names(keras.layers.Dense(1)))


class Attending(keras.layers.Layer):
    """A layer with an attribute that begins as tensorflow's own do."""

    def __init__(self) -> None:
        super().__init__()
        self._self_attention = keras.layers.Dense(4)

    def build(self, shape: Any) -> None:
        self._self_attention.build(shape)

    def call(self, x: Any) -> Any:
        return self._self_attention(x)


def test_a_layer_whose_attribute_is_called_like_one_of_tensorflow_is_seen() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Attending()(Attending()(inputs)))
    found = variables_of(model)
    assert {id(info.parameter) for info in found} == {id(variable) for variable in model.trainable_variables}
    assert [info.name.partition(".")[2] for info in found] == ["self_attention.kernel", "self_attention.bias"] * 2


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
