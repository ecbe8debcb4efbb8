"""`plan.replace(label, …)`: one rule with other values, the rest as it is."""

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groupwise import (
    GroupedOptimizer,
    GroupwiseWarning,
    Plan,
    PlanScheduler,
    Rule,
    after,
    clip_norm,
    clip_value,
    exact,
    layer_decay,
    scale,
)  # fmt: skip
from groupwise.errors import PlanError
from groupwise.schedules import constant, cosine, linear
from groupwise.select import role, where
from tests.plan.test_round_trip import plans, slow

PLAN = Plan(
    [
        Rule(
            "*", label="base", optimizer="AdamW", lr=cosine(1e-3, warmup="5%"), betas=(0.9, 0.98), clip=clip_norm(1.0)
        ),
        Rule("backbone", lr=scale(0.1) * layer_decay(0.75)),
        Rule("head", lr=1e-2, optional=True),
    ],
    clip=clip_norm(5.0),
    values={"teacher": cosine(0.99)},
    balance={"method": "FAMO"},
)


def declared(plan: Plan, label: str, field: str) -> Any:
    (rule,) = (rule for rule in plan.rules if rule.label == label)
    return rule.declarations[field]


def test_a_field_is_replaced_and_everything_else_stays() -> None:
    other = PLAN.replace("head", lr=3e-2)
    assert declared(other, "head", "lr") == 3e-2
    assert (other.rules[:2], other.clip, other.values, other.balance) == (
        PLAN.rules[:2], PLAN.clip, PLAN.values, PLAN.balance,
    )  # fmt: skip
    assert declared(PLAN, "head", "lr") == 1e-2
    assert other.rules[2].optional


@pytest.mark.parametrize(
    ("label", "address", "value", "field", "expected"),
    [
        ("base", "lr.cosine", 3e-4, "lr", cosine(3e-4, warmup="5%")),
        ("base", "lr.warmup", "500 steps", "lr", cosine(1e-3, warmup="500 steps")),
        ("base", "lr.end", 1e-5, "lr", cosine(1e-3, end=1e-5, warmup="5%")),
        ("base", "betas.1", 0.95, "betas", (0.9, 0.95)),
        ("base", "betas.0", linear(0.85, end=0.95), "betas", (linear(0.85, end=0.95), 0.98)),
        ("base", "clip.norm", 0.5, "clip", clip_norm(0.5)),
        ("base", "clip.per", "network", "clip", clip_norm(1.0, per="network")),
        ("backbone", "lr.scale", 0.3, "lr", scale(0.3) * layer_decay(0.75)),
        ("backbone", "lr.layer_decay", 0.65, "lr", scale(0.1) * layer_decay(0.65)),
    ],
)
def test_a_place_inside_a_field_is_addressed_as_a_file_writes_it(
    label: str, address: str, value: object, field: str, expected: object
) -> None:
    assert declared(PLAN.replace(label, {address: value}), label, field) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip", clip_value(0.5)),
        ("trainable", after("1 epoch")),
        ("optimizer", "SGD"),
        ("weight_decay", 0.1),
        ("lr", exact(1e-5)),
        ("lr", constant(1e-4)),
    ],
)
def test_every_field_of_a_rule_can_be_replaced_or_added(field: str, value: object) -> None:
    assert declared(PLAN.replace("base", {field: value}), "base", field) == value


def test_a_match_is_replaced_and_the_label_stays() -> None:
    rule = PLAN.replace("head", match=["head", "neck"]).rules[2]
    assert (str(rule.match), rule.label) == ("head | neck", "head")


def test_several_changes_are_made_at_once() -> None:
    other = PLAN.replace("base", {"lr.cosine": 3e-4, "betas.1": 0.95}, weight_decay=0.2)
    assert (declared(other, "base", "lr").peak, declared(other, "base", "betas")) == (3e-4, (0.9, 0.95))
    assert declared(other, "base", "weight_decay") == 0.2


def test_a_rule_that_only_python_can_say_is_replaced_too() -> None:
    plan = Plan([Rule(where(lambda info: True), label="own", optimizer=torch.optim.SGD, lr=scale(lambda info: 1.0))])
    rule = plan.replace("own", lr=0.1).rules[0]
    assert (rule.match, rule.algorithm_class) == (plan.rules[0].match, torch.optim.SGD)


