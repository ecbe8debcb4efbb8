"""Parts of a parameter: what rules meet in its place, how they are named, and what is refused."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import Parts, Plan, Rule, clip_norm, exact, fan_out, layer_decay, scale
from groupwise.errors import GroupwiseError, PlanError
from groupwise.optim import resolve
from groupwise.plan import Resolution, differences, standings
from groupwise.schedules import cosine, linear
from groupwise.select import magnitude, ndim, role, shape, statistic
from tests.plan.models import Net

BASE = Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.1)
QKV = Parts("*qkv.weight", into=["q", "k", "v"])


class Attention(nn.Module):
    """A fused projection, its output, and three experts of a gated layer in one tensor."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.experts = nn.Module()
        self.experts.gate_up_proj = nn.Parameter(nn.Linear(width, 3 * 8).weight.detach().reshape(3, 8, width))
        self.conv = nn.Conv2d(width, 6, 3)


def model() -> nn.Module:
    return nn.ModuleDict({"blocks": nn.ModuleList([Attention(), Attention()]), "head": nn.Linear(4, 2)})


def resolved(*rules: Rule, parts: Any = (QKV,), base: Rule = BASE) -> Resolution:
    return resolve(model(), Plan([base, *rules], parts=list(parts)))


def rates(resolution: Resolution, name: str = "lr") -> dict[str, Any]:
    """The value of every part, and of what has none."""
    found = {}
    for group in resolution.groups:
        for info in group.parameters:
            found[info.name] = group.settings[name].peak
        for own in group.parts.values():
            found |= {part.info.name: part.settings.settings[name].peak for part in own}
    return found


