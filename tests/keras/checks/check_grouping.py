"""What rules see of a Keras model, and what they cannot mean."""

from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Parts, Plan, Rule, after, clip_norm, fan_in, fan_out, layer_decay, scale
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import cosine, exponential, function, plateau
from groupwise.select import depth, inside, kind, ndim, network, role
from tests.keras.nets import fit, functional, nested, sequential

SGD = Rule("*", optimizer="SGD", lr=0.1)


def test_parts_of_a_variable_are_refused() -> None:
    parts = [Parts("*kernel", into=["a", "b"])]
    with pytest.raises(GroupwiseError, match=r"the plan takes \*kernel apart, .* Keras take whole variables"):
        GroupedOptimizer(Plan([SGD], parts=parts)).bind(sequential())


def test_factors_of_shape_read_kernels_as_keras_holds_them() -> None:
    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Reshape((36, 4)),
        keras.layers.GRU(5, name="gru"), keras.layers.Dense(2, name="dense"),
    ])  # fmt: skip
    plan = Plan([SGD, Rule("*kernel", learning_rate=fan_in(2)), Rule("*", weight_decay=fan_out(3))])
    plan = plan + [Rule("*", optimizer="SGD", weight_decay=0.5)]
    resolution = GroupedOptimizer(plan).bind(model).resolution
    into = {"conv.kernel": 27, "gru.cell.kernel": 4, "gru.cell.recurrent_kernel": 5, "dense.kernel": 5}
    out = {"conv.kernel": 36, "gru.cell.kernel": 15, "gru.cell.recurrent_kernel": 15, "dense.kernel": 2}
    out |= {"conv.bias": 4, "gru.cell.bias": 15, "dense.bias": 2}
    found = {info.name: group.settings for group in resolution.groups for info in group.parameters}
    rates = {name: settings["learning_rate"].at(0) for name, settings in found.items()}
    assert rates == pytest.approx({name: 0.2 / into[name] if name in into else 0.1 for name in out})
    decays = {name: settings["weight_decay"].at(0) for name, settings in found.items()}
    assert decays == pytest.approx({name: 1.5 / size for name, size in out.items()})


class Block(keras.layers.Layer):
    """Attention, a norm and two lists of layers, one of them in a dictionary."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization()
        self._attend = keras.layers.MultiHeadAttention(2, 2)
        self.mlp = {"up": keras.layers.Dense(4), "down": keras.layers.Dense(4)}

    def call(self, x: Any) -> Any:
        x = x + self._attend(self.norm(x), x)
        return x + self.mlp["down"](self.mlp["up"](x))


class Encoder(keras.Model):
    """Embedding, numbered blocks, a head; the head is registered before the blocks' attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = keras.layers.Embedding(7, 4)
        self.blocks = [Block(), Block()]
        self.final = keras.layers.BatchNormalization()
        self.classifier = keras.layers.Dense(3)

    def call(self, x: Any) -> Any:
        x = self.tokens(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.final(x))


def encoder() -> Any:
    model = Encoder()
    model(np.zeros((1, 3), "int32"))
    return model


def chosen(model: Any, selector: Any) -> set[str]:
    """The names that a selector matches in a model."""
    optimizer = GroupedOptimizer(Plan([SGD, Rule(selector, label="chosen", lr=scale(0.5))])).bind(model)
    groups = optimizer.resolution.groups
    return {info.name for group in groups if 1 in group.rules for info in group.parameters}


def refused(plan: Plan | list[Rule], model: Any = None, **options: Any) -> str:
    """The one error that a plan meets on a model."""
    plan = plan if isinstance(plan, Plan) else Plan(plan)
    with pytest.raises(GroupwiseError, match=r"\w") as caught:
        GroupedOptimizer(plan, **options).bind(functional() if model is None else model)
    return str(caught.value)


def test_names_are_attributes_lists_and_dictionaries_under_subclassed_models() -> None:
    names = {info.name for info in GroupedOptimizer(Plan([SGD])).bind(encoder()).resolution.parameters}
    assert {"tokens.embeddings", "blocks.0.norm.gamma", "blocks.1.attend.query_dense.kernel"} < names
    assert {"blocks.1.mlp.up.kernel", "final.beta", "classifier.bias"} < names
    assert not any("moving" in name for name in names)


def test_globs_are_written_with_dots_or_slashes() -> None:
    model = encoder()
    assert chosen(model, "blocks/1/mlp/*") == chosen(model, "blocks.1.mlp.*") == chosen(model, "blocks.1.mlp")
    assert len(chosen(model, "blocks.1.mlp")) == 4


def test_selectors_see_classes_roles_shapes_and_depth() -> None:
    model = encoder()
    assert chosen(model, kind("Dense")) > {"classifier.kernel", "blocks.0.mlp.up.bias"}
    assert chosen(model, inside("MultiHeadAttention")) == chosen(model, "*.attend.*")
    assert chosen(model, role("norm")) == {f"{name}.{leaf}" for name in NORMS for leaf in ("gamma", "beta")}
    assert chosen(model, role("embedding")) == {"tokens.embeddings"}
    assert chosen(model, role("head")) == {"classifier.kernel", "classifier.bias"}
    assert chosen(model, ndim(3)) == chosen(model, "*.attend.*.kernel")
    assert chosen(model, depth(0)) == {"tokens.embeddings"}
    assert chosen(model, depth(2)) == chosen(model, "blocks.1")
    assert chosen(model, depth(3)) == chosen(model, "final") | chosen(model, "classifier")


