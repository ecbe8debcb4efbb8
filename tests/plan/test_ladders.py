"""`layer_decay` with a floor, as a schedule, over stated levels, and of a part of a model."""

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise import Plan, Rule, layer_decay, scale
from groupwise.errors import PlanError, ResolutionError
from groupwise.optim import resolve
from groupwise.plan import Resolution
from groupwise.schedules import Schedule, cosine, linear

BASE = Rule("*", optimizer="SGD", lr=1.0)


class Staged(nn.Module):
    """Stages of blocks, each stage but the first opened by a downsampling and closed by a norm."""

    def __init__(self, depths: tuple[int, ...] = (1, 2, 3)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stages = nn.ModuleList()
        for i, n in enumerate(depths):
            stage = nn.Module()
            if i:
                stage.downsample = nn.Conv2d(4, 4, 1)
            stage.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)) for _ in range(n)))
            stage.last = nn.BatchNorm2d(4)
            self.stages.append(stage)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)


class Chain(nn.Module):
    """Some blocks, and a head."""

    def __init__(self, first: int = 0, last: int = 4, head: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(i): nn.Linear(2, 2) for i in range(first, last)})
        self.head = nn.Linear(2, 1) if head else None


def rates(resolution: Resolution, step: int = 0, total: int | None = None) -> dict[str, Any]:
    return {info.name: group.settings["lr"].at(step, total) for group in resolution.groups for info in group.parameters}


def levels(model: nn.Module, **options: Any) -> dict[str, int]:
    """Levels below the top, read from the rates."""
    found = rates(resolve(model, Plan([BASE, Rule("*", lr=layer_decay(0.5, **options))])))
    return {name: round(-math.log2(rate)) for name, rate in found.items()}


@given(st.floats(0.05, 0.99), st.floats(0.0, 1.0))
def test_no_factor_is_below_the_floor_and_those_above_it_are_as_without(decay: float, floor: float) -> None:
    plain = rates(resolve(Chain(), Plan([BASE, Rule("*", lr=layer_decay(decay))])))
    floored = rates(resolve(Chain(), Plan([BASE, Rule("*", lr=layer_decay(decay, floor=floor))])))
    assert floored == {name: max(floor, rate) for name, rate in plain.items()}


@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.integers(0, 10), st.floats(0.0, 0.9))
def test_a_decay_that_moves_is_that_decay_at_every_step(start: float, end: float, step: int, floor: float) -> None:
    moving = linear(start, end)
    now = moving.at(step, 10)
    plan = Plan([BASE, Rule("*", lr=layer_decay(moving, floor=floor))])
    expected = rates(resolve(Chain(), Plan([BASE, Rule("*", lr=layer_decay(now, floor=floor), optional=True)])))
    assert rates(resolve(Chain(), plan), step, 10) == pytest.approx(expected)


