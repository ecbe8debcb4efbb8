"""What can be said at all: the errors of rules and plans, before any model is seen."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import (
    Plan,
    Rule,
    after,
    clip_adaptive,
    clip_norm,
    clip_value,
    exact,
    layer_decay,
    scale,
    steps,
    unfreeze_down,
    until,
)
from groupwise.errors import PlanError, ScheduleError, SelectorError
from groupwise.schedules import cosine
from groupwise.select import role
from tests.plan.models import base

nan, inf = float("nan"), float("inf")

RULES: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing declared": (lambda: Rule("*"), r"rule 'base': it declares nothing: give it an optimizer, .* or clip="),
    "a label that is empty": (lambda: base(label=" "), "label must be text that is not empty, got ' '"),
    "a label that is no text": (lambda: base(label=3), "label must be text that is not empty, got 3"),
    "nan": (lambda: base(lr=nan), "rule 'base': lr must be finite, got nan"),
    "an infinity": (lambda: base(momentum=inf), "momentum must be finite, got inf"),
    "nan inside a tuple": (lambda: base(betas=(0.9, nan)), "betas must be finite, got nan"),
    "an infinity that is exact": (lambda: base(lr=exact(-inf)), "lr must be finite, got -inf"),
    "an integer beyond every float": (lambda: base(lr=10**400), r"lr must be finite, got 1000\d+\.\.\.0+"),
    "a tensor": (lambda: base(lr=torch.tensor(0.1)), "lr must be a number, text, .* schedule or factor, not Tensor"),
    "a length": (
        lambda: base(lr=steps(5)),
        r"lr is a length \(5 steps\); lengths belong inside schedules, as in cosine",
    ),
    "an optimizer that is built": (
        lambda: base(optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)),
        "optimizer must be a class or the name of one, not an instance of SGD",
    ),
    "an optimizer with its path": (
        lambda: base(optimizer="torch.optim.AdamW"),
        "'torch.optim.AdamW' is not a name: write AdamW for torch.optim's own, package.module:Class for others",
    ),
    "trainable as a number": (lambda: base(trainable=1), r"trainable must be True, False, after\(…\), .*, not 1"),
    "clip as a number": (lambda: base(clip=1.0), r"clip must be clip_norm\(…\), .* or False, not 1.0"),
    "clip as true": (lambda: base(clip=True), "clip must be .* or False, not True"),
}
FACTORS: dict[str, tuple[Callable[[], Any], str]] = {
    "a scale below zero": (lambda: scale(-0.1), "scale must not be negative, got -0.1"),
    "a scale that is nan": (lambda: scale(nan), "scale must be a finite number, not nan"),
    "a scale beyond every float": (lambda: scale(10**400), r"scale must be a finite number, not 1000.*\.\.\."),
    "a scale as text": (lambda: scale("0.1"), "scale must be a finite number, not '0.1'"),  # type: ignore[arg-type]
    "a scale as a flag": (lambda: scale(True), "scale must be a finite number, not True"),
    "a layer decay above one": (
        lambda: layer_decay(1.1),
        r"layer_decay must lie in \(0, 1\], not 1.1: it is the factor",
    ),
    "a layer decay of zero": (lambda: layer_decay(0), r"layer_decay must lie in \(0, 1\], not 0"),
    "a layer decay that is nan": (lambda: layer_decay(nan), "layer_decay must be a finite number, not nan"),
    "a factor times a number": (lambda: scale(0.1) * 2, r"a factor multiplies factors only, not 2: .* lr=1e-3 in one"),
    "a number times a factor": (lambda: 1e-3 * scale(0.1), r"factors only, not 0.001: .* lr=scale\(0.1\) in another"),
    "a schedule times a factor": (lambda: cosine(0.1) * layer_decay(0.5), "there is no arithmetic with it"),  # type: ignore[operator]
    "an exact factor": (lambda: exact(scale(0.1)), r"exact takes a value, not scale\(0.1\)"),
    "an exact tuple of factors": (lambda: exact((scale(0.1), 0.9)), r"exact takes a value, not scale\(0.1\)"),
    "exact twice": (lambda: exact(exact(0.1)), r"exact takes a value, not exact\(0.1\)"),
}
CLIPS: dict[str, tuple[Callable[[], Any], str]] = {
    "a norm of zero": (lambda: clip_norm(0), "clip_norm must be positive, got 0; clip=False unsets clipping"),
    "a norm below zero": (lambda: clip_norm(-1.0), "clip_norm must be positive, got -1"),
    "a norm that is nan": (lambda: clip_norm(nan), "clip_norm must be a finite number, not nan"),
    "a value that is infinite": (lambda: clip_value(inf), "clip_value must be a finite number, not inf"),
    "a ratio as text": (lambda: clip_adaptive("1"), "clip_adaptive must be a finite number, not '1'"),  # type: ignore[arg-type]
    "an eps of zero": (lambda: clip_adaptive(0.1, eps=0), "eps of clip_adaptive must be positive, got 0"),
    "a scope that does not exist": (
        lambda: clip_norm(1.0, per="modul"),  # type: ignore[arg-type]
        r"unknown per 'modul'; did you mean 'module'\? \(there is: rule, network, module, parameter\)",
    ),
}
PLANS: dict[str, tuple[Callable[[], Any], str]] = {
    "no rules": (lambda: Plan([]), r'a plan needs at least one rule, such as Rule\("\*", optimizer="AdamW", lr=1e-3\)'),
    "one rule instead of a list": (lambda: Plan(base()), "a plan is made of a list of rules, not Rule"),  # type: ignore[arg-type]
    "a dict among the rules": (lambda: Plan([{"match": "*"}]), r"write Rule\(match, …\) instead of {'match'"),  # type: ignore[list-item]
    "one rule added": (lambda: Plan([base()]) + base(), "a plan is made of a list of rules, not Rule"),  # type: ignore[operator]
    "a clip that is a number": (lambda: Plan([base()], clip=1.0), "clip must be clip_norm.*, not 1.0"),  # type: ignore[arg-type]
    "a value that is no schedule": (
        lambda: Plan([base()], values={"teacher": 0.9}),  # type: ignore[dict-item]
        r"values\['teacher'\] must be a schedule, such as cosine\(0.996, end=1.0\), not 0.9",
    ),
}


@pytest.mark.parametrize(("build", "message"), RULES.values(), ids=RULES)
def test_a_rule_refuses(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        build()


@pytest.mark.parametrize(("build", "message"), (FACTORS | CLIPS).values(), ids=FACTORS | CLIPS)
def test_a_declaration_refuses(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        build()


@pytest.mark.parametrize(("build", "message"), PLANS.values(), ids=PLANS)
def test_a_plan_refuses(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        build()


@pytest.mark.parametrize("moment", [after, until, unfreeze_down])
def test_a_bare_number_is_never_the_length_of_a_freezing(moment: Callable[[Any], object]) -> None:
    with pytest.raises(ScheduleError, match="a bare number is never a length: write steps"):
        moment(5)


def test_a_function_is_no_selector_but_a_where_of_it_is() -> None:
    with pytest.raises(SelectorError, match=r"function is not a selector; write where\(predicate\)"):
        Rule(lambda info: True, lr=0.1)  # type: ignore[arg-type]


def test_a_list_in_a_hyperparameter_is_a_tuple() -> None:
    assert base(betas=[0.9, 0.95]).hyperparameters["betas"] == (0.9, 0.95)
    assert base(betas=exact([0.9, 0.95])).hyperparameters["betas"] == exact((0.9, 0.95))


def test_a_rule_is_named_by_its_selector_unless_it_has_a_label() -> None:
    assert base().label == "base"
    assert Rule("backbone.*", lr=0.1).label == "backbone"
    assert Rule(role("norm") | role("bias"), lr=0.1).label == "role(norm, bias)"
    assert Rule("*", lr=0.1, label="all of it").label == "all of it"


def test_an_optimizer_is_known_by_its_name_whether_a_class_or_text() -> None:
    assert base(optimizer=torch.optim.AdamW) == base()
    assert base(optimizer=type("Own", (torch.optim.SGD,), {})).optimizer == f"{__name__}:Own"


def test_rules_and_plans_are_immutable_values() -> None:
    plan = Plan([base(betas=(0.9, 0.95)), Rule("head.*", lr=scale(0.1) * layer_decay(0.5))], clip=clip_norm(1.0))
    for twin in (deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert twin == plan
        assert hash(twin) == hash(plan)
    with pytest.raises(AttributeError, match="cannot assign to field"):
        plan.rules = ()  # type: ignore[misc]
    with pytest.raises(TypeError, match="does not support item assignment"):
        plan.rules[0].hyperparameters["lr"] = 1.0  # type: ignore[index]


def test_a_plan_grows_by_a_list_of_rules_and_keeps_the_rest() -> None:
    plan = Plan([base()], clip=clip_norm(1.0), values={"teacher": cosine(0.9)}, balance={"method": "Static"})
    more = plan + [Rule("head.*", lr=0.1)]
    assert more.rules == (*plan.rules, Rule("head.*", lr=0.1))
    assert (more.clip, more.values, more.balance) == (plan.clip, plan.values, plan.balance)


def test_the_order_in_which_a_rule_declares_is_no_part_of_it() -> None:
    one, other = Rule("*", lr=0.1, eps=1e-6), Rule("*", eps=1e-6, lr=0.1)
    assert one == other
    assert hash(one) == hash(other)
