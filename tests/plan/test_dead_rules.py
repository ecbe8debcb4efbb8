"""No dead rules: what matches nothing, or is overridden wherever it speaks, is an error until it says `optional`."""

from typing import Any

import pytest
from torch import nn

from groupwise import Rule, after, clip_norm, clip_value, exact, layer_decay, scale, unfreeze_down
from groupwise.errors import ResolutionError
from groupwise.optim import parameters_of
from groupwise.select import depth, kind, magnitude, ndim, network, role, statistic, tag, where
from tests.plan.models import Net, base, optimizer_of, resolved, text, value

NOTHING: dict[str, tuple[Any, str]] = {
    "a misspelt glob": ("bakbone.*", r"rule 2 'bakbone' matches no parameter \(bakbone.\*\); nearest: backbone.\*"),
    "a misspelt path": ("backbone.0.weigth", r"nearest: backbone.0.weight; say optional=True if that is meant"),
    "the wrong case": ("Head.*", r"nearest: head.\*"),
    "all but a part, as a shell says it": ("!head.*", r'all but a part is ~name\("head.\*"\); nearest: head.\*'),
    "a regular expression": (r"backbone\.\d+\.weight", r"a regular expression is regex\(r\"backbone"),
    "a wrapper's prefix": ("module.head.*", r"nearest: head.\*"),
    "a class": (
        kind("Conv2d"),
        r"rule 2 'kind\(Conv2d\)' matches no parameter.*; nearest: Embedding, Linear, LayerNorm;",
    ),
    "a class misspelt": (kind("LayerNrm"), "nearest: LayerNorm;"),
    "a role": (role("conv"), r"nearest: role\(weight\), role\(bias\), role\(norm\), role\(embedding\), role\(matrix\)"),
    "a tag": (tag("no_decay"), "matches no parameter"),
    "a rank": (ndim(4), r"nearest: ndim\(1\), ndim\(2\)"),
    "a depth": (depth(7), r"nearest: depth\(0\), depth\(1\), depth\(2\), depth\(3\)"),
    "a network": (network("generator"), "matches no parameter"),
    "a predicate": (where(lambda info: False), "matches no parameter"),
    "a pair that never meets": (
        kind("Linear") & "norm.*",
        r"nearest: kind\(Linear\) \(alone: 6\), norm.\* \(alone: 2\)",
    ),
    "a negation": (~kind("Module") & ~role("weight") & ~role("bias"), "matches no parameter"),
}
OVERRIDDEN: dict[str, tuple[list[Rule], str]] = {
    "a value": ([Rule("head.*", lr=0.1), Rule("head.*", lr=0.2)], "by rule 3 'head'; move it below, drop it, or say"),
    "by two rules": (
        [Rule("head.*", lr=0.1), Rule("head.weight", lr=0.2), Rule("head.bias", lr=0.3)],
        "by rule 3 'head.weight', rule 4 'head.bias'",
    ),
    "two elements by one tuple": ([Rule("head.*", beta1=0.8), Rule("*", betas=(0.9, 0.99))], "by rule 3 'base'"),
    "a tuple by its elements": ([Rule("*", betas=(0.9, 0.99)), Rule("*", beta1=0.8), Rule("*", beta2=0.7)], "rule 3"),
    "a factor by an exact": ([Rule("head.*", lr=scale(0.1)), Rule("*", lr=exact(0.1))], "by rule 3 'base'"),
    "an optimizer": ([Rule("head.*", optimizer="SGD", lr=0.1), Rule("head.*", optimizer="AdamW")], "by rule 3 'head'"),
    "freezing": ([Rule("head.*", trainable=False), Rule("head.*", trainable=after("5%"))], "by rule 3 'head'"),
    "a clip": ([Rule("head.*", clip=clip_norm(1.0)), Rule("head.*", clip=False)], "by rule 3 'head'"),
    "every declaration of several": (
        [Rule("head.*", lr=0.1, eps=1e-6), Rule("head.*", lr=0.2), Rule("*", eps=1e-7)],
        "by rule 3 'head', rule 4 'base'",
    ),
}  # fmt: skip
ALIVE: dict[str, list[Rule]] = {
    "one parameter is enough": [Rule("head.*", lr=0.1), Rule("head.weight", lr=0.2)],
    "one declaration is enough": [Rule("head.*", lr=0.1, eps=1e-6), Rule("head.*", lr=0.2)],
    "one element is enough": [Rule("head.*", betas=(0.8, 0.9)), Rule("head.*", beta1=0.7)],
    "a factor before a value multiplies it": [Rule("head.*", lr=scale(0.1)), Rule("head.*", lr=0.2)],
    "a factor of one was heard": [Rule("head.*", lr=scale(1.0))],
    "the same value again was heard": [Rule("head.*", lr=1e-3)],
    "a zero that is satisfied was heard": [Rule("head.*", momentum=0)],
    "a clip scope with the same value is another scope": [Rule("head.*", clip=clip_value(1.0))],
}


