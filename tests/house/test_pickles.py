"""A public value is pickled by public names alone, so that a file of ours may move and old pickles are still read.

What is read is held against an unpickler that refuses every class and function of ours by its own path.
"""

import copyreg
import inspect
import io
import pickle
import pkgutil
import typing
from copy import copy, deepcopy
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from torch import Tensor, optim

from groupwise import Plan, Rule, after, balance, clip_norm, exact, scale, schedules, select
from groupwise.audit import Finding
from groupwise.balance import GramianMethod, Memory, Method, MethodContext
from groupwise.optim import LoadReport
from groupwise.records import Clip, Event, Group, Header, Step
from groupwise.schedules import Schedule
from groupwise.select import ParameterInfo, Selector
from tests.house.test_public_names import packages, public
from tests.plan.samplers import Case, cases
from tests.schedules.samplers import schedules as any_schedule
from tests.select.samplers import fileable, infos
from tests.testing.test_methods_obey import EXAMPLES

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
FOREIGN = {"groupwise.keras"}  # what Keras writes is its own configuration


class ByPublicNames(pickle.Unpickler):
    """Reads what the standard library can find, and what is asked for by a public name."""

    def find_class(self, module: str, name: str) -> Any:
        assert module.partition(".")[0] != "groupwise", f"the pickle names {module}.{name}"
        return _found if (module, name) == ("pkgutil", "resolve_name") else super().find_class(module, name)


def _found(path: str) -> Any:
    package, _, name = path.partition(":")
    assert name in public(package)[1], f"{path} is not public"
    return pkgutil.resolve_name(path)


def twins(value: object) -> list[Any]:
    """What becomes of a value by way of its pickles, in every protocol and of either implementation."""
    written = [dumps(value, protocol) for protocol in PROTOCOLS for dumps in (pickle.dumps, pickle._dumps)]
    return [*(ByPublicNames(io.BytesIO(data)).load() for data in written), copy(value), deepcopy(value)]


def check(value: object) -> None:
    for twin in twins(value):
        assert twin == value
        assert type(twin) is type(value)


@given(s=any_schedule)
def test_a_schedule_is_pickled_by_public_names(s: Schedule) -> None:
    check(s)


@given(s=fileable)
def test_a_selector_is_pickled_by_public_names(s: Selector) -> None:
    check(s)


@given(info=infos)
def test_what_is_known_of_a_parameter_is_pickled_by_public_names(info: ParameterInfo) -> None:
    check(info)
    assert {twin.roles for twin in twins(info)} == {info.roles}


@given(case=cases())
def test_a_plan_is_pickled_by_public_names(case: Case) -> None:
    check(case.plan)


@pytest.mark.parametrize("method", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_a_balancing_method_is_pickled_by_public_names(method: Method) -> None:
    check(method)


VALUES = [
    Plan([Rule("*", optimizer=optim.SGD, lr=0.1)], clip_norm(1.0), {"m": schedules.cosine(0.1)}, {"method": "DWA"}),
    Rule("*", optimizer="SGD", lr=exact(scale(0.1).by), trainable=after("2 steps"), hyperparameters={"clip": 0.5}),
    scale(schedules.linear(0.1)) * scale(0.5),
    schedules.steps(3),
    LoadReport(found=("a",), new=("b",)),
    Finding("stale", "error", ("a",), "it is no longer the model's", "regroup"),
    Header(groups=(Group("g", clip=Clip("norm", 1.0, "g")),), tasks=("a",)),
    Step(3, values={"g": {"lr": 0.1}}),
    Event(3, "groups", groups=(Group("g"),)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_other_values_are_pickled_by_public_names(value: object) -> None:
    check(value)


def big(info: ParameterInfo) -> bool:
    return info.shape > (1,)


def test_a_function_in_a_value_is_the_same_function_afterwards() -> None:
    check(select.where(big) | ~select.role("norm"))
    check(schedules.function(abs))


def test_a_copy_in_depth_shares_nothing_that_can_change() -> None:
    step = Step(0, groups={"g": {"loss": 1.0}})
    twin = deepcopy(step)
    assert twin.groups is not step.groups
    assert twin.groups["g"] is not step.groups["g"]


@packages
def test_every_public_value_class_is_pickled_by_its_public_name(package: str) -> None:
    module, names = public(package)
    if package in FOREIGN:
        return
    classes = [cls for name in names if isinstance(cls := getattr(module, name), type) and is_dataclass(cls)]
    frozen: Any = [cls for cls in classes if not inspect.isabstract(cls) and cls.__dataclass_params__.frozen]  # type: ignore[attr-defined]
    assert not [cls for cls in frozen if cls not in copyreg.dispatch_table and cls.__reduce__ is object.__reduce__]


@dataclass(frozen=True)
class Own(GramianMethod):
    """A user's method."""

    power: float = 1.0
    task_only: ClassVar[Any] = "unweighted"

    def weights(self, gramian: Tensor, seen: MethodContext, memory: Memory) -> Tensor:
        return gramian.diagonal() ** self.power


@dataclass(frozen=True)
class OwnOfOurs(balance.PCD):
    """A user's variant of a method of ours."""


@pytest.mark.parametrize("method", [Own(2.0), OwnOfOurs()], ids=lambda method: type(method).__name__)
def test_a_class_of_the_users_is_pickled_as_ever(method: Method) -> None:
    twin = pickle.loads(pickle.dumps(method))
    assert twin == method
    assert type(twin) is type(method)
    assert type(replace(twin)) is type(method)


@pytest.mark.parametrize("cls", [Plan, Rule, balance.CAGrad, schedules.cosine, Step, LoadReport])
def test_a_public_class_still_says_where_it_is_written(cls: type) -> None:
    assert f"class {cls.__name__}" in inspect.getsource(cls)
    assert Path(inspect.getfile(cls)).name != "__init__.py"
    assert typing.get_type_hints(cls)
