"""Hyperparameters belong to who names them, and no default steps in silently where somebody had said something."""

from typing import Any

import pytest
from torch.optim import SGD

from groupwise import Rule, exact, scale
from groupwise.errors import ResolutionError
from groupwise.schedules import cosine, steps
from groupwise.select import role
from tests.plan.models import Net, base, optimizer_of, resolved, text, value

HEAD = "head.weight"


class Demanding(SGD):
    """An algorithm with an argument that has no default."""

    def __init__(self, params: Any, strength: float, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            group["strength"] = strength


def head(**declared: Any) -> Rule:
    return Rule("head.*", **declared)


def test_what_a_rule_with_an_optimizer_declares_speaks_for_that_optimizer_alone() -> None:
    resolution = resolved(Net(), base(eps=1e-6, beta1=0.8), head(optimizer="SGD", lr=0.1, momentum=0.9))
    assert value(resolution, HEAD, "momentum") == 0.9
    assert value(resolution, "norm.weight", "betas") == (0.8, 0.999)
    assert "eps" not in resolution.algorithms["SGD"].defaults


def test_what_would_be_lost_is_the_last_word() -> None:
    earlier = Rule("*", optimizer="AdamW", weight_decay=0.3, optional=True)
    with pytest.raises(ResolutionError, match=r"silently lose weight_decay=0\.2: rule 3 .* declares it for AdamW"):
        resolved(Net(), base(), earlier, Rule("*", optimizer="AdamW", weight_decay=0.2), head(optimizer="SGD", lr=0.1))
    off = Rule("*", optimizer="AdamW", weight_decay=0.0)  # as SGD has it anyway
    assert text(resolved(Net(), base(), earlier, off, head(optimizer="SGD", lr=0.1)), HEAD) == "0.1"


def test_what_a_rule_without_an_optimizer_declares_speaks_for_whatever_stands() -> None:
    resolution = resolved(Net(), base(), head(optimizer="SGD", lr=0.1), Rule("*", weight_decay=0.3))
    assert value(resolution, HEAD, "weight_decay") == value(resolution, "norm.weight", "weight_decay") == 0.3


def test_a_rule_without_an_optimizer_speaks_for_one_that_is_named_later_too() -> None:
    resolution = resolved(Net(), Rule("*", lr=0.2, weight_decay=0.3), base(lr=0.1), head(optimizer="SGD"))
    assert value(resolution, HEAD) == 0.2
    assert value(resolution, "norm.weight") == 0.1
    assert value(resolution, HEAD, "weight_decay") == 0.3


def test_naming_the_standing_algorithm_again_drops_nothing() -> None:
    resolution = resolved(Net(), base(weight_decay=0.3, eps=1e-6), head(optimizer="AdamW", lr=0.1))
    assert value(resolution, HEAD, "weight_decay") == 0.3
    assert value(resolution, HEAD, "eps") == 1e-6


def test_a_change_of_algorithm_and_back_drops_nothing_either() -> None:
    there = head(optimizer="SGD", lr=0.5, weight_decay=0.4, optional=True)
    resolution = resolved(Net(), base(weight_decay=0.3), there, head(optimizer="AdamW"))
    assert (value(resolution, HEAD), value(resolution, HEAD, "weight_decay")) == (1e-3, 0.3)


def test_a_factor_belongs_to_who_names_it_as_well() -> None:
    resolution = resolved(Net(), base(), Rule("*", optimizer="AdamW", lr=scale(0.5)), head(optimizer="SGD", lr=0.1))
    assert value(resolution, HEAD) == 0.1
    assert value(resolution, "norm.weight") == 5e-4


@pytest.mark.parametrize("declared", [{}, {"lr": scale(0.1)}, {"weight_decay": 0.1}])
def test_a_learning_rate_is_never_a_default(declared: dict[str, Any]) -> None:
    message = (
        "'embed.weight' has no declared lr: rule 1 'base' gives it to AdamW, whose default lr is 0.001, "
        "and a learning rate is never a silent default; declare lr= there"
    )
    with pytest.raises(ResolutionError, match=message):
        resolved(Net(), Rule("*", optimizer="AdamW", **declared))


def test_the_lr_of_another_algorithm_is_no_declaration_for_this_one() -> None:
    with pytest.raises(
        ResolutionError, match=r"'head.weight' would silently lose lr=0.01: .*default lr=0.001 would take"
    ):
        resolved(Net(), base(lr=0.01), head(optimizer="SGD"))
    equal_to_the_default = (
        r"'head.weight' has no declared lr: rule 2 'head' gives it to SGD.*\(rule 1 'base' declares one"
    )
    with pytest.raises(ResolutionError, match=equal_to_the_default + r" for AdamW alone\)"):
        resolved(Net(), base(lr=1e-3), head(optimizer="SGD"))


DROPPED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a number": ({"weight_decay": 0.05}, "SGD", r"weight_decay=0.05: .*SGD, whose default weight_decay=0 would take"),
    "an exact number": ({"weight_decay": exact(0.05)}, "SGD", r"weight_decay=exact\(0.05\).*default weight_decay=0 "),
    "a schedule": ({"weight_decay": cosine(0.1)}, "SGD", r"weight_decay=cosine\(0.1\): .*default weight_decay=0 "),
    "a schedule at the default": ({"eps": cosine(1e-8)}, "Adam", r"eps=cosine\(1e-8\): .*default eps=1e-08 "),
    "a flag": ({"maximize": True}, "SGD", "maximize=True: .*default maximize=False "),
    "a tuple": ({"betas": (0.8, 0.95)}, "Adam", r"betas\[0\]=0.8: .*default betas\[0\]=0.9 would take"),
    "one element of a tuple": ({"betas": (0.9, 0.95)}, "Adam", r"betas\[1\]=0.95: .*default betas\[1\]=0.999 "),
    "an element by its own name": ({"beta2": 0.95}, "Adam", r"betas\[1\]=0.95: .*default betas\[1\]=0.999 "),
    "a number where a tuple is": ({"eps": 1e-6}, "Adafactor", r"eps\[0\]=1e-6: .*changes the algorithm to Adafactor"),
}


