"""The plateau: pure, with its memory outside, and decision for decision torch's `ReduceLROnPlateau`."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from groupwise.errors import ScheduleError, StateError
from groupwise.schedules import PlateauState, constant, cosine, plateau, plateaus, reduced, steps

metrics = st.lists(
    st.one_of(st.floats(-2, 2), st.sampled_from([0.0, 1.0, 0.9999, math.nan, math.inf, -math.inf])), max_size=40
)
policies = st.fixed_dictionaries(
    {
        "factor": st.floats(0, 0.99),
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1, 1.0, 1.5]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "mode": st.sampled_from(["min", "max"]),
        "cooldown": st.integers(0, 4),
        "eps": st.sampled_from([0.0, 1e-8, 0.05]),
    }
)


@given(policies, metrics, st.floats(1e-3, 2), st.floats(0, 1))
def test_it_is_ReduceLROnPlateau_over_any_sequence_of_metrics(
    policy: dict[str, Any], seen: list[float], lr: float, floor: float
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = ReduceLROnPlateau(optimizer, min_lr=floor, **policy)
    p = plateau(lr, floor=floor, **policy)
    state = p.initial
    for metric in seen:
        optimizer.step()
        scheduler.step(metric)
        state = p.observe(state, metric)
        assert state.value == optimizer.param_groups[0]["lr"]
        assert (state.bad, state.cooldown) == (scheduler.num_bad_epochs, scheduler.cooldown_counter)


def test_before_any_reduction_it_is_its_start() -> None:
    assert [plateau(0.1).at(t) for t in (0, 10_000)] == [0.1, 0.1]
    assert plateau(0.1).initial == PlateauState(0.1)


@given(policies, metrics)
def test_observing_changes_neither_the_plateau_nor_the_state(policy: dict[str, Any], seen: list[float]) -> None:
    p, twin = plateau(1.0, **policy), plateau(1.0, **policy)
    states = [p.initial]
    for metric in seen:
        before = states[-1].to_dict()
        states.append(p.observe(states[-1], metric))
        assert states[-2].to_dict() == before
        assert p.observe(states[-2], metric) == states[-1]
    assert p == twin


@given(policies, metrics)
def test_a_state_goes_through_plain_json_and_back(policy: dict[str, Any], seen: list[float]) -> None:
    p = plateau(1.0, **policy)
    state = p.initial
    for metric in seen:
        state = PlateauState.from_dict(json.loads(json.dumps(p.observe(state, metric).to_dict())))
    expected = p.initial
    for metric in seen:
        expected = p.observe(expected, metric)
    assert state == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "a plateau's state has value, best, bad, cooldown; this one has "),
        ({"value": 1.0, "best": None, "bad": 0, "cooldown": 0, "x": 1}, "this one has value, best, bad, cooldown, x"),
        ({"value": "1", "best": None, "bad": 0, "cooldown": 0}, "a plateau's state: '1' is not a number"),
        ({"value": math.nan, "best": None, "bad": 0, "cooldown": 0}, "nan is not a finite number"),
    ],
)
def test_a_state_that_is_not_one_is_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(StateError, match=message):
        PlateauState.from_dict(data)


def test_a_metric_may_be_a_tensor_but_not_text_or_many_numbers() -> None:
    p = plateau(1.0)
    assert p.observe(p.initial, torch.tensor(0.5)) == p.observe(p.initial, 0.5)
    for junk in ("0.5", None, True, [0.5]):
        with pytest.raises(ScheduleError, match=r"metric: .* is not a (single )?number"):
            p.observe(p.initial, junk)  # type: ignore[arg-type]


def test_reduced_reaches_a_plateau_wherever_it_stands() -> None:
    p, q = plateau(1.0, warmup=steps(4)), plateau(2.0, factor=0.5)
    s = p.scaled(0.1).then(constant(5.0).scaled(q), at=steps(8)).clamped(low=0.001)
    assert plateaus(s) == (p, q)
    now = reduced(s, {p: PlateauState(0.5), q: PlateauState(1.0)})
    for t in (0, 3, 7):
        assert now.at(t) == pytest.approx(s.at(t) / 2)
    assert now.at(8) == 5.0
    assert reduced(s, {}) == s
    assert reduced(s, {p: p.initial, q: q.initial}) == s


def test_equal_plateaus_share_a_state_and_other_schedules_have_none() -> None:
    s = plateau(1.0).then(plateau(1.0).scaled(2), at="50%")
    assert plateaus(s) == (plateau(1.0),)
    assert plateaus(cosine(1.0).scaled(cosine(2.0))) == ()
    assert reduced(s, {plateau(1.0): PlateauState(0.1)}).at(9, 10) == pytest.approx(0.2)


def test_a_reduced_plateau_is_the_same_policy_from_a_lower_start() -> None:
    p = plateau(1.0, factor=0.5, patience=0, warmup="5%")
    assert p.reduced(PlateauState(0.5)) == plateau(0.5, factor=0.5, patience=0, warmup="5%")