@st.composite
def splits(draw: st.DrawFn) -> tuple[tuple[int, ...], Parts]:
    """A shape, and parts that it has."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    names = [f"p{i}" for i in range(len(sizes))]
    stack = draw(st.booleans())
    rank = draw(st.integers(3 if stack else 1, 4))
    axis = draw(st.integers(rank - 2 if stack else 0, rank - 1))
    whole = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    whole[axis] = sum(sizes)
    flatten = 0 if stack or rank < 3 else draw(st.integers(0, rank - 1))
    given_axis = axis - draw(st.sampled_from([0, rank]))
    return tuple(whole), Parts("*", axis=given_axis, into=names, sizes=sizes, stack=stack, flatten=flatten)


@given(splits())
def test_the_parts_of_a_parameter_are_all_of_it_and_nothing_twice(case: tuple[tuple[int, ...], Parts]) -> None:
    whole, parts = case
    own = parts.of(whole)
    assert [part.name for part in own] == list(parts.into)
    assert sum(math.prod(part.shape) * part.count for part in own) == math.prod(whole)
    assert own[0].start == 0
    assert own[-1].stop == whole[own[0].axis]
    assert all(a.stop == b.start for a, b in itertools.pairwise(own))


def test_the_name_of_a_parameter_matches_all_of_its_parts_and_that_of_a_part_one() -> None:
    found = rates(resolved(Rule("blocks.0.qkv.weight", lr=scale(0.5)), Rule("blocks.1.*@k", lr=scale(0.1))))
    assert {found[f"blocks.0.qkv.weight@{name}"] for name in "qkv"} == {5e-4}
    assert [found[f"blocks.1.qkv.weight@{name}"] for name in "qkv"] == [1e-3, 1e-4, 1e-3]
    assert found["blocks.1.out.weight"] == 1e-3


def test_a_glob_behind_a_dot_and_a_module_match_parts_as_they_match_the_whole() -> None:
    for match in ("blocks.0", "blocks.0.*", "*0*qkv.weight", "blocks.0.qkv"):
        found = rates(resolved(Rule(match, lr=scale(0.5))))
        assert {found[f"blocks.0.qkv.weight@{name}"] for name in "qkv"} == {5e-4}, match


def test_selectors_of_facts_see_the_part() -> None:
    found = resolved(Rule(shape((4, 4)), lr=scale(0.5)))
    assert rates(found)["blocks.0.qkv.weight@q"] == 5e-4
    stacked = Parts("*gate_up_proj", axis=1, into=["gate", "up"], stack=True)
    flat = Parts("*conv.weight", flatten=1)
    found = resolved(Rule(ndim(2) & role("matrix"), label="matrices", lr=scale(0.5)), parts=[stacked, flat])
    assert rates(found)["blocks.0.experts.gate_up_proj@up"] == 5e-4
    assert rates(found)["blocks.0.conv.weight"] == 5e-4
    assert rates(found)["blocks.0.conv.bias"] == 1e-3


def test_a_statistic_of_a_part_is_that_of_its_slice() -> None:
    net = model()
    weight = net["blocks"][0].qkv.weight  # type: ignore[index]
    weight.data[4:8] = 100.0
    plan = Plan([BASE, Rule(statistic("max_abs", above=99.0), lr=scale(0.5))], parts=[QKV])
    found = rates(resolve(net, plan))
    assert [found[f"blocks.0.qkv.weight@{name}"] for name in "qkv"] == [1e-3, 5e-4, 1e-3]
    assert rates(resolve(net, Plan([BASE, Rule(magnitude(below=1.0), lr=scale(0.5))], parts=[QKV])))[
        "blocks.0.qkv.weight@k"
    ] == pytest.approx(1e-3)


def test_the_group_is_one_and_has_the_values_that_most_parts_share() -> None:
    plain, parted = resolve(model(), Plan([BASE])), resolved(Rule("*@q", lr=scale(0.5)))
    assert [group.name for group in parted.groups] == [group.name for group in plain.groups]
    assert [i.name for g in parted.groups for i in g.parameters] == [i.name for g in plain.groups for i in g.parameters]
    assert parted.groups[0].settings == plain.groups[0].settings


def test_a_stack_is_one_row_of_the_table_with_its_count() -> None:
    text = str(resolved(parts=[Parts("*gate_up_proj", stack=True)]))
    assert "stacks of 3" in text
    assert text.count("stacks of") == 1


def test_the_table_shows_what_a_part_is_multiplied_by() -> None:
    text = str(resolved(Rule("*@q", lr=scale(0.5))))
    row = next(line for line in text.splitlines() if line.startswith("  @q"))
    assert "1e-3 × 0.5" in row


def test_explain_tells_of_a_part_and_of_the_whole() -> None:
    found = resolved(Rule("*@q", label="slow", lr=scale(0.5)))
    assert "scale(0.5)  [factor]" in str(found.explain("blocks.0.qkv.weight@q"))
    assert "slow" not in str(found.explain("blocks.0.qkv.weight@k"))
    assert "lr × 0.5 of the group's" in str(found.explain("blocks.0.qkv.weight"))
    with pytest.raises(GroupwiseError, match=r"did you mean 'blocks\.0\.qkv\.weight@v'"):
        found.explain("blocks.0.qkv.weight@vv")


def test_a_difference_of_two_plans_tells_of_parts() -> None:
    before, after = resolve(model(), Plan([BASE])), resolved(Rule("*@q", lr=scale(0.5)))
    (found,) = differences(standings(before), standings(after))
    assert found.parameters == ("blocks.0.qkv.weight", "blocks.1.qkv.weight")
    assert {change.property for change in found.changes} == {"parts", "lr of @q"}
    assert not differences(standings(after), standings(after))


def test_plain_groups_of_torch_cannot_say_parts() -> None:
    with pytest.raises(GroupwiseError, match=r"'blocks.0.qkv.weight' is taken apart by the plan, which no group dict"):
        resolved().torch_groups()


def test_a_plan_with_parts_is_a_value() -> None:
    plan = Plan([BASE], parts=[QKV, Parts(role("stack"), stack=True, optional=True)])
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert hash(plan) == hash(Plan([BASE], parts=[QKV, Parts(role("stack"), stack=True, optional=True)]))
    assert plan != Plan([BASE])
    assert (plan + [Rule("*", lr=1.0)]).parts == plan.replace("base", lr=1.0).parts == plan.parts
    assert "qkv" in repr(plan)


def test_the_file_of_a_plan_says_parts_in_tables() -> None:
    text = """
[[parts]]
match = "*qkv.weight"
axis = 0
into = ["q", "k", "v"]

[[rule]]
match = "*"
optimizer = "AdamW"
lr = 0.001
weight_decay = 0.1

