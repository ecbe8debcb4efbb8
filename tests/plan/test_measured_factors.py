"""Factors of measurement as values: what they take, how they read, and what the ways out of a plan make of them."""

import pickle
from typing import Any

import pytest
from torch import nn

from groupwise import Parts, Plan, Rule, gradient_share, layer_decay, scale, trust_ratio, update_ratio
from groupwise.errors import PlanError, ResolutionError
from groupwise.optim import resolve
from groupwise.plan import Factor, differences, standings
from groupwise.schedules import cosine

BASE = Rule("*", label="base", optimizer="SGD", lr=0.1)
FORMS: list[tuple[Factor, str, str]] = [
    (trust_ratio(), "trust_ratio(1)", "{ trust_ratio = 1.0 }"),
    (
        trust_ratio(0.001, of="gradient"),
        "trust_ratio(1e-3, of='gradient')",
        '{ trust_ratio = { coefficient = 0.001, of = "gradient" } }',
    ),
    (trust_ratio(high=10), "trust_ratio(1, high=10)", "{ trust_ratio = { coefficient = 1.0, high = 10.0 } }"),
    (update_ratio(), "update_ratio(1e-3)", "{ update_ratio = 0.001 }"),
    (
        update_ratio(1e-3, low=0.5, high=2),
        "update_ratio(1e-3, low=0.5, high=2)",
        "{ update_ratio = { target = 0.001, low = 0.5, high = 2.0 } }",
    ),
    (
        gradient_share(per="network"),
        "gradient_share(-1, per='network')",
        '{ gradient_share = { power = -1.0, per = "network" } }',
    ),
    (scale(0.5) * trust_ratio(), "scale(0.5) * trust_ratio(1)", "{ scale = 0.5, trust_ratio = 1.0 }"),
]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize(("factor", "text", "file"), FORMS, ids=[text for _, text, _ in FORMS])
def test_a_factor_has_one_text_and_one_form_in_a_file(factor: Factor, text: str, file: str) -> None:
    plan = Plan([BASE, Rule("0", lr=scale(factor))])
    assert str(factor) == text
    assert f"lr = {file}" in plan.dumps()
    assert Plan.loads(plan.dumps()) == plan
    assert pickle.loads(pickle.dumps(factor)) == factor


@pytest.mark.parametrize("table", ["{ gradient_share = {} }", "{ gradient_share = -1 }", "{ gradient_share = '-1' }"])
def test_a_table_of_defaults_and_a_number_as_text_are_read(table: str) -> None:
    text = f'[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = 0.1\n[[rule]]\nmatch = "*"\nlr = {table}'
    assert Plan.loads(text).rules[1].declarations["lr"] == gradient_share()


REFUSED: list[tuple[Any, str]] = [
    (lambda: trust_ratio(0), "coefficient is above 0, not 0"),
    (lambda: trust_ratio(of="weights"), "unknown choice for trust_ratio's of 'weights'|of.*weights"),
    (lambda: trust_ratio(per="module"), "per.*module"),
    (lambda: trust_ratio(low=2, high=1), "0 <= low < high, not low=2 and high=1"),
    (lambda: trust_ratio(low=-1), "0 <= low < high"),
    (lambda: update_ratio(0.0), "target is above 0"),
    (lambda: update_ratio(speed=0), "speed is above 0 and at most 1, not 0"),
    (lambda: update_ratio(low=2, high=3), "0 < low <= 1 <= high, not low=2 and high=3"),
    (lambda: update_ratio(low=1, high=1), "0 < low <= 1 <= high"),
    (lambda: gradient_share(0), "power is not 0, at which every factor is 1"),
    (lambda: gradient_share(smoothing=1), "at least 0 and below 1, not 1"),
    (lambda: gradient_share(per="layer"), "per.*layer"),
    (lambda: update_ratio("1e-3"), "must be a finite number"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED)
def test_what_cannot_be_meant_is_refused(make: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        make()


def test_an_argument_in_a_file_that_there_is_not_is_refused_with_the_nearest() -> None:
    text = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = { update_ratio = { targt = 1e-3 } }'
    with pytest.raises(PlanError, match=r"targt.*target"):
        Plan.loads(text)


def test_a_rate_is_written_without_the_factor_and_shown_with_it() -> None:
    plan = Plan(
        [Rule("*", optimizer="SGD", lr=cosine(0.1)), Rule("0", lr=layer_decay(0.5) * trust_ratio(), optional=True)]
    )
    resolution = resolve(net(), plan)
    (own,) = (group for group in resolution.groups if group.settings["lr"].measured)
    assert own.settings["lr"].at(0, 10) == 0.1
    assert "cosine(0.1) × trust_ratio(1)" in str(resolution)
    assert "lr = cosine(0.1) × trust_ratio(1)" in str(resolution.explain("0.weight"))


def test_a_way_out_that_cannot_say_it_refuses() -> None:
    plan = Plan([BASE, Rule("0", lr=trust_ratio())])
    with pytest.raises(
        ResolutionError, match=r"group '0' is multiplied by trust_ratio\(1\), which is measured in each"
    ):
        resolve(net(), plan).torch_groups()


def test_a_difference_of_plans_tells_of_it() -> None:
    one, two, three = (
        standings(resolve(net(), Plan([BASE, *rules])))
        for rules in ([], [Rule("0", lr=trust_ratio())], [Rule("0", lr=trust_ratio(0.5))])
    )
    (found,) = (d for d in differences(one, two))
    assert [str(change) for change in found.changes] == ["lr: 0.1 → 0.1 × trust_ratio(1)"]
    assert set(found.parameters) == {"0.weight", "0.bias"}
    assert [str(d.changes[0]) for d in differences(two, three)] == ["lr: 0.1 × trust_ratio(1) → 0.1 × trust_ratio(0.5)"]
    assert not differences(two, two)


def test_a_place_inside_it_is_replaced() -> None:
    plan = Plan([BASE, Rule("0", label="own", lr=update_ratio(1e-3, speed=0.1))])
    assert plan.replace("own", {"lr.update_ratio.target": 2e-3}).rules[1].declarations["lr"] == update_ratio(
        2e-3, speed=0.1
    )
    assert plan.replace("own", lr=trust_ratio()).rules[1].declarations["lr"] == trust_ratio()


def test_parts_of_one_parameter_follow_the_same_measurements() -> None:
    parts = [Parts("0.weight", axis=0, into=["a", "b"])]
    with pytest.raises(ResolutionError, match="which is no constant factor"):
        resolve(net(), Plan([BASE, Rule("*@a", lr=trust_ratio())], parts=parts))
    resolve(net(), Plan([BASE, Rule("*", lr=trust_ratio()), Rule("*@a", lr=scale(0.5))], parts=parts))
