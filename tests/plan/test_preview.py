"""A preview is what the schedules say, nothing interpolated: samples, true peaks, rows, freezing, what is lacking."""

import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import LengthError, ScheduleError
from groupwise.plan import Algorithm, Plan, Resolution, Rule, after, exact, scale, unfreeze_down, until
from groupwise.plan.preview import Panel, Row, missing_lengths, preview
from groupwise.schedules import Schedule, constant, cosine, linear, plateau, step_decay
from groupwise.select import Occurrence, ParameterInfo
from tests.schedules.samplers import schedules

TOY = Algorithm(
    "Toy", {"lr": 1.0, "momentum": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "nesterov": False, "kind": None}
)
BARE = Algorithm("Bare", {"lr": 1.0})
NAMES = ("stem.weight", "body.0.weight", "body.1.weight", "head.weight")
BASE = Rule("*", label="base", optimizer="Toy", lr=cosine(1e-3, warmup="10 steps"))


def resolution(
    rules: Sequence[Rule], values: dict[str, Schedule] | None = None, frozen: Sequence[str] = ()
) -> Resolution:
    infos = [ParameterInfo((Occurrence(name, depth=i),), (2, 2), name not in frozen) for i, name in enumerate(NAMES)]
    return Plan(rules, values=values).resolve(infos, {"Toy": TOY, "Bare": BARE})


def panel(of: Resolution, title: str, total_steps: int = 100, steps_per_epoch: int | None = None) -> Panel:
    return next(p for p in preview(of, total_steps, steps_per_epoch).panels if p.title == title)


def row(of: Panel, group: str) -> Row:
    return next(r for r in of.rows if group in r.names)


@given(schedules, st.integers(1, 5000), st.integers(1, 700))
def test_every_sample_is_what_the_schedule_says_at_that_step(s: Schedule, total: int, epoch: int) -> None:
    seen = preview(resolution([BASE], values={"it": s}), total, epoch, samples=7)
    (it,) = next(p for p in seen.panels if p.named).rows
    assert list(it.values) == [s.at(step, total, epoch) for step in seen.steps]
    assert (it.start, it.end) == (s.at(0, total, epoch), s.at(total, total, epoch))
    assert it.peak >= max(it.values)


@given(st.integers(1, 10**9), st.integers(2, 300))
def test_samples_are_different_steps_from_the_first_to_the_last(total: int, samples: int) -> None:
    steps = preview(resolution([BASE]), total, samples=samples).steps
    assert steps[0] == 0
    assert steps[-1] == total
    assert list(steps) == sorted(set(steps))
    assert len(steps) == min(samples, total + 1)


def test_a_factor_multiplies_exactly_as_the_group_will_see_it() -> None:
    resolved = resolution([BASE, Rule("stem", lr=scale(0.1) * scale(linear(1.0, 0.5)) * scale(0.3))])
    setting = next(group for group in resolved.groups if "stem" in group.name).settings["lr"]
    stem = row(panel(resolved, "lr"), "stem")
    assert list(stem.values) == [setting.at(step, 100) for step in range(101)]


@pytest.mark.parametrize("warmup", [1, 7, 4999, 33_333])
def test_the_peak_is_that_of_the_run_not_of_the_samples(warmup: int) -> None:
    seen = preview(
        resolution([Rule("*", optimizer="Toy", lr=cosine(3e-4, warmup=f"{warmup} steps"))]), 100_000, samples=9
    )
    assert seen.panels[0].rows[0].peak == 3e-4


def test_a_value_that_rises_to_its_end_peaks_there() -> None:
    seen = preview(resolution([BASE], values={"teacher": cosine(0.996, end=1.0)}), 1000, samples=3)
    assert seen.panels[-1].rows[0].peak == 1.0


def test_groups_that_take_the_same_course_share_a_row() -> None:
    lr = panel(resolution([BASE, Rule("head", label="head", momentum=0.5)]), "lr")
    assert [set(r.names) for r in lr.rows] == [{"base", "head"}]


def test_groups_that_freeze_at_other_times_do_not() -> None:
    lr = panel(resolution([BASE, Rule("head", label="head", trainable=until("50%"))]), "lr")
    assert len(lr.rows) == 2
    assert row(lr, "base").values == row(lr, "head").values


def test_the_learning_rate_leads_even_where_it_stands_still() -> None:
    rules = [Rule("*", optimizer="Toy", lr=0.1), Rule("head", label="head", momentum=linear(0.5, 0.9))]
    assert [p.title for p in preview(resolution(rules), 10).panels] == ["lr", "momentum"]


def test_a_group_that_does_not_schedule_a_property_is_part_of_its_picture() -> None:
    rules = [BASE, Rule("head", label="head", momentum=linear(0.5, 0.9)), Rule("stem", label="stem", momentum=0.7)]
    momentum = panel(resolution(rules), "momentum")
    assert row(momentum, "stem").values == (0.7,) * 101
    assert row(momentum, "base").values == (0.0,) * 101, "the class default"


def test_a_property_that_nobody_schedules_has_no_panel() -> None:
    rules = [BASE, Rule("head", momentum=0.9, nesterov=True)]
    assert [p.title for p in preview(resolution(rules), 10).panels] == ["lr"]


def test_a_group_whose_algorithm_lacks_the_property_is_left_out() -> None:
    low = Rule(["stem", "body"], label="low", momentum=linear(0.5, 0.9))
    resolved = resolution([BASE, low, Rule("head", label="head", optimizer="Bare", lr=0.1)])
    assert [r.names for r in panel(resolved, "momentum").rows] == [("low",)]
    assert {name for r in panel(resolved, "lr").rows for name in r.names} == {"low", "head"}