NORMS = ("blocks.0.norm", "blocks.1.norm", "final")


def test_layer_decay_goes_down_the_numbered_blocks() -> None:
    model = encoder()
    resolution = GroupedOptimizer(Plan([SGD, Rule("*", label="decay", lr=layer_decay(0.5))])).bind(model).resolution
    rates = {info.name: g.settings["learning_rate"].peak for g in resolution.groups for info in g.parameters}
    assert rates["classifier.bias"] == 0.1
    assert rates["blocks.1.norm.beta"] == 0.05
    assert rates["tokens.embeddings"] == 0.0125


def test_several_models_are_networks() -> None:
    models = {"a": functional(), "b": functional()}
    plan = Plan([SGD, Rule(network("b"), lr=scale(0.1))])
    assert {info.network for info in GroupedOptimizer(plan).bind(models).resolution.groups[1].parameters} == {"b"}


def test_a_tied_layer_counts_once_and_carries_both_names() -> None:
    model = encoder()
    model.also = model.classifier
    names = {info.names for info in GroupedOptimizer(Plan([SGD])).bind(model).resolution.parameters}
    assert ("classifier.kernel", "also.kernel") in names


def test_every_law_of_the_cascade_holds() -> None:
    assert "matches no parameter" in refused([SGD, Rule("haed", lr=scale(0.1))])
    assert "nearest: head" in refused([SGD, Rule("haed", lr=scale(0.1))])
    assert "2 trainable parameters have no optimizer: head.kernel, head.bias" in refused(
        [Rule("body", optimizer="SGD", lr=1)]
    )
    assert "has no declared learning_rate" in refused([Rule("*", optimizer="SGD")])
    assert "did you mean 'momentum'?" in refused([Rule("*", optimizer="SGD", lr=0.1, momentun=0.9)])
    assert "say clip=clip_norm(…)" in refused([Rule("*", optimizer="SGD", lr=0.1, clipnorm=1.0)])
    assert "overridden everywhere" in refused([Rule("head", lr=0.5), SGD])
    dropped = [Rule("*", optimizer="AdamW", lr=0.1, weight_decay=0.1), Rule("head", optimizer="Lamb", lr=0.1)]
    assert "would silently lose weight_decay=0.1" in refused(dropped)
    assert "declares learning_rate twice" in refused([Rule("*", optimizer="SGD", lr=0.1, learning_rate=0.1)])


def test_an_algorithm_that_keras_has_not_is_named_with_the_nearest() -> None:
    assert "did you mean 'AdamW'?" in refused([Rule("*", optimizer="adamw", lr=0.1)])
    assert "goes around other optimizers" in refused([Rule("*", optimizer="LossScaleOptimizer", lr=0.1)])
    assert "cannot import 'nowhere'" in refused([Rule("*", optimizer="nowhere:Thing", lr=0.1)])
    assert "no class 'Thing'" in refused([Rule("*", optimizer="json:Thing", lr=0.1)])


def test_values_that_keras_lets_pass_are_refused_with_rule_and_variable() -> None:
    wrong = refused([Rule("*", optimizer="Adam", lr=-0.1)])
    assert wrong.startswith(
        "group 'base' (rules 1 'base'), variable 'body.kernel': Adam refuses: learning_rate must not"
    )
    assert "beta_2 must lie between 0 and 1, got 1.5" in refused([Rule("*", optimizer="Adam", lr=0.1, beta2=1.5)])
    ending = refused([Rule("*", optimizer="Adam", lr=cosine(0.1, end=-0.1))], total_steps=9)
    assert "learning_rate must not be negative, got -0.1" in ending
    assert "`momentum` must be a float" not in refused([Rule("*", optimizer="SGD", lr=0.1, momentum=2)])


def test_what_is_read_once_cannot_be_scheduled() -> None:
    rule = Rule("*", optimizer="Adagrad", lr=0.1, initial_accumulator_value=cosine(0.1))
    assert "reads initial_accumulator_value once" in refused([rule], total_steps=9)


def test_lengths_are_asked_for_by_the_rule_that_needs_them() -> None:
    assert "rule 1 'base': learning_rate" in refused([Rule("*", optimizer="SGD", lr=cosine(0.1))])
    epochs = [Rule("*", optimizer="SGD", lr=exponential(0.1, 0.9))]
    assert "needs steps_per_epoch: GroupedOptimizer(plan, steps_per_epoch=…)" in refused(epochs, total_steps=9)
    assert "which must have an end: GroupedOptimizer(plan, total_steps=…)" in refused(epochs, steps_per_epoch=3)
    assert "needs total_steps" in refused([SGD, Rule("head", trainable=after("5%"))])
    assert "total_steps must be a positive whole number" in refused([SGD], total_steps=0)
    metric = refused([Rule("*", optimizer="SGD", lr=plateau(0.1))])
    assert "pass keras.callbacks.ReduceLROnPlateau to fit" in metric


