"""A name of an earlier version is an error that names the new one."""

from typing import Any

import pytest

import groupwise.balance
from groupwise.balance import Balancer, CAGrad, LossMethod
from groupwise.balance.plan_table import decode
from groupwise.errors import BalanceError, GroupwiseError, StateError


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ({"heads": "weighted"}, "heads= is called task_only= now"),
        ({"cost": "auto"}, "cost= is called route= now"),
        ({"ranks": "auto", "cost": "auto"}, "cost= is called route= now, ranks= is called distributed= now"),
    ],
)
def test_of_a_balancer(old: Any, message: str) -> None:
    with pytest.raises(BalanceError, match=message):
        Balancer(CAGrad(), **old)


@pytest.mark.parametrize("old", [{"nonfinite": "skip task"}, {"task_only": "raw"}, {"distributed": "alone"}])
def test_an_old_choice_is_told_the_ones_that_exist(old: Any) -> None:
    with pytest.raises(BalanceError, match=r"skip_task|unweighted|local"):
        Balancer(CAGrad(), **old)


def test_of_a_plan_file() -> None:
    with pytest.raises(BalanceError, match="heads is called task_only now"):
        decode({"method": "CAGrad", "heads": "raw"})


@pytest.mark.parametrize(("old", "new"), [("Claim", "Property"), ("Seen", "MethodContext")])
def test_of_a_class(old: str, new: str) -> None:
    with pytest.raises(GroupwiseError, match=f"{old} is called {new} now"):
        getattr(groupwise.balance, old)
    assert not hasattr(groupwise.balance, "never_there")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("heads", "task_only"),
        ("promises", "class_properties"),
        ("claims", "properties"),
        ("own_weights", "task_specific_weights"),
    ],
)
def test_of_a_member_of_a_method_of_ones_own(old: str, new: str) -> None:
    with pytest.raises(BalanceError, match=f"Mine: {old} is called {new} now"):
        type("Mine", (LossMethod,), {old: None})


def test_everything_but_the_method_has_its_name_written() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        Balancer(CAGrad(), "weighted")  # type: ignore[misc]


def test_of_a_resume(tmp_path: Any) -> None:
    from groupwise import Plan, Rule, checkpoint
    from groupwise.optim import GroupedOptimizer
    from tests.balance.engine.models import built

    optimizer = GroupedOptimizer(built("Plain"), Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    checkpoint.save(tmp_path / "run.pt", optimizer=optimizer)
    with pytest.raises(StateError, match="values= is called prefer= now"):
        optimizer.resume(optimizer.state_dict(), values="plan")  # type: ignore[call-arg]
    with pytest.raises(StateError, match="values= is called prefer= now"):
        checkpoint.load(tmp_path / "run.pt", optimizer=optimizer, values="plan")  # type: ignore[call-arg]
    with pytest.raises(StateError, match=r"unknown choice for prefer 'edited'.*unchanged, checkpoint, plan"):
        optimizer.resume(optimizer.state_dict(), prefer="edited")  # type: ignore[arg-type]