@pytest.mark.parametrize(("declared", "other", "message"), DROPPED.values(), ids=DROPPED)
def test_a_value_that_a_change_of_algorithm_drops_is_an_error_that_names_both_rules_and_the_default(
    declared: dict[str, Any], other: str, message: str
) -> None:
    way_out = "; declare .*in rule 2, or in a rule that names no optimizer"
    with pytest.raises(ResolutionError, match=f"'head.weight' would silently lose {message}.*{way_out}"):
        resolved(Net(), base(**declared), head(optimizer=other, lr=0.1))


@pytest.mark.parametrize(
    "declared",
    [
        {"weight_decay": 0.0},
        {"weight_decay": exact(0)},
        {"maximize": False},
        {"weight_decay": scale(0.5)},
        {"betas": (0.8, 0.95)},
        {"foreach": True},
        {"capturable": True},
        {"fused": True},
        {"foreach": False, "amsgrad": True},
    ],
)
def test_a_dropped_value_is_fine_where_it_is_the_new_default_or_a_factor_or_nothing_of_the_new_ones_or_a_kernel(
    declared: dict[str, Any],
) -> None:
    resolution = resolved(Net(), Rule("*", optimizer="AdamW", lr=1e-3, **declared), head(optimizer="SGD", lr=0.1))
    assert optimizer_of(resolution, HEAD) == "SGD"
    assert value(resolution, HEAD, "weight_decay") == 0


def test_only_the_last_of_several_dropped_values_would_have_stood() -> None:
    zero = Rule("head.*", optimizer="AdamW", weight_decay=0.0, optional=True)
    resolution = resolved(Net(), base(weight_decay=0.3), zero, head(optimizer="SGD", lr=0.1))
    assert value(resolution, HEAD, "weight_decay") == 0
    with pytest.raises(
        ResolutionError, match=r"would silently lose weight_decay=0.3: rule 2 'head' declares it for AdamW"
    ):
        resolved(
            Net(),
            base(weight_decay=0.0),
            Rule("head.*", optimizer="AdamW", weight_decay=0.3),
            head(optimizer="SGD", lr=0.1),
        )


@pytest.mark.parametrize("more", [{"weight_decay": 0.2}, {"weight_decay": 0.0}])
def test_a_value_declared_for_the_new_algorithm_settles_it(more: dict[str, Any]) -> None:
    resolution = resolved(Net(), base(weight_decay=0.3), head(optimizer="SGD", lr=0.1, **more))
    assert value(resolution, HEAD, "weight_decay") == more["weight_decay"]