[[rule]]
match = "*@q"
lr = { scale = 0.5 }
"""
    assert Plan.loads(text) == Plan([BASE, Rule("*@q", lr=scale(0.5))], parts=[QKV])


constants = st.floats(1e-4, 1.0)


@settings(deadline=None, max_examples=30)
@given(st.lists(constants, min_size=3, max_size=3), st.lists(constants, min_size=3, max_size=3))
def test_rates_and_decays_of_parts_are_factors_of_the_groups(lrs: list[float], decays: list[float]) -> None:
    rules = [Rule(f"*@{name}", lr=lr, weight_decay=decay) for name, lr, decay in zip("qkv", lrs, decays, strict=True)]
    found = resolved(*rules)
    group = next(group for group in found.groups if group.parts)
    for own in group.parts.values():
        for part, lr, decay in zip(own, lrs, decays, strict=True):
            for name, value in (("lr", lr), ("weight_decay", decay)):
                whole = group.settings[name].peak
                factor = part.factors.get(name)
                assert (whole if factor is None else factor.of(whole)) == value
                half = whole * 0.5  # type: ignore[operator]
                assert (half if factor is None else factor.of(half)) == pytest.approx(value * 0.5)


def test_a_factor_on_a_schedule_multiplies_every_value() -> None:
    base = Rule("*", optimizer="AdamW", lr=cosine(1e-3, warmup="5%"))
    found = resolved(Rule("*@q", lr=scale(0.25)), Rule("*", lr=layer_decay(0.5)), base=base)
    for group in (group for group in found.groups if group.parts):
        for own in group.parts.values():
            assert own[0].factors["lr"].of(8.0) == 2.0
            assert not own[1].factors


def test_a_factor_of_shape_is_of_the_part() -> None:
    uneven = Parts("*qkv.weight", into=["q", "k", "v"], sizes=[8, 2, 2])
    found = rates(resolved(Rule("*qkv.weight", lr=scale(fan_out(4, power=-1))), parts=[uneven]))
    assert [found[f"blocks.0.qkv.weight@{name}"] for name in "qkv"] == [5e-4, 2e-3, 2e-3]


def test_a_part_that_is_at_rest_is_a_factor_of_zero() -> None:
    found = resolved(Rule("*@q", lr=0.0))
    assert rates(found)["blocks.0.qkv.weight@q"] == 0.0
    with pytest.raises(GroupwiseError, match="lr is 0 for one of its parts and weight_decay for another"):
        resolved(Rule(["*@k", "*@v"], lr=0.0), Rule("*@q", weight_decay=0.0))


REFUSED: dict[str, tuple[list[Rule], list[Parts], str]] = {
    "sizes that do not add up": (
        [],
        [Parts("*qkv.weight", into=["q", "k"], sizes=[4, 4])],
        r"4 \+ 4 make 8",
    ),
    "a size that does not divide": ([], [Parts("head.weight", into=["a", "b", "c"])], "does not divide into 3 equal"),
    "an axis out of range": ([], [Parts("*qkv.weight", axis=2, into=["q", "k"])], "axis 2 is out of range"),
    "another rank": ([], [Parts("*qkv.weight", stack=True)], "has at least three dimensions, and its shape is"),
    "a bias among kernels": ([], [Parts(role("conv"), flatten=1)], r"leave it out of the match, as with ndim\(4\)"),
    "a split along a stack": ([], [Parts("*gate_up_proj", into=["a", "b", "c"], stack=True)], "runs along the stack"),
    "no columns": ([], [Parts("*conv.weight", flatten=4)], "it is at most 3"),
    "overlap": ([], [QKV, Parts("*.0.*.weight", into=["a", "b"])], "parts do not overlap"),
    "dead parts": ([], [Parts("*qvk.weight", into=["q", "k"])], r"matches no parameter; nearest: .*qkv.weight"),
    "a part that is none": ([Rule("*qkv.weight@z", lr=0.1)], [QKV], r"matches no parameter .*nearest: .*qkv.weight@"),
    "a part of a plan without": ([Rule("*@q", lr=0.1)], [], "the plan splits no parameter, and a name with an @"),
    "two algorithms": (
        [Rule("*@q", label="own", optimizer="SGD", lr=0.1, weight_decay=0.1)],
        [QKV],
        r"@q has optimizer=SGD \(rule 2 'own'\) and @k has optimizer=AdamW \(rule 1 'base'\), but parts of one",
    ),
    "another hyperparameter": ([Rule("*@k", eps=1e-3)], [QKV], "@k has eps=1e-3 .*share all but lr and weight_decay"),
    "an element of a tuple": ([Rule("*@k", beta2=0.9)], [QKV], "@k has betas="),
    "freezing": ([Rule("*@k", trainable=False)], [QKV], "@k has trainable="),
    "clipping": ([Rule("*@k", clip=clip_norm(1.0))], [QKV], "@k has clip="),
    "another schedule": (
        [Rule("*@k", lr=linear(1.0, end=0.1))],
        [QKV],
        r"lr is .* for @k and .* which is no constant factor: declare one schedule for the whole, and lr=scale",
    ),
}


@pytest.mark.parametrize(("rules", "parts", "message"), REFUSED.values(), ids=REFUSED)
def test_what_parts_cannot_be_is_refused(rules: list[Rule], parts: list[Parts], message: str) -> None:
    with pytest.raises(GroupwiseError, match=message):
        resolved(*rules, parts=parts)


def test_a_trainable_part_without_an_optimizer_is_named() -> None:
    plan = Plan([Rule("*@q", optimizer="AdamW", lr=0.1), Rule("head", optimizer="AdamW", lr=0.1)], parts=[QKV])
    with pytest.raises(GroupwiseError, match=r"no optimizer: .*blocks.0.qkv.weight@k"):
        resolve(model(), plan)


def test_optional_parts_may_match_nothing() -> None:
    assert resolved(parts=[Parts("*nothing", stack=True, optional=True)]).groups[0].parts == {}


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, r"nothing is taken apart: say into="),
    "an axis of no split": ({"stack": True, "axis": 1}, "axis and sizes belong to a split"),
    "sizes of no split": ({"flatten": 1, "sizes": [1]}, "axis and sizes belong to a split"),
    "one size too many": ({"into": ["q", "k"], "sizes": [1, 2, 3]}, "3 sizes for 2 parts"),
    "one part": ({"into": ["q"]}, "a split has two parts at least, not 'q' alone"),
    "a part twice": ({"into": ["q", "k", "q"]}, "two parts are called 'q'"),
    "a name with an at": ({"into": ["q@", "k"]}, "is not the name of a part: write it as one word"),
    "text for names": ({"into": "qkv"}, "into is a list of names"),
    "a size of nothing": ({"into": ["q", "k"], "sizes": [0, 1]}, "the size of a part is a whole number from 1"),
    "sizes that are no list": ({"into": ["q", "k"], "sizes": 3}, "sizes is a list"),
    "an axis that is no number": ({"into": ["q", "k"], "axis": "rows"}, "axis is a whole number"),
    "both readings": ({"stack": True, "flatten": 1}, "say stack or flatten"),
    "a stack by number": ({"stack": 1}, "stack is True or False"),
    "flatten by a bool": ({"flatten": True}, "flatten is a whole number from 0"),
    "a word of torch": ({"into": ["q", "k"], "dim": 0}, "say axis="),
}


@pytest.mark.parametrize(("options", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_parts_that_cannot_be_meant_are_refused_where_they_are_written(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Parts("*", **options)


def test_what_is_no_list_of_parts_is_refused() -> None:
    with pytest.raises(PlanError, match=r"parts is a list: parts=\[Parts"):
        Plan([BASE], parts=QKV)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="parts are Parts"):
        Plan([BASE], parts=["q"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[parts]\ninto = ['q', 'k']", r"write \[\[parts\]\], in double brackets"),
        ("[[parts]]\ninto = ['q', 'k']", "parts 1: it has no match"),
        ("[[parts]]\nmatch = '*'\nin_to = ['q', 'k']", "parts 1: unknown key 'in_to'; did you mean 'into'"),
        ("[[parts]]\nmatch = '*'\nstack = 'yes'", "stack is True or False"),
    ],
)
def test_a_file_whose_parts_are_wrong_is_refused(table: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.loads(f"{table}\n[[rule]]\nmatch = '*'\noptimizer = 'AdamW'\nlr = 0.1\n")


def test_parts_of_a_model_without_them_change_nothing() -> None:
    plan = Plan(
        [Rule("*", optimizer="AdamW", lr=exact(0.1))], parts=[Parts("*qkv.weight", into=["q", "k"], optional=True)]
    )
    assert str(resolve(Net(), plan)) == str(resolve(Net(), Plan(plan.rules)))