@pytest.mark.parametrize(
    "decay",
    [
        layer_decay(0.5, floor=0.1),
        layer_decay(linear(0.35, 1.0)),
        layer_decay(linear(0.35, 1.0), floor=0.2, levels=["stages.*", "neck"], top=7),
        scale(0.1) * layer_decay(0.9, levels="stages.*.blocks.*"),
        layer_decay(0.9, top=0),
    ],
    ids=str,
)
def test_it_is_the_same_from_a_file_and_from_a_pickle(decay: Any) -> None:
    plan = Plan([BASE, Rule("*", lr=decay)])
    assert Plan.loads(plan.dumps()) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_stated_levels_are_the_modules_that_fit() -> None:
    found = levels(Staged(), levels="stages.*.blocks.*")
    below = {f"stages.{s}.blocks.{b}.{i}.weight": 6 - k
             for k, (s, b) in enumerate([(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]) for i in (0, 1)}  # fmt: skip
    assert {name: level for name, level in found.items() if ".blocks." in name and "weight" in name} == below
    assert found["stem.weight"] == 7
    assert found["head.weight"] == found["norm.weight"] == 0


def test_what_opens_a_stage_is_of_its_first_block_and_what_closes_it_of_its_last() -> None:
    found = levels(Staged(), levels="stages.*.blocks.*")
    assert found["stages.2.downsample.weight"] == found["stages.2.blocks.0.0.weight"]
    assert found["stages.1.last.weight"] == found["stages.1.blocks.1.0.weight"]


def test_stated_levels_that_are_the_guessed_ones_change_nothing() -> None:
    assert levels(Staged(), levels="stages.*") == levels(Staged())
    assert levels(nn.ModuleDict({"net": Staged()}), levels="stages.*") == {
        f"net.{name}": level for name, level in levels(Staged()).items()
    }


def test_the_table_says_which_reading_was_taken() -> None:
    guessed = resolve(Staged(), Plan([BASE, Rule("*", label="ladder", lr=layer_decay(0.5))]))
    assert guessed.readings == (
        "rule 2 'ladder' counts 3 stages (stages.*) as levels; layer_decay(…, levels='stages.*.blocks.*') counts the 6 "
        "blocks in them",
    )
    stated = resolve(Staged(), Plan([BASE, Rule("*", label="ladder", lr=layer_decay(0.5, levels="stages.*.blocks.*"))]))
    assert stated.readings == ("rule 2 'ladder' counts levels by stages.*.blocks.*: 8 levels",)
    assert str(stated).endswith(stated.readings[0])
    assert resolve(Chain(), Plan([BASE, Rule("*", lr=layer_decay(0.5))])).readings == ()


def test_a_stage_of_a_pipeline_has_the_rates_of_the_whole_model_where_the_top_is_stated() -> None:
    plan = Plan([BASE, Rule("layers", lr=layer_decay(0.5, top=4))])
    whole = rates(resolve(Chain(), plan))
    for part in (Chain(0, 2, head=False), Chain(2, 4)):
        found = rates(resolve(part, plan))
        assert found == {name: whole[name] for name in found}


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "above one": ({"d": linear(0.5, 1.5)}, PlanError, r"layer_decay must lie in \(0, 1\], not 1.5"),
    "zero in the end": ({"d": cosine(0.5)}, PlanError, r"layer_decay must lie in \(0, 1\], not 0"),
    "a floor above one": ({"d": 0.5, "floor": 2.0}, PlanError, "floor is a factor from 0 to 1, not 2"),
    "a negative floor": ({"d": 0.5, "floor": -0.1}, PlanError, "layer_decay's floor must not be negative"),
    "levels that are no globs": ({"d": 0.5, "levels": 3}, PlanError, "levels are globs of modules"),
    "a top that is no level": ({"d": 0.5, "top": -1}, PlanError, "top is a level, a whole number"),
    "levels that fit nothing": (
        {"d": 0.5, "levels": "stage.*"}, ResolutionError, r"rule 2 '\*': layer_decay's levels 'stage.\*' fit no module; "  # noqa: E501
    ),
    "a top below what is there": ({"d": 0.5, "top": 1}, ResolutionError, "above the top that layer_decay declares, 1"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "kind", "told"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        resolve(Chain(), Plan([BASE, Rule("*", label="*", lr=layer_decay(options.pop("d"), **options))]))


def test_one_rule_reads_its_levels_in_one_way() -> None:
    rule = Rule("*", lr=layer_decay(0.5, levels="layers.*"), momentum=layer_decay(0.5))
    with pytest.raises(PlanError, match="read the levels in several ways; write a rule for each"):
        resolve(Chain(), Plan([BASE, rule]))


def test_options_of_a_decay_without_one_are_refused_in_a_file() -> None:
    text = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = { scale = 0.1, floor = 0.5 }\n'
    with pytest.raises(PlanError, match="floor belongs to a layer_decay, and the table has none"):
        Plan.loads(text)


def test_a_schedule_as_decay_is_one_of_the_groups_schedules() -> None:
    group = resolve(Chain(), Plan([BASE, Rule("*", lr=layer_decay(linear(0.5, 1.0)))])).groups[-1]
    assert all(isinstance(schedule, Schedule) for schedule in group.settings["lr"].schedules)


@pytest.mark.parametrize(("first", "last", "head"), [(2, 4, True), (3, 6, False), (1, 3, True)])
def test_a_part_that_begins_above_the_first_block_is_told_that_it_counts_from_its_own_top(
    first: int, last: int, head: bool
) -> None:
    part = Chain(first, last, head)
    said = resolve(part, Plan([BASE, Rule("layers", lr=layer_decay(0.5))])).cautions
    assert len(said) == 1
    assert f"begins at level {first + 1}, so it is a part of one" in said[0]
    assert "layer_decay(…, top=…)" in said[0]
    assert not resolve(part, Plan([BASE, Rule("layers", lr=layer_decay(0.5, top=9))])).cautions
    assert not resolve(part, Plan([BASE, Rule("layers", lr=scale(0.5))])).cautions


@pytest.mark.parametrize("model", [Chain(), Chain(0, 3, False), Staged(), nn.ModuleDict({"a": Chain(), "b": Staged()})])
def test_a_whole_model_is_told_nothing_about_parts(model: nn.Module) -> None:
    assert not resolve(model, Plan([BASE, Rule("*", lr=layer_decay(0.5))])).cautions
