"""The laws of the cascade over random models and plans, beside an oracle that applies them parameter by parameter."""

import contextlib
import math
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from groupwise.errors import GroupwiseError
from groupwise.plan import Group, Resolution, ScalarSetting, TupleSetting
from groupwise.select import parameters_of
from tests.plan.oracle import PROBLEMS, Verdict, judge_all, trains_at
from tests.plan.samplers import ALGORITHMS, Case, cases

STEPS = (0, 1, 2, 3, 5, 8, 20)

thorough = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def resolve(case: Case) -> Resolution:
    return case.plan.resolve(parameters_of(case.model), ALGORITHMS)


def resolved(case: Case) -> tuple[Resolution, dict[str, Group], dict[str, Verdict]]:
    """The resolution, and by first name the group that each parameter is in and what the oracle says of it."""
    verdicts, problems = judge_all(case.occurrences, case.sentences)
    assume(not problems)
    resolution = resolve(case)
    groups = {info.name: group for group in resolution.groups for info in group.parameters}
    return (
        resolution,
        groups,
        {occurrence.name: verdict for occurrence, verdict in zip(case.occurrences, verdicts, strict=True)},
    )


def slots_of(group: Group) -> dict[str, ScalarSetting]:
    slots: dict[str, ScalarSetting] = {}
    for name, setting in group.settings.items():
        if isinstance(setting, TupleSetting):
            slots |= {f"{name}[{i}]": element for i, element in enumerate(setting.elements)}
        elif isinstance(setting, ScalarSetting):
            slots[name] = setting
    return slots


@settings(thorough, max_examples=250)
@given(cases())
def test_a_plan_is_refused_exactly_where_it_breaks_a_law_and_for_that_reason(case: Case) -> None:
    _, problems = judge_all(case.occurrences, case.sentences)
    if not problems:
        assert resolve(case).groups
        return
    with pytest.raises(GroupwiseError, match="|".join(PROBLEMS[problem] for problem in problems)):
        resolve(case)


@thorough
@given(cases(tame=True))
def test_every_parameter_lands_in_exactly_one_group_under_all_its_names(case: Case) -> None:
    resolution, _, _ = resolved(case)
    landed = [info for group in resolution.groups for info in group.parameters]
    assert sorted(info.name for info in landed) == sorted(occurrence.name for occurrence in case.occurrences)
    assert {info.name: list(info.names) for info in landed} == {
        occurrence.name: occurrence.names for occurrence in case.occurrences
    }
    assert len({id(info.parameter) for info in landed}) == len(landed)


@thorough
@given(cases(tame=True))
def test_groups_are_the_classes_of_parameters_that_are_treated_alike(case: Case) -> None:
    _, groups, verdicts = resolved(case)
    classes = {
        occurrence.name: _treatment(verdicts[occurrence.name], occurrence.tensor.requires_grad)
        for occurrence in case.occurrences
    }
    networks = {occurrence.name: occurrence.network for occurrence in case.occurrences}
    for one, other in combinations(verdicts, 2):
        alike = classes[one] == classes[other] and networks[one] == networks[other]
        assert (groups[one] is groups[other]) == alike, f"{one}, {other}\n{case.shown}"


def _treatment(verdict: Verdict, trains: bool) -> tuple[Any, ...]:
    known = ALGORITHMS[verdict.algorithm] if verdict.algorithm else None
    slots = {name: value for name, value in verdict.slots.items() if known}
    if known and any(name.startswith("betas") for name in slots):
        slots = {f"betas[{i}]": (known.default(f"betas[{i}]"), []) for i in range(2)} | slots
    return (
        verdict.algorithm,
        slots,
        ("silent", trains) if verdict.trainable is None else verdict.trainable,
        verdict.clip,
    )


@thorough
@given(cases(tame=True))
def test_the_last_word_times_the_factors_that_it_hears_stands_at_every_step(case: Case) -> None:
    _, groups, verdicts = resolved(case)
    for name, verdict in verdicts.items():
        group, slots = groups[name], slots_of(groups[name])
        assert group.algorithm == verdict.algorithm
        if verdict.algorithm is None:
            assert not slots
            continue
        assert set(verdict.slots) <= set(slots)
        undeclared = {slot: slots[slot] for slot in set(slots) - set(verdict.slots)}
        assert undeclared == {slot: ScalarSetting(ALGORITHMS[verdict.algorithm].default(slot)) for slot in undeclared}
        for slot in verdict.slots:
            expected = [verdict.at(slot, step) for step in STEPS]
            assert [slots[slot].at(step) for step in STEPS] == pytest.approx(expected), f"{name}\n{case.shown}"