def test_a_group_without_an_algorithm_has_no_row() -> None:
    resolved = resolution([Rule("head", label="head", optimizer="Toy", lr=linear(0.1))], frozen=NAMES[:3])
    assert [r.names for r in panel(resolved, "lr").rows] == [("head",)]


def test_elements_of_a_tuple_are_properties_of_their_own() -> None:
    resolved = resolution([Rule("*", optimizer="Toy", lr=0.1, betas=(linear(0.85, 0.95), 0.98))])
    titles = [p.title for p in preview(resolved, 10).panels]
    assert titles == ["lr", "betas[0]"]
    assert panel(resolved, "betas[0]", 10).rows[0].start == 0.85


def test_named_values_have_a_panel_each() -> None:
    panels = preview(
        resolution([BASE], values={"teacher": cosine(0.996, end=1.0), "warmth": linear(5.0, 1.0)}), 10
    ).panels
    assert [(p.title, p.named, p.rows[0].names) for p in panels[1:]] == [
        ("teacher", True, ("teacher",)),
        ("warmth", True, ("warmth",)),
    ]


def test_freezing_is_told_step_by_step() -> None:
    lr = panel(resolution([BASE, Rule("stem", label="stem", trainable=after("40 steps"))]), "lr")
    assert list(row(lr, "stem").trains) == [step >= 40 for step in range(101)]
    assert all(row(lr, "base").trains)


def test_unfreezing_goes_down_level_by_level() -> None:
    lr = panel(resolution([BASE, Rule("*", label="gradual", trainable=unfreeze_down("2 epochs"))]), "lr", 100, 10)
    firsts = sorted(r.trains.index(True) for r in lr.rows)
    assert firsts == [0, 20, 40, 60]


def test_the_state_after_the_last_update_is_not_a_freezing() -> None:
    lr = panel(resolution([BASE, Rule("stem", label="stem", trainable=until("100%"))]), "lr")
    assert all(row(lr, "stem").trains)


@pytest.mark.parametrize("s", [plateau(0.1), plateau(0.1).scaled(0.5), constant(1.0).then(plateau(0.1), at="10 steps")])
def test_what_a_metric_will_change_is_marked(s: Schedule) -> None:
    resolved = resolution([Rule("*", optimizer="Toy", lr=s, momentum=linear(0.5))])
    assert [(p.title, p.reactive) for p in preview(resolved, 50).panels] == [("lr", True), ("momentum", False)]


def test_with_every_length_nothing_is_lacking() -> None:
    assert missing_lengths(resolution([BASE, Rule("stem", trainable=after("2 epochs"))]), 100, 10) == ()


def test_what_is_lacking_names_the_rule_the_property_and_the_length() -> None:
    rules = [
        BASE,
        Rule("head", label="head", lr=scale(step_decay(1.0, 0.5, every="2 epochs"))),
        Rule("body", beta1=linear(0.8)),
        Rule("stem", label="stem", trainable=after("5%")),
    ]
    lacks = {
        (lack.who, lack.property): lack for lack in missing_lengths(resolution(rules, {"t": linear(1.0)}), None, None)
    }
    assert {key: lack.needs for key, lack in lacks.items()} == {
        ("rule 1 'base'", "lr"): {"total_steps"},
        ("rule 2 'head'", "lr"): {"steps_per_epoch"},
        ("rule 3 'body'", "betas"): {"total_steps"},
        ("rule 4 'stem'", "trainable"): {"total_steps"},
        ("values", "t"): {"total_steps"},
    }
    assert lacks["rule 1 'base'", "lr"].text == str(BASE.hyperparameters["lr"])


def test_a_length_that_is_given_is_not_lacking() -> None:
    resolved = resolution([Rule("*", optimizer="Toy", lr=cosine(0.1, warmup="1 epoch"))])
    assert [lack.needs for lack in missing_lengths(resolved, 100, None)] == [{"steps_per_epoch"}]
    assert [lack.needs for lack in missing_lengths(resolved, None, 10)] == [{"total_steps"}]


def test_a_schedule_inside_exact_or_a_tuple_is_its_rules() -> None:
    rules = [Rule("*", label="base", optimizer="Toy", lr=0.1), Rule("head", label="head", lr=exact(linear(0.1)))]
    rules.append(Rule("stem", label="stem", betas=(linear(0.8, 0.9), 0.98)))
    lacks = missing_lengths(resolution(rules), None, None)
    assert {(lack.who, lack.property) for lack in lacks} == {("rule 2 'head'", "lr"), ("rule 3 'stem'", "betas")}


def test_a_missing_epoch_length_is_the_schedules_own_error() -> None:
    with pytest.raises(LengthError, match="steps_per_epoch"):
        preview(resolution([Rule("*", optimizer="Toy", lr=cosine(0.1, warmup="1 epoch"))]), 100)


@pytest.mark.parametrize(("total", "samples"), [(0, 10), (10, 1)])
def test_a_run_without_length_has_no_picture(total: int, samples: int) -> None:
    with pytest.raises(ScheduleError, match="at least one step and two samples"):
        preview(resolution([BASE]), total, samples=samples)


def test_previewing_loads_the_standard_library_alone() -> None:
    code = "import sys, groupwise.plan.preview; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