@pytest.mark.parametrize(("match", "message"), NOTHING.values(), ids=NOTHING)
def test_a_rule_that_matches_nothing_is_an_error_with_the_nearest(match: Any, message: str) -> None:
    with pytest.raises(ResolutionError, match=message):
        resolved(Net(), base(), Rule(match, lr=0.1))
    assert value(resolved(Net(), base(), Rule(match, lr=0.1, optional=True)), "head.weight") == 1e-3


@pytest.mark.parametrize(("rules", "message"), OVERRIDDEN.values(), ids=OVERRIDDEN)
def test_a_rule_that_is_overridden_everywhere_is_an_error_that_names_by_whom(rules: list[Rule], message: str) -> None:
    with pytest.raises(ResolutionError, match=f"rule 2 .* has no effect: everything that it declares is .*{message}"):
        resolved(Net(), base(), *rules)


@pytest.mark.parametrize("rules", ALIVE.values(), ids=ALIVE)
def test_a_rule_that_is_heard_anywhere_lives(rules: list[Rule]) -> None:
    assert resolved(Net(), base(), *rules).explain("head.weight").group


def test_optional_silences_a_rule_that_is_overridden() -> None:
    resolution = resolved(Net(), base(), Rule("head.*", lr=0.1, optional=True), Rule("head.*", lr=0.2))
    assert value(resolution, "head.bias") == 0.2


@pytest.mark.parametrize(
    "match",
    [
        magnitude(above=1e9),
        statistic("grad_norm", above=0.0),
        ~magnitude(below=1e9),
        role("matrix") & magnitude(above=1e9, of="norm"),
        "nothing.*" & statistic("std", above=1e9),
    ],
)
def test_a_rule_on_a_statistic_never_fails(match: Any) -> None:
    assert value(resolved(Net(), base(), Rule(match, lr=0.1)), "head.weight") == 1e-3
    overridden = resolved(Net(), base(), Rule(match | magnitude(above=0.0), lr=0.1), Rule("*", lr=0.2, optional=True))
    assert value(overridden, "head.weight") == 0.2


def test_a_rule_on_a_statistic_that_matches_is_obeyed() -> None:
    model = Net()
    nn.init.constant_(model.head.weight, 100.0)
    resolution = resolved(model, base(), Rule(magnitude(above=50.0), lr=scale(0.1)))
    assert text(resolution, "head.weight") == "1e-3 × 0.1"
    assert text(resolution, "head.bias") == "1e-3"


def test_a_rule_whose_network_is_absent_in_part_lives_by_the_other_part() -> None:
    networks = {"g": nn.Linear(2, 2), "d": nn.Linear(2, 2)}
    resolution = resolved(networks, base(), Rule(network("g", "gan"), optimizer="SGD", lr=0.1))
    assert (optimizer_of(resolution, "g.bias"), optimizer_of(resolution, "d.bias")) == ("SGD", "AdamW")


def test_a_tag_that_is_given_is_found() -> None:
    infos = parameters_of(Net(), tags={"no_decay": {"norm.weight", "norm.bias", "absent"}})
    resolution = resolved(infos, base(weight_decay=0.1), Rule(tag("no_decay"), weight_decay=0.0))
    assert value(resolution, "norm.bias", "weight_decay") == 0.0
    with pytest.raises(ResolutionError, match="nearest: no_decay;"):
        resolved(infos, base(), Rule(tag("nodecay"), lr=0.1))


ONE_LEVEL = {
    "a decay over the head": (Rule("head.*", lr=layer_decay(0.5)), r"'head': layer_decay does nothing, .* depth 3;"),
    "a decay over one block": (Rule("backbone.0", lr=scale(0.1) * layer_decay(0.5)), r"one level, depth 1; match"),
    "a decay of a tuple's element": (Rule("head.*", betas=(layer_decay(0.5), scale(0.1))), "layer_decay does nothing"),
    "a thaw over the head": (Rule("head.*", trainable=unfreeze_down("1 epoch")), "unfreeze_down does nothing"),
}


@pytest.mark.parametrize(("rule", "told"), ONE_LEVEL.values(), ids=ONE_LEVEL)
def test_what_counts_levels_and_meets_only_one_is_dead(rule: Rule, told: str) -> None:
    plan = [base(betas=(0.9, 0.999))]
    with pytest.raises(ResolutionError, match=told):
        resolved(Net(), *plan, rule)
    allowed = Rule(rule.match, trainable=rule.trainable, optional=True, **rule.hyperparameters)
    resolution = resolved(Net(), *plan, allowed)
    assert text(resolution, "head.weight") == "1e-3"


def test_levels_count_in_any_network_and_a_decay_of_one_may_pass_through() -> None:
    networks = {"deep": Net(), "flat": nn.Linear(4, 4)}
    assert text(resolved(networks, base(), Rule("*", lr=layer_decay(0.5))), "flat.weight") == "1e-3"
    assert text(resolved(Net(), base(), Rule("head.*", lr=layer_decay(1.0))), "head.weight") == "1e-3"