@slow
@given(plans, st.data())
def test_replacing_a_value_by_itself_gives_the_same_plan(plan: Plan, data: st.DataObject) -> None:
    labels = [rule.label for rule in plan.rules]
    once = [rule for rule in plan.rules if labels.count(rule.label) == 1]
    if once:
        rule = data.draw(st.sampled_from(once))
        assert plan.replace(rule.label, dict(rule.hyperparameters), trainable=rule.trainable) == plan


def test_a_replaced_plan_is_a_plan_like_any_other() -> None:
    other = PLAN.replace("base", {"lr.cosine": 3e-4})
    assert pickle.loads(pickle.dumps(other)) == other == Plan.loads(other.dumps())


def test_a_number_in_the_place_of_a_schedule_is_said() -> None:
    with pytest.warns(GroupwiseWarning, match=r"replaced by 0\.1, a constant: .*\{\"lr\.cosine\": 0\.1\} replaces"):
        assert declared(PLAN.replace("base", lr=0.1), "base", "lr") == 0.1


@pytest.mark.parametrize(
    ("label", "changes", "message"),
    [
        ("haed", {"lr": 1.0}, "unknown rule 'haed'; did you mean 'head'"),
        ("head", {}, "nothing to replace"),
        ("head", {"lr": float("nan")}, "rule 'head': .*lr must be finite"),
        ("head", {"momentum.0": 0.9}, "unknown declaration 'momentum'"),
        ("head", {"lr.cosine": 0.1}, "leads nowhere: what stands there is 0.01"),
        ("base", {"lr.cosin": 0.1}, r"rule 'base': lr\.cosin: .*unknown key 'cosin'"),
        ("base", {"lr.cosine": "fast"}, r"lr\.cosine: .*'fast' is not a number"),
        ("base", {"lr.warmup": 500}, "a bare number is never a length"),
        ("base", {"betas.2": 0.9}, "unknown place '2'"),
        ("base", {"clip.norm": -1.0}, "must be positive"),
        ("base", {"clip.value": 1.0}, "it names one of norm, value, adaptive"),
        ("base", {"lr.end.x": 1.0}, "unknown key 'end'"),
        ("base", {"label": ""}, "label must be text"),
        ("base", {"two words": 1.0}, "is not the name of a hyperparameter"),
    ],
)
def test_what_cannot_be_replaced_is_refused(label: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PLAN.replace(label, changes)


def test_a_label_that_two_rules_have_addresses_none() -> None:
    plan = Plan([Rule("*", label="a", optimizer="SGD", lr=1.0), Rule("*", label="a", momentum=0.9)])
    with pytest.raises(PlanError, match=r"2 rules are labelled 'a' \(1, 2\)"):
        plan.replace("a", lr=0.1)


def loss_after(plan: Plan, updates: int = 20) -> float:
    """What a linear regression has lost after some updates."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    inputs = torch.randn(32, 3)
    targets = inputs.sum(1, keepdim=True)
    optimizer = GroupedOptimizer(model, plan)
    scheduler = PlanScheduler(optimizer, total_steps=updates)
    for _ in range(updates):
        optimizer.zero_grad()
        (model(inputs) - targets).square().mean().backward()
        optimizer.step()
        scheduler.step()
    return (model(inputs) - targets).square().mean().item()


SWEPT = Plan(
    [
        Rule("*", label="base", optimizer="AdamW", lr=cosine(1e-4, warmup="10%"), weight_decay=0.01),
        Rule(role("bias"), label="biases", lr=scale(1.0), weight_decay=0.0),
    ]
)


def test_optuna_sweeps_over_a_plan() -> None:
    import optuna

    def objective(trial: optuna.Trial) -> float:
        peak = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        ratio = trial.suggest_float("bias ratio", 0.5, 4.0)
        return loss_after(SWEPT.replace("base", {"lr.cosine": peak}).replace("biases", {"lr.scale": ratio}))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=8)
    assert study.best_value < loss_after(SWEPT) / 2
    assert study.best_params["lr"] > 1e-3
