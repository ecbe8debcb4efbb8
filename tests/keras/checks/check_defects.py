"""What goes wrong in silence elsewhere, and must not here: each check first shows the fault, with Keras' own classes.

The letters are those of the table in docs/keras.md.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import exponential
from groupwise.select import role
from tests.keras.nets import difference, fit, functional, sequential, weights

MULTI = getattr(keras.optimizers, "MultiOptimizer", None)
needs_multi = pytest.mark.skipif(MULTI is None, reason="this Keras has no MultiOptimizer")
BODY = Rule("body", optimizer="AdamW", lr=0.01, weight_decay=0.1)
HEAD = Rule("head", optimizer="SGD", lr=0.1, momentum=0.9)


def multi(*patterns: str) -> Any:
    """AdamW for what matches a pattern, SGD for the rest."""
    chosen = {pattern: keras.optimizers.AdamW(0.01, weight_decay=0.1) for pattern in patterns}
    default = keras.optimizers.SGD(0.1, momentum=0.9)
    return MULTI(keras.optimizers.OptimizerMap(default, chosen))  # type: ignore[misc]


def trained(model: Any, optimizer: Any) -> Any:
    model.compile(optimizer, "mse")
    fit(model)
    return model


@needs_multi
def test_on_what_both_can_say_they_agree() -> None:
    ours, theirs = functional(), functional()
    trained(ours, GroupedOptimizer(Plan([BODY, HEAD])).bind(ours))
    trained(theirs, multi(".*body/.*"))
    assert difference(ours, theirs) < 1e-6


@needs_multi
def test_a_a_pattern_that_matches_nothing() -> None:
    model, plain = functional(), functional()
    trained(model, multi("bdoy/.*"))  # everything goes to the default, without a word
    trained(plain, keras.optimizers.SGD(0.1, momentum=0.9))
    assert difference(model, plain) < 1e-6
    with pytest.raises(GroupwiseError, match=r"rule 2 'bdoy' matches no parameter.*nearest: body"):
        GroupedOptimizer(Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("bdoy.*", lr=0.01)])).bind(functional())


@needs_multi
def test_b_a_partition_that_changes_on_loading(tmp_path: Path) -> None:
    theirs = trained(sequential(), multi("body/.*"))  # the path is sequential/body/…: all are the default's
    theirs.save(tmp_path / "theirs.keras")
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        loaded = keras.models.load_model(tmp_path / "theirs.keras")  # the path is body/…: AdamW from here on
    for model in (theirs, loaded):
        fit(model)
    assert difference(theirs, loaded) > 0.01
    ours = sequential()
    trained(ours, GroupedOptimizer(Plan([BODY, HEAD])).bind(ours)).save(tmp_path / "ours.keras")
    again = keras.models.load_model(tmp_path / "ours.keras")
    for model in (ours, again):
        fit(model)
    assert difference(ours, again) == 0


@needs_multi
def test_c_a_layer_frozen_without_compiling_anew() -> None:
    if keras.backend.backend() != "torch":
        pytest.skip("on jax every optimizer of Keras refuses it")
    ours, theirs = functional(), functional()
    trained(ours, GroupedOptimizer(Plan([BODY, HEAD])).bind(ours))
    trained(theirs, multi(".*body/.*"))
    for model in (ours, theirs):
        model.layers[1].trainable = False
    before = weights(ours)
    fit(ours)
    assert np.array_equal(weights(ours)["body.kernel"], before["body.kernel"])
    with pytest.raises(ValueError, match=r"\w"):
        fit(theirs)


@needs_multi
def test_d_general_rules_with_exceptions() -> None:
    model = functional()
    base = Rule("*", optimizer="AdamW", lr=0.01, weight_decay=0.1)
    head = Rule("head", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0)
    plan = Plan([base, head, Rule(role("bias"), label="biases", weight_decay=0.0)])
    trained(model, GroupedOptimizer(plan).bind(model))
    with pytest.raises(ValueError, match="Multiple optimizers assigned to variable"):
        trained(functional(), multi(".*body.*", ".*bias.*"))


def test_e_a_number_that_is_changed_between_two_fits() -> None:
    def after(optimizer: Any, change: Any, model: Any) -> Any:
        trained(model, optimizer)
        change(optimizer)
        fit(model)
        return model

    def plain(decay: float) -> Any:
        def change(optimizer: Any) -> None:
            optimizer.weight_decay = decay

        return after(keras.optimizers.AdamW(0.01, weight_decay=0.1), change, functional())

    def ours(decay: float) -> Any:
        def change(optimizer: Any) -> None:
            optimizer.hyperparameters["base"]["weight_decay"] = decay

        model = functional()
        rule = Rule("*", optimizer="AdamW", lr=0.01, weight_decay=0.1)
        return after(GroupedOptimizer(Plan([rule])).bind(model), change, model)

    heard = difference(plain(0.1), plain(0.9)) > 1e-4
    assert heard == (keras.backend.backend() == "torch")  # elsewhere it is compiled in
    assert difference(ours(0.1), ours(0.9)) > 1e-4


def test_f_what_is_excluded_from_weight_decay_stays_excluded_after_loading(tmp_path: Path) -> None:
    plain = functional()
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    trained(plain, optimizer).save(tmp_path / "plain.keras")
    forgot = keras.models.load_model(tmp_path / "plain.keras")
    ours = functional()
    base = Rule("*", optimizer="AdamW", lr=0.01, weight_decay=5.0)
    plan = Plan([base, Rule(role("bias"), weight_decay=0.0)])
    trained(ours, GroupedOptimizer(plan).bind(ours)).save(tmp_path / "ours.keras")
    again = keras.models.load_model(tmp_path / "ours.keras")
    assert difference(ours, plain) < 1e-6
    for model in (plain, forgot, ours, again):
        fit(model)
    assert difference(plain, forgot) > 1e-3
    assert difference(ours, again) == 0


@needs_multi
def test_g_state_is_saved_once(tmp_path: Path) -> None:
    def size(optimizer: Any, name: str) -> int:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(300, name="body")])
        model.compile(optimizer, "mse")
        model.fit(np.ones((1, 300)), np.ones((1, 300)), verbose=0)
        model.save(tmp_path / name)
        return (tmp_path / name).stat().st_size

    plan = Plan([Rule("*", optimizer="AdamW", lr=0.01, weight_decay=0.1)])
    plain = size(keras.optimizers.AdamW(0.01), "plain.keras")
    assert size(multi(".*body/.*"), "multi.keras") > 1.4 * plain
    assert size(GroupedOptimizer(plan), "ours.keras") < 1.05 * plain


def test_h_state_trees_and_logs_have_no_name_twice() -> None:
    model = functional()
    trained(
        model, GroupedOptimizer(Plan([BODY, Rule("head", optimizer="AdamW", lr=0.1, weight_decay=0.1)])).bind(model)
    )
    tree = model.get_state_tree()["optimizer_variables"]
    assert list(tree) == ["grouped_optimizer"]
    assert {"group_0", "group_1"} < set(tree["grouped_optimizer"])


def test_i_a_group_that_gets_no_gradient_for_a_while() -> None:
    model = functional()
    optimizer = GroupedOptimizer(Plan([BODY, HEAD])).bind(model)
    optimizer.build(model.trainable_variables)
    before = weights(model)
    ones = [keras.ops.ones(variable.shape) for variable in model.trainable_variables]
    optimizer.apply(ones[2:], model.trainable_variables[2:])
    now = weights(model)
    assert np.array_equal(now["body.kernel"], before["body.kernel"])
    assert not np.array_equal(now["head.kernel"], before["head.kernel"])


@needs_multi
def test_j_a_callback_that_sets_the_rate_of_a_part_that_has_a_schedule() -> None:
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5)
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    theirs = functional()
    sub = {".*body/.*": keras.optimizers.SGD(decay)}
    theirs.compile(MULTI(keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), sub)), "mse")  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"not settable|Error"):
        fit(theirs, callbacks=[halve])
    ours = functional()
    plan = Plan([Rule("*", optimizer="SGD", lr=exponential(0.1, 0.9, every="10 steps"))])
    ours.compile(GroupedOptimizer(plan, total_steps=8).bind(ours), "mse")
    fit(ours, callbacks=[halve])
    assert float(keras.ops.convert_to_numpy(ours.optimizer.learning_rate)) == 0.25