def test_a_value_declared_by_a_rule_without_an_optimizer_settles_it_from_anywhere() -> None:
    first = resolved(
        Net(), Rule("*", weight_decay=0.2, optional=True), base(weight_decay=0.3), head(optimizer="SGD", lr=0.1)
    )
    assert value(first, HEAD, "weight_decay") == 0.2
    last = resolved(Net(), base(weight_decay=0.3), head(optimizer="SGD", lr=0.1), Rule(role("head"), weight_decay=0.1))
    assert value(last, HEAD, "weight_decay") == 0.1


@pytest.mark.parametrize("zero", [0, 0.0, False, exact(0.0)])
@pytest.mark.parametrize("name", ["weight_decay", "momentum", "dampening", "nesterov", "lr_decay"])
def test_a_zero_is_satisfied_by_an_algorithm_that_has_no_such_argument(name: str, zero: object) -> None:
    resolution = resolved(
        Net(sparse=True), base(), Rule("embed", optimizer="SparseAdam", lr=0.01), Rule("embed", **{name: zero})
    )
    told = next(one for one in resolution.explain("embed.weight").properties if one.property == name)
    assert [word.status for _, word in told.outcomes] == ["SparseAdam has none: satisfied"]
    assert told.value == "none (SparseAdam)"


def test_a_zero_is_satisfied_if_any_algorithm_of_the_plan_knows_it_by_that_name() -> None:
    plan = [base(), head(optimizer="SGD", lr=0.1), Rule(role("head"), beta1=0, eps=0.0, amsgrad=False)]
    assert optimizer_of(resolved(Net(), *plan), HEAD) == "SGD"


def test_a_zero_that_has_the_last_word_overrides_what_the_algorithm_does_not_have() -> None:
    rules = base(), Rule("*", weight_decay=0.3, label="decay"), Rule("embed", optimizer="SparseAdam", lr=0.01)
    told = next(
        told
        for told in resolved(Net(sparse=True), *rules, Rule("embed", weight_decay=0.0))
        .explain("embed.weight")
        .properties
        if told.property == "weight_decay"
    )
    assert [word.status for _, word in told.outcomes] == ["overridden", "SparseAdam has none: satisfied"]


def test_what_is_not_zero_is_not_satisfied() -> None:
    with pytest.raises(ValueError, match=r"unknown hyperparameter of SparseAdam 'weight_decay'"):
        resolved(
            Net(sparse=True), base(), Rule("embed", optimizer="SparseAdam", lr=0.01), Rule("embed", weight_decay=0.1)
        )


def test_a_required_argument_that_no_rule_declares_is_named() -> None:
    with pytest.raises(ResolutionError, match=r"'head.weight': .*Demanding requires strength, which no rule declares"):
        resolved(Net(), base(), head(optimizer=Demanding, lr=0.1))
    assert value(resolved(Net(), base(), head(optimizer=Demanding, lr=0.1, strength=0.5)), HEAD, "strength") == 0.5


def test_a_factor_on_an_undeclared_hyperparameter_multiplies_the_class_default() -> None:
    resolution = resolved(Net(), base(), head(weight_decay=scale(0.5), beta1=scale(0.5)))
    assert text(resolution, HEAD, "weight_decay") == "0.01 × 0.5"
    assert value(resolution, HEAD, "betas") == (0.45, 0.999)
    with pytest.raises(ResolutionError, match=r"Demanding requires strength, which no rule declares"):
        resolved(Net(), base(), head(optimizer=Demanding, lr=0.1, strength=scale(0.5)))


def test_elements_of_a_tuple_are_declared_one_by_one() -> None:
    resolution = resolved(
        Net(), base(betas=(0.8, 0.9)), head(beta2=cosine(0.99, end=0.9, over=steps(4))), Rule("norm.*", beta1=0.7)
    )
    assert text(resolution, HEAD, "betas") == "(0.8, cosine(0.99, end=0.9, over=4 steps))"
    assert value(resolution, HEAD, "betas", step=4) == (0.8, 0.9)
    assert value(resolution, "norm.weight", "betas") == (0.7, 0.9)
