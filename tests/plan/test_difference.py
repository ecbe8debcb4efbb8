"""What differs between two plans on a model: as they resolve, not as they are written."""

from typing import Any

import pytest
from hypothesis import example, given
from torch import nn

from groupwise import Plan, Rule, clip_norm, exact, layer_decay, scale
from groupwise.optim import resolve
from groupwise.plan import Difference, Resolution, differences, standings
from groupwise.plan.difference import outside
from groupwise.schedules import Schedule, constant, cosine, exponential, linear, plateau
from groupwise.select import parameters_of
from tests.plan.samplers import ALGORITHMS
from tests.plan.test_round_trip import slow
from tests.schedules.samplers import schedules


def model() -> nn.Module:
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(2)))
    return nn.ModuleDict({"backbone": blocks, "head": nn.Linear(4, 2)})


def resolved(*rules: Rule, **more: Any) -> Resolution:
    return resolve(model(), Plan([Rule("*", label="base", optimizer="AdamW", lr=3e-4), *rules], **more))


def between(before: Resolution, after: Resolution) -> tuple[Difference, ...]:
    return differences(standings(before), standings(after))


def said(found: tuple[Difference, ...]) -> list[tuple[str, ...]]:
    return [tuple(map(str, difference.changes)) for difference in found]


def test_a_plan_does_not_differ_from_itself() -> None:
    assert between(resolved(), resolved()) == ()


@pytest.mark.parametrize(
    "rule",
    [
        Rule("head", lr=scale(1.0)),
        Rule("head", lr=exact(3e-4)),
        Rule("*", label="another name", lr=3e-4),
        Rule("*", lr=constant(3e-4)),
        Rule("*", weight_decay=0.01),  # AdamW's own
        Rule("*", lr=cosine(3e-4, end=3e-4)),
    ],
)
def test_what_comes_to_the_same_is_no_change(rule: Rule) -> None:
    assert between(resolved(), resolved(rule)) == ()


def test_a_product_is_its_value_whichever_way_it_is_written() -> None:
    written = resolved(Rule("backbone", lr=scale(0.1)), Rule("backbone", lr=scale(0.5)))
    assert between(written, resolved(Rule("backbone", lr=1.5e-5))) == ()
    courses = resolved(Rule("*", lr=cosine(1e-3, warmup="5%")), Rule("*", lr=scale(0.5)))
    assert between(courses, resolved(Rule("*", lr=cosine(5e-4, warmup="5%")))) == ()


def test_changes_are_gathered_by_what_changed_with_the_groups_and_the_parameters() -> None:
    (found,) = between(resolved(), resolved(Rule("head", label="head", lr=1e-3, clip=clip_norm(1.0), trainable=False)))
    assert (found.before, found.after, found.parameters, found.numel) == (
        "base", "head", ("head.weight", "head.bias"), 10,
    )  # fmt: skip
    assert tuple(map(str, found.changes)) == ("lr: 3e-4 → 1e-3", "trains: yes → no", "clip: none → norm 1 (head)")


def test_another_algorithm_says_what_is_lost_and_what_is_new() -> None:
    (found,) = between(
        resolved(Rule("*", betas=(0.9, 0.95))),
        resolve(model(), Plan([Rule("*", optimizer="SGD", lr=3e-4, momentum=0.9)])),
    )
    changes = set(map(str, found.changes))
    assert {"optimizer: AdamW → SGD", "betas: (0.9, 0.95) → none", "momentum: none → 0.9"} <= changes
    assert not any(change.property == "lr" for change in found.changes)


def test_a_default_in_force_is_told_from_a_declared_value() -> None:
    assert said(between(resolved(), resolved(Rule("head", weight_decay=0.0)))) == [
        ("weight_decay: 0.01 (default) → 0",)
    ]


def test_lengths_are_compared_in_runs_of_several_lengths() -> None:
    steps, share = (resolved(Rule("*", lr=linear(3e-4, warmup=warmup))) for warmup in ("50 steps", "5%"))
    assert [len(found.parameters) for found in between(steps, share)] == [10]


def test_a_plateau_is_compared_by_what_it_does_with_a_metric() -> None:
    patient, hasty = (resolved(Rule("*", lr=plateau(3e-4, patience=n))) for n in (10, 2))
    assert between(patient, patient) == ()
    assert len(between(patient, hasty)) == 1
    assert len(between(resolved(), hasty)) == 1


def test_a_clip_over_other_parameters_is_another_one() -> None:
    both = resolved(Rule("*", clip=clip_norm(1.0)), Rule("head", label="h", lr=scale(1.0)))
    apart = resolved(Rule("*", clip=clip_norm(1.0)), Rule("head", label="h", clip=clip_norm(1.0)))
    changed = {name for found in between(both, apart) for name in found.parameters}
    assert changed == {name for name, _ in model().named_parameters()}


def test_parameters_of_one_side_alone_are_told() -> None:
    wide = standings(resolved())
    narrow = {name: standing for name, standing in wide.items() if not name.startswith("head")}
    (gone,) = differences(wide, narrow)
    (new,) = differences(narrow, wide)
    assert (gone.before, gone.after, gone.parameters) == ("base", None, ("head.weight", "head.bias"))
    assert (new.before, new.after, new.changes) == (None, "base", ())


def test_what_belongs_to_no_parameter_is_compared_too() -> None:
    plain, other = resolved(), resolved(clip=clip_norm(1.0), values={"teacher": cosine(0.99, end=1.0)})
    assert outside(plain, plain) == ()
    assert list(map(str, outside(plain, other))) == [
        "clip over everything: none → norm 1",
        "values.teacher: none → cosine(0.99, end=1)",
    ]


def test_layer_decay_is_told_level_by_level() -> None:
    found = between(resolved(), resolved(Rule("backbone", lr=layer_decay(0.5))))
    assert [difference.changes[0].after for difference in found] == ["3e-4 × 0.5"]


def scheduled(schedule: Schedule) -> Resolution:
    plan = Plan([Rule("*", optimizer="Plain", lr=1.0, momentum=schedule)])
    return plan.resolve(parameters_of(nn.Linear(2, 2)), ALGORITHMS)


@slow
@given(schedules, schedules)
@example(linear(0.0), exponential(1.0, gamma=1.125, every="1 step"))  # inf at update 6,087
def test_courses_that_differ_at_an_update_differ(one: Schedule, other: Schedule) -> None:
    assert between(scheduled(one), scheduled(one)) == ()
    if any(one.at(t, 1000, 37) != pytest.approx(other.at(t, 1000, 37), rel=1e-6) for t in (0, 515, 1000)):
        assert between(scheduled(one), scheduled(other))
