"""Depth that a plan states, in Python and in a file."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, layer_decay, unfreeze_down
from groupwise.errors import GroupwiseError
from groupwise.optim import resolve
from groupwise.select import depth, parameters_of

LADDER = [Rule("*", optimizer="SGD", lr=1.0), Rule("*", lr=layer_decay(0.5))]


def net() -> nn.ModuleDict:
    """A model whose names and containers tell nothing of its order."""
    parts = {name: nn.Linear(2, 2) for name in ("after", "before", "last")}
    return nn.ModuleDict({**parts, "middle": nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])})


def rates(plan: Plan, model: Any) -> dict[str, Any]:
    groups = resolve(model, plan).groups
    return {info.name: group.settings["lr"].peak for group in groups for info in group.parameters}


globs = st.sampled_from(["*", "after", "before.*", "last", "middle", "middle.0", "middle.1.*", "*.weight", "*.bias"])


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(globs, st.integers(0, 6), max_size=4))
def test_a_plan_that_states_depth_means_what_parameters_with_that_depth_mean(stated: dict[str, int]) -> None:
    model = net()
    infos = parameters_of(model, depth=stated)
    if len({info.depth for info in infos}) > 1:
        assert rates(Plan(LADDER, depth=stated), model) == rates(Plan(LADDER), infos)


def test_a_file_states_depth_in_a_table_and_the_plan_is_the_same() -> None:
    text = """
[[rule]]
match = "*"
optimizer = "SGD"
lr = 1.0

[[rule]]
match = "*"
lr = { layer_decay = 0.5 }

[depth]
before = 0
"middle.*" = 1
after = 2
last = 3
"last.bias" = 2
"""
    plan = Plan.loads(text)
    assert plan == Plan(LADDER, depth={"before": 0, "middle.*": 1, "after": 2, "last": 3, "last.bias": 2})
    assert Plan.loads(plan.dumps()) == plan == pickle.loads(pickle.dumps(plan)) == plan + []
    assert rates(plan, net()) == {
        "after.weight": 0.5,
        "after.bias": 0.5,
        "before.weight": 0.125,
        "before.bias": 0.125,
        "last.weight": 1.0,
        "last.bias": 0.5,
        "middle.0.weight": 0.25,
        "middle.0.bias": 0.25,
        "middle.1.weight": 0.25,
        "middle.1.bias": 0.25,
    }


def test_selectors_and_gradual_unfreezing_count_the_stated_levels() -> None:
    rules = [LADDER[0], Rule(depth(5), lr=2.0), Rule("middle", trainable=unfreeze_down("2 steps"))]
    resolution = resolve(net(), Plan(rules, depth={"middle.0": 5, "middle.1": 4, "*.bias": 5}))
    assert {i.name for g in resolution.groups for i in g.parameters if g.settings["lr"].peak == 2.0} == {
        "middle.0.weight",
        *(f"{part}.bias" for part in ("after", "before", "last", "middle.0", "middle.1")),
    }
    starts = {i.name: g.freezing for g in resolution.groups for i in g.parameters if i.name.startswith("middle")}
    assert starts["middle.0.weight"] != starts["middle.1.weight"]
    assert starts["middle.0.weight"] == starts["middle.1.bias"]


def test_the_table_and_the_explanation_say_that_depth_is_stated() -> None:
    resolution = resolve(net(), Plan(LADDER, depth={"before": 0, "middle.*": 1}))
    assert "depth as the plan states it, for 6 of 10 parameters: before 0, middle.* 1" in str(resolution)
    assert "depth 1 (as the plan states)" in str(resolution.explain("middle.1.bias"))
    assert "as the plan states" not in str(resolution.explain("last.bias"))
    assert "as the plan states" not in str(resolve(net(), Plan(LADDER)))


def test_a_plan_without_the_table_has_the_models_own_depth_again_after_a_regroup() -> None:
    model = net()
    before = rates(Plan(LADDER), model)
    optimizer = GroupedOptimizer(model, Plan(LADDER, depth={"before": 0, "after": 9}))
    assert {group["lr"] for group in optimizer.param_groups} != set(before.values())
    optimizer.regroup(Plan(LADDER))
    held = {n: group["lr"] for group in optimizer.param_groups for n in group["param_names"]}
    assert held == before


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"before": -1}, "depth of 'before': a level is a whole number from 0"),
        ({"before": 1.5}, "depth of 'before': a level is a whole number from 0"),
        ({"before": True}, "depth of 'before': a level is a whole number from 0"),
        ({"middle": {"0": 1}}, "depth of 'middle' is a table: a glob with dots stands in quotes, \"middle.…\" = 1"),
        ({"": 1}, "depth: a glob is text, not ''"),
        ([("before", 1)], "depth is a table of globs and levels"),
    ],
)
def test_what_is_no_table_of_levels_is_refused(stated: Any, message: str) -> None:
    with pytest.raises(GroupwiseError, match=message):
        Plan(LADDER, depth=stated)


def test_an_entry_that_matches_nothing_is_told_with_the_other_mistakes() -> None:
    rules = [LADDER[0], Rule("lats", lr=0.1)]
    with pytest.raises(
        GroupwiseError, match=r"(?s)depth: befor.* matches no parameter.*before.*rule 2 'lats' matches no"
    ):
        resolve(net(), Plan(rules, depth={"befor": 0}))
