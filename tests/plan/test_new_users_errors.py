"""What a first attempt gets wrong is answered in the words of the attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import (
    Balancer,
    GroupedOptimizer,
    Plan,
    PlanScheduler,
    Rule,
    clip_norm,
    exact,
    layer_decay,
    percent,
    scale,
    steps,
)
from groupwise.balance import UPGrad
from groupwise.errors import GroupwiseError, GroupwiseWarning, ResolutionError, StateError
from groupwise.optim import resolve
from groupwise.schedules import constant, cosine, function

HEAD = nn.Linear(4, 2)
RULE = Rule("*", optimizer="SGD", lr=cosine(0.1))


def optimizer() -> GroupedOptimizer:
    return GroupedOptimizer(HEAD, Plan([RULE]))


@pytest.mark.parametrize(
    ("attempt", "answer"),
    [
        (lambda: Rule(HEAD, lr=1e-3), r"Linear is not a selector; .* dotted path: \"head\""),  # type: ignore[arg-type]
        (lambda: Rule(HEAD.weight, lr=1e-3), r"Parameter is not a selector; .* as in \"head.weight\""),  # type: ignore[arg-type]
        (lambda: Rule(HEAD.parameters(), lr=1e-3), r"generator is not a selector; .* dotted paths, as in \"head\""),  # type: ignore[arg-type]
        (lambda: Rule("*", lr=lambda step: 0.1), r"lr must be .* not function; over time .* or function\(call\)"),  # type: ignore[arg-type,return-value]
        (lambda: Rule("*", lr=torch.optim.lr_scheduler.StepLR), r"not type; over time .* groupwise.schedules: cosine"),  # type: ignore[arg-type]
        (lambda: cosine(1e-3) * 0.1, r"cosine\(1e-3\) is a value over time and no number.*lr=scale\(0.1\)"),  # type: ignore[operator]
        (lambda: 0.1 * constant(1e-3), "is a value over time"),  # type: ignore[operator]
        (lambda: cosine(1e-3) + cosine(1e-4), "is a value over time"),  # type: ignore[operator]
        (lambda: 2 / cosine(1e-3), "is a value over time"),  # type: ignore[operator]
        (lambda: -cosine(1e-3), "is a value over time"),
        (lambda: cosine(1e-3)(3), r"cosine\(1e-3\) is a value and no function: .* it is cosine\(1e-3\).at\(3, total_"),
        (lambda: function(cosine(1e-3)), r"cosine\(0.001\) is not a function of the step"),
        (lambda: steps(3) + steps(2), "no arithmetic with lengths"),  # type: ignore[operator]
        (lambda: percent(5) * 2, r"no arithmetic with lengths \('5%'\)"),  # type: ignore[operator]
        (lambda: steps(3) < steps(2), "no arithmetic with lengths"),  # type: ignore[operator]
        (
            lambda: scale(0.1) / 2,
            r"a factor only multiplies, and factors only: write scale\(0.1\) \* scale\(…\), not 2",
        ),  # type: ignore[operator]
        (lambda: 1 / layer_decay(0.5), "a factor only multiplies"),  # type: ignore[operator]
        (lambda: scale(0.1) + scale(0.1), "a factor only multiplies"),  # type: ignore[operator]
        (lambda: -scale(0.1), r"a factor is not negative: -scale\(0.1\)"),
        (lambda: exact(0.1) * 2, r"exact\(0.1\) is a declaration and no number"),  # type: ignore[operator]
        (
            lambda: Rule("*", "AdamW"),
            r"Rule does not take 'AdamW' without a name: .*Rule\(\"\*\", optimizer=\"AdamW\"\)",
        ),  # type: ignore[misc]
        (lambda: Rule(lr=1e-3), "Rule: missing a required argument: 'match'"),  # type: ignore[call-arg]
        (lambda: Rule("*", lr=1e-3, optional="yes"), "optional is True or False, not 'yes'"),  # type: ignore[arg-type]
        (lambda: Plan(RULE, RULE), "a plan is made of a list of rules, not Rule: Plan"),  # type: ignore[arg-type]
        (lambda: Plan([RULE], clip_norm=1.0), r"Plan has no argument clip_norm=: say clip=clip_norm\(…\)"),  # type: ignore[call-arg]
        (lambda: Plan(rule=[RULE]), r"Plan has no argument rule=: did you mean rules=\?"),  # type: ignore[call-arg]
        (lambda: Plan([RULE], values=3), "values is a mapping, not 3"),  # type: ignore[arg-type]
        (lambda: Plan([RULE], balance=[]), r"balance is a mapping, not \[\]; .* Balancer\(PCGrad"),  # type: ignore[arg-type]
        (
            lambda: GroupedOptimizer(HEAD, lr=1e-3),
            "GroupedOptimizer has no argument lr=: hyperparameters are declared by",
        ),  # type: ignore[call-arg]
        (lambda: GroupedOptimizer(HEAD), "GroupedOptimizer: missing a required argument: 'plan'"),  # type: ignore[call-arg]
        (lambda: PlanScheduler(optimizer(), T_max=9), r"PlanScheduler has no argument T_max=: say total_steps="),  # type: ignore[call-arg]
        (lambda: PlanScheduler(optimizer(), total_step=9), r"no argument total_step=: did you mean total_steps=\?"),  # type: ignore[call-arg]
        (lambda: PlanScheduler(optimizer(), last_epoch=9), "no argument last_epoch=: load its state"),  # type: ignore[call-arg]
        (
            lambda: PlanScheduler(optimizer(), total_steps=9).step(metrics=1.0),
            r"step has no argument metrics=: a metric goes to observe\(metric\)",
        ),  # type: ignore[call-arg]
        (PlanScheduler, "PlanScheduler: missing a required argument: 'optimizer'"),  # type: ignore[call-arg]
        (lambda: clip_norm(1.0, norm_type=1.0), "clip_norm has no argument norm_type=: it is the 2-norm"),  # type: ignore[call-arg]
        (lambda: clip_norm(max_nrm=1.0), r"clip_norm has no argument max_nrm=: did you mean max_norm=\?"),  # type: ignore[call-arg]
        (
            lambda: Balancer(UPGrad()).backward({}, retain_graph=True),
            "backward has no argument retain_graph=: it frees the graph",
        ),  # type: ignore[call-arg]
        (lambda: Balancer({"a": 1.0}), r"no balancing method: fixed weights are Static\(\{'a': 1.0\}\)"),  # type: ignore[arg-type]
    ],
)
def test_a_first_attempt_is_told_what_was_meant(attempt: Callable[[], Any], answer: str) -> None:
    with pytest.raises(GroupwiseError, match=answer):
        attempt()


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ({"momentum": 0.9}, "Adam has no hyperparameter 'momentum': its momentum is beta1="),
        ({"optimizer": "SGD", "betas": (0.9, 0.99)}, "SGD has no hyperparameter 'betas': its momentum is momentum="),
        ({"betas": cosine(0.9)}, "betas takes a tuple of 2 values, got cosine.*; the first alone is beta1="),
    ],
)
def test_a_momentum_by_its_name_in_another_algorithm_is_told_its_own(written: dict[str, Any], answer: str) -> None:
    with pytest.raises(GroupwiseError, match=answer):
        resolve(HEAD, Plan([Rule("*", **{"optimizer": "Adam", "lr": 1e-3, **written})]))


@pytest.mark.parametrize("name", ["Lion", "SOAP", "AdamW8bit", "Prodigy"])
def test_an_optimizer_of_another_package_is_not_taken_for_a_typing_mistake(name: str) -> None:
    with pytest.raises(GroupwiseError, match=f"torch.optim has no {name}; one of another package") as said:
        resolve(nn.Linear(2, 2), Plan([Rule("*", optimizer=name, lr=1e-3)]))
    assert "did you mean" not in str(said.value)


def test_every_unknown_optimizer_and_every_rule_that_matches_nothing_is_told() -> None:
    plan = Plan([
        Rule("*", optimizer="AdmW", lr=1e-3), Rule("haed", lr=scale(0.1)), Rule("weight", optimizer="SDG", lr=0.1),
    ])  # fmt: skip
    with pytest.raises(ResolutionError, match=r"3 mistakes:(.|\n)*'AdmW'(.|\n)*'SDG'(.|\n)*'haed' matches no"):
        resolve(nn.Linear(2, 2), plan)


def test_a_path_is_no_checkpoint() -> None:
    optimizer = GroupedOptimizer(nn.Linear(2, 2), Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    with pytest.raises(StateError, match=r"a state_dict is a mapping, not str: load a file first"):
        optimizer.load_state_dict("checkpoint.pt")  # type: ignore[arg-type]


def test_a_type_error_from_within_stays_what_it_is() -> None:
    def broken(_: Any) -> float:
        raise TypeError("from within")

    with pytest.raises(TypeError, match="from within"):
        GroupedOptimizer(HEAD, Plan([RULE, Rule("bias", lr=scale(broken))]))


def test_a_warning_of_a_constructor_points_at_the_line_that_calls_it() -> None:
    with pytest.warns(GroupwiseWarning, match="warmup") as said:
        PlanScheduler(GroupedOptimizer(HEAD, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, warmup="9 steps"))])), 3)
    assert {warning.filename for warning in said} == {__file__}
