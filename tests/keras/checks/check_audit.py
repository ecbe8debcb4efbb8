"""What an audit finds in a compiled model: each mistake by its name, and nothing in a healthy one."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule, after, scale
from groupwise.keras import GroupedOptimizer, audit, inspect
from groupwise.schedules import linear
from groupwise.select import role
from tests.keras.nets import fit, functional, nested, sequential, subclassed

L = keras.layers


def found(model: Any) -> list[str]:
    return [finding.check for finding in audit(model)]


def normed(seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((4,))
    x = L.BatchNormalization(name="norm")(L.Dense(5, name="body")(x))
    return keras.Model(inputs, L.Dense(1, name="head")(x))


def planned(model: Any, *rules: Rule, **options: Any) -> Any:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1), *rules])
    model.compile(GroupedOptimizer(plan, **options).bind(model), "mse")
    return model


def compiled(model: Any, optimizer: Any) -> Any:
    model.compile(optimizer, "mse")
    return model


def frozen_backbone() -> Any:
    model = normed()
    model.get_layer("body").trainable = False
    model.get_layer("norm").trainable = False
    return compiled(model, keras.optimizers.Adam(0.1))


def without_decay_on_norms() -> Any:
    return planned(normed(), Rule("*", weight_decay=0.1), Rule(role("norm") | role("bias"), weight_decay=0.0))


def excluded() -> Any:
    model = normed()
    optimizer = keras.optimizers.AdamW(0.1)
    held = [variable for variable in model.trainable_variables if variable.name in ("bias", "gamma", "beta")]
    optimizer.exclude_from_weight_decay(var_list=held)
    return compiled(model, optimizer)


def warming_up() -> Any:
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 8, warmup_target=0.1, warmup_steps=4)
    return compiled(normed(), keras.optimizers.SGD(schedule))


def falling(steps: int) -> Any:
    model = compiled(functional(), keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, steps)))
    fit(model)  # eight updates
    return model


def restarting() -> Any:
    schedule = keras.optimizers.schedules.CosineDecayRestarts(0.1, 8, t_mul=1.0)
    model = compiled(functional(), keras.optimizers.Adam(schedule))
    fit(model)
    return model


def plain(form: Callable[[], Any], name: str) -> Any:
    return compiled(form(), getattr(keras.optimizers, name)(0.1))


HEALTHY: dict[str, Callable[[], Any]] = {
    **{
        f"{form.__name__} under {name}": functools.partial(plain, form, name)
        for form in (sequential, functional, nested, subclassed)
        for name in ("SGD", "Adam", "RMSprop")
    },
    "plan": lambda: planned(normed()),
    "plan with a schedule from 0": lambda: planned(functional(), Rule("head", lr=linear(0.0, 0.1)), total_steps=99),
    "plan with a frozen layer": lambda: planned(functional(), Rule("body", trainable=False)),
    "no decay on norms": without_decay_on_norms,
    "exclusions": excluded,
    "frozen backbone": frozen_backbone,
    "warm-up from 0": warming_up,
    "accumulation": lambda: compiled(normed(), keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)),
    "a schedule of Keras that has not ended": functools.partial(falling, 99),
    "a schedule of Keras at the end of a cycle": restarting,
    "scaled losses": lambda: compiled(normed(), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_in_a_healthy_model_before_and_after_a_fit(name: str) -> None:
    model = HEALTHY[name]()
    assert audit(model) == []
    if name != "scaled losses" or keras.backend.backend() != "jax":
        fit(model, epochs=1)
    assert audit(model) == []


def everything_frozen() -> Any:
    model = functional()
    model.trainable = False
    return compiled(model, keras.optimizers.SGD(0.1))


def unfrozen_late() -> Any:
    model = functional()
    model.get_layer("body").trainable = False
    compiled(model, keras.optimizers.SGD(0.1)).optimizer.build(model.trainable_variables)
    model.get_layer("body").trainable = True
    return model


def frozen_late() -> Any:
    model = compiled(functional(), keras.optimizers.SGD(0.1))
    fit(model, epochs=1)
    model.get_layer("body").trainable = False
    return model


def of_another_model() -> Any:
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(functional().trainable_variables)
    return compiled(functional(), optimizer)


def variable_wise() -> Any:
    model = normed()
    for variable in model.get_layer("norm").trainable_variables:
        variable.trainable = False
    return compiled(model, keras.optimizers.SGD(0.1))


def misspelt_exclusion() -> Any:
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["layer_norm"])
    model = functional()
    for layer in model.layers:
        layer.use_bias = False
    return compiled(model, optimizer)


def spent() -> Any:
    model = planned(functional(), Rule("head", lr=linear(0.1, 0.0)), total_steps=4)
    fit(model, epochs=2)
    return model


MISTAKEN: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "all is frozen": (everything_frozen, ["nothing-trains"]),
    "a plan that freezes all": (lambda: planned(functional(), Rule("*", trainable=False)), ["nothing-trains"]),
    "unfrozen after the build": (unfrozen_late, ["unowned"]),
    "frozen after the compiled step": (frozen_late, ["frozen-owned"]),
    "another model's optimizer": (of_another_model, ["foreign-optimizer"]),
    "a norm that is frozen variable by variable": (variable_wise, ["averaging-frozen"]),
    "norms under decay": (lambda: compiled(normed(), keras.optimizers.AdamW(0.1)), ["decayed-norm"]),
    "norms under a plan's decay": (lambda: planned(normed(), Rule("*", weight_decay=0.1)), ["decayed-norm"]),
    "a rate of zero": (lambda: compiled(normed(), keras.optimizers.SGD(0.0)), ["zero-lr"]),
    "a plan's rate of zero": (lambda: planned(functional(), Rule("head", lr=scale(0.0))), ["zero-lr"]),
    "names that match nothing": (misspelt_exclusion, ["idle-exclusion", "decayed-norm"]),
    "a schedule that has ended": (spent, ["spent-schedule"]),
    "a schedule of Keras that has ended": (functools.partial(falling, 8), ["spent-schedule"]),
    "a schedule of Keras that ended before": (functools.partial(falling, 5), ["spent-schedule"]),
}


@pytest.mark.filterwarnings("ignore:the run went on past its end")
@pytest.mark.filterwarnings("ignore:frozen by the plan, and still averaging")
@pytest.mark.parametrize("name", MISTAKEN)
def test_a_mistake_is_found_by_its_name(name: str) -> None:
    build, expected = MISTAKEN[name]
    findings = audit(build())
    assert [finding.check for finding in findings] == expected
    assert all(finding.message and finding.remedy for finding in findings)


def test_a_norm_that_the_plan_freezes_is_found() -> None:
    with pytest.warns(UserWarning, match="frozen by the plan, and still averaging what they see: norm"):
        model = planned(normed(), Rule("norm", trainable=False))
    assert found(model) == ["averaging-frozen"]


def test_a_pattern_of_a_multi_optimizer_that_matches_nothing_is_found() -> None:
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    table = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {"bdoy/.*": keras.optimizers.Adam(0.1)})
    model = compiled(functional(), keras.optimizers.MultiOptimizer(table))
    assert found(model) == ["idle-pattern"]
    table = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {"body/.*": keras.optimizers.Adam(0.1)})
    assert found(compiled(functional(), keras.optimizers.MultiOptimizer(table))) == []


def test_an_inspection_says_what_trains_and_at_which_rates() -> None:
    model = planned(functional(), Rule("body", trainable=False), Rule("head", lr=0.6, weight_decay=0.25))
    model.optimizer.learning_rate = 0.5
    fit(model, epochs=1)
    first, _, *rest = str(inspect(model)).splitlines()
    assert first.startswith("note decayed-norm: weight decay 0.25 pulls norms and biases towards 0: head.bias")
    assert rest[0] == "2 of 4 variables train (6 of 31 parameters); frozen: body.kernel, body.bias"
    assert rest[1] == "head (SGD): 2 variables at lr 0.3, weight decay 0.25"
    assert rest[2] == "1 note; 9 checks ran"
    assert np.isclose(model.optimizer.rates["head"], 0.3)


def test_an_inspection_says_when_a_part_trains_and_the_decay_that_was_assigned() -> None:
    model = planned(functional(), Rule("body", weight_decay=0.5, trainable=after("2 steps")), total_steps=8)
    assert "body (SGD): 2 variables at lr 0.1, weight decay 0.5, after 2 steps" in str(inspect(model)).splitlines()
    fit(model, epochs=1)
    model.optimizer.hyperparameters["body"]["weight_decay"] = 0.25
    told = str(inspect(model)).splitlines()
    assert "body (SGD): 2 variables at lr 0.1, weight decay 0.25, after 2 steps" in told
    assert "base (SGD): 2 variables at lr 0.1, no weight decay" in told


def test_what_cannot_be_audited_says_why() -> None:
    with pytest.raises(GroupwiseError, match="compiled keras model, not a Dense"):
        audit(L.Dense(1))
    with pytest.raises(GroupwiseError, match="is not built"):
        audit(compiled(keras.Sequential([L.Dense(1)]), "sgd"))
    with pytest.raises(GroupwiseError, match="is not compiled"):
        audit(functional())


PROGRAM = """
import keras
def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="head")])
    model.compile(keras.optimizers.AdamW(0.001, name="adamw"), "mse")
    return model
"""


def test_the_command_audits_a_compiled_model(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("torch")
    (tmp_path / "program.py").write_text(PROGRAM)
    start = "from groupwise.cli import main; main()"
    command = [sys.executable, "-c", start, "audit", "program:build", "--format", "json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = json.loads(ended.stdout)
    assert [finding["check"] for finding in told["findings"]] == ["decayed-norm"]
    assert told["facts"][1] == "adamw (AdamW): 2 variables at lr 1e-3, weight decay 4e-3"
