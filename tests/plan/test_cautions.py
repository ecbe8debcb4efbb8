"""A plan whose rules by role leave the bulk of the weights to the base rule says so; others stay silent."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, GroupwiseWarning, Plan, Rule, clip_norm, clip_value, scale
from groupwise.optim import resolve
from groupwise.plan import Clip
from groupwise.select import role

BASE = Rule("*", label="base", optimizer="AdamW", lr=3e-4, weight_decay=0.0)
MUON: dict[str, Any] = {"optimizer": "Muon", "lr": 0.02, "momentum": 0.95, "weight_decay": 0.1, "eps": 1e-7}


class Mixture(nn.Module):
    """A language model of one block: attention, and experts that hold nearly all of it."""

    def __init__(self, experts: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, 8)
        self.attention = nn.Linear(8, 8)
        self.experts = nn.Module()
        self.experts.up_proj = nn.Parameter(torch.zeros(experts, 16, 8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 500)


def cautions(model: nn.Module, *rules: Rule) -> tuple[str, ...]:
    return resolve(model, Plan([BASE, *rules])).cautions


def test_it_names_the_rules_the_share_the_parameters_and_the_role_that_takes_them_in() -> None:
    (said,) = cautions(Mixture(), Rule(role("matrix"), label="muon", **MUON))
    share = 8 * 16 * 8 / (8 * 16 * 8 + 8 * 8)
    assert said.startswith(f"rule 2 'muon' is by role, and leaves {share:.1%} of the entries")
    assert "to rule 1 'base': experts.up_proj; role(\"stack\") takes in experts.up_proj" in said


def test_it_stands_under_the_table_and_is_warned_of_once_at_the_build() -> None:
    plan = Plan([BASE, Rule(role("matrix"), **MUON)])
    (said,) = resolve(Mixture(), plan).cautions
    assert str(resolve(Mixture(), plan)).endswith(said)
    with pytest.warns(GroupwiseWarning, match="is by role, and leaves") as told:
        optimizer = GroupedOptimizer(Mixture(), plan)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.regroup()


@pytest.mark.parametrize(
    "more",
    [
        [Rule("experts", optimizer="AdamW", lr=1e-4, weight_decay=0.0)],
        [Rule(role("expert"), optimizer="AdamW")],
        [Rule(role("stack"), optimizer="SGD", lr=1e-4)],
    ],
)
def test_a_rule_of_their_own_silences_it(more: list[Rule]) -> None:
    assert cautions(Mixture(), Rule(role("matrix"), **MUON), *more) == ()


@pytest.mark.parametrize(
    "rules",
    [
        [Rule(role("norm", "bias"), lr=scale(2.0))],
        [Rule(role("head"), lr=scale(10))],
        [Rule(role("weight") & role("head"), lr=scale(10))],
        [Rule(role("weight") & role("head", "norm") | "attention.bias", lr=scale(10))],
        [Rule(role("embedding"), weight_decay=0.1), Rule("attention", lr=scale(2))],
        [Rule(~role("matrix"), lr=scale(2))],
        [Rule("experts", lr=scale(2))],
        [Rule(role("matrix") | role("stack"), lr=scale(2))],
    ],
)
def test_plans_that_mean_what_they_say_are_silent(rules: list[Rule]) -> None:
    assert cautions(Mixture(), *rules) == ()


def test_tables_heads_and_what_is_frozen_are_left_by_intent() -> None:
    assert cautions(Mixture(experts=0), Rule(role("matrix"), **MUON)) == ()
    frozen = Mixture()
    frozen.experts.requires_grad_(False)
    assert cautions(frozen, Rule(role("matrix"), **MUON)) == ()


def test_a_net_of_kernels_under_a_rule_for_matrices_is_told() -> None:
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(32, 8), nn.Linear(8, 2))
    (said,) = cautions(net, Rule(role("matrix"), **MUON))
    assert 'role("conv") takes in 0.weight' in said


def test_a_table_that_is_taken_out_of_an_algorithm_without_a_rate_is_noted_with_the_rate_that_stands() -> None:
    net = nn.ModuleDict({"table": nn.Linear(8, 8), "body": nn.Linear(8, 8), "head": nn.Linear(8, 2)})
    muon = Rule("*.weight", **{name: value for name, value in MUON.items() if name != "eps"})
    out = Rule("table", label="out", optimizer="AdamW", weight_decay=0.0)
    resolution = resolve(net, Plan([BASE, muon, out]))
    assert resolution.readings == (
        "rule 3 'out' takes table.weight out of Muon and declares no rate: 3e-4 stands, as rule 1 'base' declares",
    )
    assert resolution.cautions == ()
    own = Rule("table", optimizer="AdamW", lr=1e-3, weight_decay=0.0)
    assert resolve(net, Plan([BASE, muon, own])).readings == ()


@pytest.mark.parametrize("clip", [clip_norm(0.2), clip_value(0.1)])
@pytest.mark.parametrize("more", [[], [Rule("head", clip=clip_norm(0.1))]])
def test_a_clip_that_is_unset_where_only_the_plans_own_clips_is_told(clip: Clip, more: list[Rule]) -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    rules = [Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.0), *more, Rule("body", clip=False)]
    (sentence,) = resolve(model, Plan(rules, clip=clip)).cautions
    assert sentence.startswith(
        f"rule {len(rules)} 'body' says clip=False for body.weight, body.bias, which no rule clips"
    )
    with pytest.warns(GroupwiseWarning, match="clips it all the same"):
        GroupedOptimizer(model, Plan(rules, clip=clip))


@pytest.mark.parametrize(
    ("rules", "clip"),
    [
        ([Rule("*", clip=clip_norm(1.0)), Rule("body", clip=False)], clip_norm(5.0)),
        ([Rule("body", clip=False)], None),
        ([], clip_norm(5.0)),
    ],
)
def test_a_clip_that_is_unset_where_a_rule_clips_says_nothing(rules: list[Rule], clip: Clip | None) -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    base = Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.0)
    assert resolve(model, Plan([base, *rules], clip=clip)).cautions == ()
