"""Groups are named by rules that change something in all of their members."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from torch import nn

from groupwise import Plan, Rule, clip_norm, exact, layer_decay, scale
from groupwise.optim import resolve
from groupwise.schedules import cosine
from tests.plan.models import base
from tests.plan.samplers import cases
from tests.plan.test_cascade import Case, resolved, thorough


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))


def model() -> nn.Module:
    return nn.ModuleDict({"encoder": Stack(), "head": nn.Linear(8, 2)})


def named(*rules: Rule) -> dict[str, int]:
    return {group.name: len(group.parameters) for group in resolve(model(), Plan(list(rules))).groups}


def test_the_top_of_a_ladder_keeps_the_name_of_its_rule() -> None:
    ladder = Rule("encoder", lr=layer_decay(0.5))
    assert named(base(), ladder, Rule("head", label="new head", lr=scale(10))) == {
        "encoder/depth3": 2, "encoder/depth2": 2, "encoder/depth1": 2, "encoder/depth0": 1, "new head": 2,
    }  # fmt: skip


NOTHING: Sequence[Rule] = (
    Rule("head", lr=1e-3),
    Rule("head", lr=scale(1.0)),
    Rule("head", lr=scale(1.0) * layer_decay(1.0)),
    Rule("head", optimizer="AdamW", lr=1e-3),
    Rule("head", weight_decay=0.0, lr=1e-3),
)


@pytest.mark.parametrize("rule", NOTHING, ids=str)
def test_a_rule_that_changes_nothing_names_no_group_and_is_noted(rule: Rule) -> None:
    plan = Plan([base(weight_decay=0.0), rule])
    resolution = resolve(model(), plan)
    assert [group.name for group in resolution.groups] == ["base"]
    assert resolution.notes == ("rule 2 'head' changes nothing: its values are those that stand without it",)
    assert str(resolution).endswith(resolution.notes[0])


CHANGES: Sequence[Rule] = (
    Rule("head", lr=2e-3),
    Rule("head", lr=cosine(1e-3)),
    Rule("head", clip=clip_norm(1.0)),
    Rule("head", trainable=True),
    Rule("head", betas=(0.9, 0.98)),
)


@pytest.mark.parametrize("rule", CHANGES, ids=str)
def test_a_rule_that_changes_something_is_not_noted(rule: Rule) -> None:
    plan = Plan([base(weight_decay=0.0, clip=clip_norm(1.0)), rule])
    assert resolve(model(), plan).notes == ()


def test_exact_changes_something_even_with_the_value_that_stood() -> None:
    plan = Plan(
        [
            base(),
            Rule("head", lr=scale(0.1), optional=True),
            Rule("head", lr=exact(1e-3), label="pinned", optional=True),
        ]
    )
    assert "pinned" not in " ".join(resolve(model(), plan).notes)


def test_rules_that_come_to_the_same_values_for_parts_of_a_group_name_it_together() -> None:
    rules = (Rule("encoder", lr=1e-2, label="encoder"), Rule("head.weight", lr=1e-2, label="decoder"))
    assert named(base(), *rules) == {"base": 1, "decoder + encoder": 8}


@thorough
@given(cases(tame=True))
def test_a_label_in_a_name_is_of_a_rule_that_matches_every_member_or_is_joined_by_a_plus(case: Case) -> None:
    resolution, _, _ = resolved(case)
    for group in resolution.groups:
        kinds = [resolution.resolved[info.name] for info in group.parameters]
        everywhere = frozenset.intersection(*(kind.declaring for kind in kinds))
        shared = {case.plan.rules[i].label for i in everywhere} | {"frozen"}
        if " + " not in group.name:
            assert group.name.startswith((*shared, "depth")), case.shown


def test_a_decay_that_an_exact_value_overrides_names_no_level() -> None:
    decay = Rule("encoder", lr=layer_decay(0.5))
    names = named(base(), decay, Rule("encoder.layers.1.*", label="fixed", lr=exact(1e-2)))
    assert names == {"base": 4, "fixed": 2, "encoder/depth1": 2, "encoder/depth0": 1}
