"""A fit past the end of the schedules, and arguments that belong elsewhere."""

import warnings
from typing import Any

import keras
import pytest

from groupwise import GroupwiseError, GroupwiseWarning, Plan, Rule
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import cosine
from tests.keras.nets import BATCH, ROWS, difference, fit, functional, weights

EPOCH = ROWS // BATCH


def compiled(end: float, total: int) -> Any:
    model = functional()
    plan = Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, end=end)), Rule("head", lr=0.1)])
    model.compile(GroupedOptimizer(plan, total_steps=total).bind(model), "mse")
    return model


def test_updates_past_the_end_at_a_rate_of_zero_are_told_once_and_move_nothing() -> None:
    model = compiled(0.0, EPOCH)
    fit(model, epochs=1)
    before = weights(model)
    with pytest.warns(GroupwiseWarning, match=rf"given total_steps={EPOCH}, {2 * EPOCH} updates .* rate of base is 0"):
        fit(model, epochs=1)
    after = weights(model)
    assert difference({"body": after["body.kernel"]}, {"body": before["body.kernel"]}) == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", GroupwiseWarning)
        fit(model, epochs=1)


@pytest.mark.parametrize(("end", "total"), [(0.01, EPOCH), (0.0, 2 * EPOCH)], ids=["a rate that stays", "in time"])
def test_a_run_that_trains_to_its_last_update_is_silent(end: float, total: int) -> None:
    model = compiled(end, total)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GroupwiseWarning)
        fit(model, epochs=2)


def test_arguments_that_are_said_elsewhere_are_told_where() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1)])
    with pytest.raises(GroupwiseError, match="GroupedOptimizer has no argument epochs=: say total_steps="):
        GroupedOptimizer(plan, epochs=3)  # type: ignore[call-arg]
    with pytest.raises(GroupwiseError, match="no argument lr=: the plan says it"):
        GroupedOptimizer(plan, lr=3)  # type: ignore[call-arg]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's scheduler needs torch")
def test_torchs_scheduler_says_that_this_optimizer_schedules_itself() -> None:
    from groupwise import PlanScheduler

    with pytest.raises(GroupwiseError, match=r"not GroupedOptimizer of Keras, .*GroupedOptimizer\(plan, total_steps="):
        PlanScheduler(GroupedOptimizer(Plan([Rule("*", optimizer="SGD", lr=0.1)])), total_steps=3)  # type: ignore[arg-type]