def test_a_model_that_has_no_variables_yet_is_refused() -> None:
    unbuilt = keras.Sequential([keras.layers.Dense(3)], name="net")
    assert "model 'net' is not built" in refused([SGD], unbuilt)
    assert "bind takes a keras model" in refused([SGD], [1, 2])


def test_another_model_than_the_bound_one_is_refused() -> None:
    model = functional()
    model.compile(GroupedOptimizer(Plan([SGD])).bind(nested()), "mse")
    with pytest.raises(GroupwiseError, match="which the model that it was bound to does not have"):
        fit(model)


def test_a_model_in_front_of_the_plan_is_told_where_it_belongs() -> None:
    with pytest.raises(GroupwiseError, match=r"the plan comes first.*GroupedOptimizer\(plan, …\)\.bind\(model\)"):
        GroupedOptimizer(functional(), Plan([SGD]))


def test_binding_twice_is_refused() -> None:
    optimizer = GroupedOptimizer(Plan([SGD])).bind(functional())
    with pytest.raises(GroupwiseError, match="has its groups already"):
        optimizer.bind(functional())


def test_without_a_model_rules_see_paths_and_errors_say_so() -> None:
    model = sequential()
    path = model.trainable_variables[0].path.partition("/")[0]
    optimizer = GroupedOptimizer(Plan([SGD, Rule(f"{path}/body/*", lr=scale(0.1)), Rule(role("bias"), lr=scale(0.5))]))
    model.compile(optimizer, "mse")
    fit(model, epochs=1)
    assert len(optimizer.resolution.groups) == 4
    model.compile(GroupedOptimizer(Plan([SGD, Rule(kind("Dense"), lr=scale(0.1))])), "mse")
    with pytest.raises(
        GroupwiseError, match=r"matches no parameter.*paths alone: GroupedOptimizer\(plan, …\)\.bind\(model\)"
    ):
        fit(model, epochs=1)


def test_paths_that_collide_are_refused() -> None:
    def part(name: str) -> Any:
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(4, name="same")(inputs), name=name)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, part("two")(part("one")(inputs)))
    with pytest.raises(GroupwiseError, match=r"several variables have the path same\.bias, same\.kernel"):
        GroupedOptimizer(Plan([SGD])).build(model.trainable_variables)
    names = {info.name for info in GroupedOptimizer(Plan([SGD])).bind(model).resolution.parameters}
    assert names == {f"{part}.same.{leaf}" for part in ("one", "two") for leaf in ("kernel", "bias")}


def test_nothing_is_known_before_a_model_is() -> None:
    with pytest.raises(GroupwiseError, match="has met no model yet"):
        _ = GroupedOptimizer(Plan([SGD])).resolution
    with pytest.raises(GroupwiseError, match="is not built yet"):
        _ = GroupedOptimizer(Plan([SGD])).bind(functional()).hyperparameters


def test_numbers_that_cannot_be_assigned_say_why() -> None:
    model = functional()
    rule = Rule("*", optimizer="SGD", lr=cosine(0.1), momentum=0.0, weight_decay=0.0)
    optimizer = GroupedOptimizer(Plan([rule]), total_steps=4).bind(model)
    optimizer.build(model.trainable_variables)
    group = optimizer.hyperparameters["base"]
    with pytest.raises(GroupwiseError, match=r"the plan schedules it.*assign optimizer\.learning_rate"):
        group["lr"] = 0.5
    with pytest.raises(GroupwiseError, match="momentum=0 was fixed when the optimizer was built"):
        group["momentum"] = 0.5
    with pytest.raises(GroupwiseError, match="unknown hyperparameter 'wd'"):
        group["wd"] = 0.5
    with pytest.raises(GroupwiseError, match="unknown group 'bse'; did you mean 'base'"):
        optimizer.hyperparameters["bse"]["lr"] = 0.5
    with pytest.raises(GroupwiseError, match="weight_decay: must not be negative"):
        group["weight_decay"] = -0.5
    group["weight_decay"] = 0.25
    assert dict(group) == {"learning_rate": pytest.approx(0.1), "weight_decay": 0.25}
    with pytest.raises(GroupwiseError, match="say it in the plan"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])


def test_named_values_follow_the_updates() -> None:
    model = functional()
    optimizer = GroupedOptimizer(Plan([SGD], values={"teacher": function(lambda step: step / 8)}), total_steps=8)
    model.compile(optimizer.bind(model), "mse")
    assert optimizer.values == {"teacher": 0.0}
    fit(model, epochs=1)
    assert optimizer.values == {"teacher": 0.5}


def test_clipping_by_network_stays_within_it() -> None:
    plan = Plan([SGD, Rule("body", label="clip", clip=clip_norm(1.0, per="module"))])
    text = str(GroupedOptimizer(plan).bind(functional()).resolution)
    assert "norm 1 per module (clip)" in text