@thorough
@given(cases(tame=True))
def test_freezing_follows_the_last_word_and_silence_leaves_the_model_as_it_is(case: Case) -> None:
    _, groups, verdicts = resolved(case)
    for occurrence in case.occurrences:
        expected = [trains_at(occurrence, verdicts[occurrence.name], step) for step in STEPS]
        assert [groups[occurrence.name].trainable_at(step) for step in STEPS] == expected, (
            f"{occurrence.name}\n{case.shown}"
        )


@thorough
@given(cases(tame=True))
def test_a_clip_scope_is_what_its_rule_wins(case: Case) -> None:
    _, groups, verdicts = resolved(case)
    for name, verdict in verdicts.items():
        scope = groups[name].clip
        assert (scope.rule if scope else None) == verdict.clip
        assert scope is None or scope.clip == case.sentences[scope.rule].clip


@thorough
@given(cases(tame=True), st.data())
def test_the_order_of_the_parameters_changes_nothing_but_the_order_within_groups(
    case: Case, data: st.DataObject
) -> None:
    resolution, _, _ = resolved(case)
    infos = parameters_of(case.model)
    shuffled = case.plan.resolve(data.draw(st.permutations(infos)), ALGORITHMS)
    assert [group.name for group in shuffled.groups] == [group.name for group in resolution.groups]
    for one, other in zip(resolution.groups, shuffled.groups, strict=True):
        assert {info.name for info in one.parameters} == {info.name for info in other.parameters}
        assert (one.algorithm, one.settings, one.timeline, one.clip, one.depth, one.rules) == (
            (other.algorithm, other.settings, other.timeline, other.clip, other.depth, other.rules)
        )


@thorough
@given(cases(tame=True))
def test_group_names_are_unique_and_made_of_labels(case: Case) -> None:
    resolution, _, _ = resolved(case)
    names = [group.name for group in resolution.groups]
    assert len(set(names)) == len(names), case.shown
    labels = {rule.label for rule in case.plan.rules} | {"frozen"}
    assert all(any(name.startswith((label, "depth")) for label in labels) for name in names)


@thorough
@given(cases(tame=True))
def test_explain_names_the_rule_that_had_the_last_word_and_all_who_spoke(case: Case) -> None:
    resolution, groups, verdicts = resolved(case)
    for occurrence in case.occurrences:
        verdict = verdicts[occurrence.name]
        for name in occurrence.names:
            explanation = resolution.explain(name)
            told = {one.property: [word for _, word in one.outcomes] for one in explanation.properties}
            assert explanation.group == groups[occurrence.name].name
            last = {slot: [w.rule for w in said if w.status == "last word"] for slot, said in told.items()}
            assert {slot: rules[0] for slot, rules in last.items() if rules} == verdict.last, case.shown
            assert all([w.rule for w in said] == sorted({w.rule for w in said}) for said in told.values())
            spoke = {word.rule for said in told.values() for word in said}
            matching = {i for i, sentence in enumerate(case.sentences) if sentence.where(occurrence)}
            assert spoke == matching
            assert {word.rule for said in told.values() for word in said if word.effective} == verdict.spoke


@thorough
@given(cases(tame=True))
def test_explain_shows_what_stands_in_the_group(case: Case) -> None:
    resolution, groups, verdicts = resolved(case)
    for name, group in groups.items():
        shown = {one.property: one.value for one in resolution.explain(name).properties}
        assert shown["optimizer"] == (group.algorithm or "none")
        assert shown["trainable"] == group.freezing
        assert shown["clip"] == (str(group.clip.clip) if group.clip else "none")
        for slot, single in slots_of(group).items():
            default = "" if slot in verdicts[name].slots else f" (default of {group.algorithm})"
            assert shown[slot] == f"{single}{default}"


@thorough
@given(cases(tame=True))
def test_torch_groups_hold_the_peaks_of_every_group_that_has_an_algorithm(case: Case) -> None:
    resolution, _, _ = resolved(case)
    algorithms = sorted({group.algorithm for group in resolution.groups if group.algorithm})
    plain = [group for algorithm in algorithms for group in resolution.torch_groups(algorithm)]
    assert sorted(group["name"] for group in plain) == sorted(g.name for g in resolution.groups if g.algorithm)
    for group in plain:
        ours = next(own for own in resolution.groups if own.name == group["name"])
        assert [id(p) for p in group["params"]] == [id(info.parameter) for info in ours.parameters]
        assert group["algorithm"] == ours.algorithm
        for slot, single in slots_of(ours).items():
            name, _, index = slot.partition("[")
            value = group[name][int(index[:-1])] if index else group[name]
            assert math.isclose(value, max(single.at(step) for step in STEPS))  # ours fall from the start


@given(cases())
def test_no_plan_on_any_model_raises_anything_but_the_librarys_own_errors(case: Case) -> None:
    with contextlib.suppress(GroupwiseError):
        resolution = resolve(case)
        assert str(resolution).count("\n") >= len(resolution.groups)
