"""Hyperparameters are recorded as the update used them, whatever an optimizer takes for a number."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise.observe import Observer
from groupwise.observe.grouping import Grouping
from groupwise.observe.hyperparameters import Values
from tests.observe.nets import ALL

KINDS: dict[str, Callable[[float], Any]] = {
    "a float": float,
    "numpy's float64": np.float64,
    "numpy's float32": np.float32,
    "numpy's float16": np.float16,
    "an array without dimensions": np.array,
    "an array of one": lambda value: np.array([value]),
    "a tensor": torch.tensor,
    "a tensor of one": lambda value: torch.tensor([value]),
    "a double tensor": lambda value: torch.tensor(value, dtype=torch.float64),
    "a tensor with a gradient": lambda value: torch.tensor(value, requires_grad=True),
    "a fraction": Fraction,
}
WHOLE: dict[str, Callable[[int], Any]] = {
    "an int": int,
    "numpy's int64": np.int64,
    "numpy's uint8": np.uint8,
    "a whole tensor": torch.tensor,
}
NONE = [None, True, np.bool_(True), torch.tensor(True), "0.5", 1j, np.complex64(1), torch.tensor(1j), torch.ones(2), {}]


def grouped(value: Any, count: int = 1) -> torch.optim.Optimizer:
    params = [nn.Parameter(torch.ones(2)) for _ in range(count)]
    return torch.optim.SGD([{"params": [p], "name": "g", "lr": 0.1, "own": value} for p in params])


def told(optimizer: torch.optim.Optimizer, **given: Any) -> dict[str, float]:
    with Observer(optimizer, None, **given) as observer:
        optimizer.step()
    assert observer.last is not None
    return dict(observer.last.values["g"])


@pytest.mark.parametrize("kind", [*KINDS.values(), *WHOLE.values()], ids=[*KINDS, *WHOLE])
def test_every_kind_of_number_is_recorded(kind: Callable[[Any], Any]) -> None:
    value = 3 if kind in WHOLE.values() else 0.25
    assert told(grouped(kind(value)))["own"] == value
    assert told(grouped((kind(value), 0.5)))["own1"] == value
    assert told(grouped([0.5, kind(value)]))["own2"] == value


@pytest.mark.parametrize("value", NONE, ids=repr)
def test_what_is_no_number_is_left_out(value: Any) -> None:
    assert set(told(grouped(value))) == {"lr", "momentum", "dampening", "weight_decay"}
    assert set(told(grouped((value, 0.5)))) == {"lr", "momentum", "dampening", "weight_decay", "own2"}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_rate_of_any_kind_is_what_step_sizes_are_measured_by(kind: Callable[[float], Any]) -> None:
    p = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([{"params": [p], "name": "g", "lr": 0.25}])
    optimizer.param_groups[0]["lr"] = kind(0.25)
    p.grad = torch.full((4,), 2.0)

    def step(self: Any = optimizer) -> None:
        with torch.no_grad():
            p.sub_(0.25 * p.grad)

    plain = type(optimizer).step
    type(optimizer).step = torch.optim.Optimizer.profile_hook_step(lambda self, closure=None: step())
    type(optimizer).step.hooked = True
    try:
        with Observer(optimizer, None, every=ALL) as observer:
            optimizer.step()
    finally:
        type(optimizer).step = plain
    assert observer.last is not None
    for statistic in ("step_size", "step_size_low", "step_size_high"):
        assert observer.last.groups["g"][statistic] == pytest.approx(2.0)


CHANGES: list[Callable[[dict[str, Any], float], None]] = [
    lambda group, value: group.update(lr=value),
    lambda group, value: group.update(lr=np.float64(value)),
    lambda group, value: group.update(lr=torch.tensor(value)),
    lambda group, value: group["tensor"].fill_(value),
    lambda group, value: group["array"].fill(value),
    lambda group, value: group["pair"][0].fill_(value),
    lambda group, value: group["list"].__setitem__(1, value),
    lambda group, value: group.update(pair=(torch.tensor(value), 0.5)),
    lambda group, value: group.update(new=value),
    lambda group, value: group.pop("new", None),
]


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(range(len(CHANGES))), st.floats(0, 1, width=32))))
def test_what_changes_between_two_steps_is_read_anew(changes: list[tuple[int, int, float]]) -> None:
    optimizer = torch.optim.SGD(
        [
            {
                "params": [nn.Parameter(torch.ones(2))],
                "name": name,
                "tensor": torch.tensor(0.5),
                "array": np.array(0.5),
                "pair": (torch.tensor(0.5), 0.5),
                "list": [0.5, 0.5],
            }
            for name in "ab"
        ],
        lr=0.5,
    )
    grouping, values = Grouping(optimizer, "group"), Values()
    values.read(grouping.snapshot())
    for which, change, value in changes:
        CHANGES[change](optimizer.param_groups[which], value)
        fresh = Values().read(grouping.snapshot())
        assert values.read(grouping.snapshot()) == fresh
        key = ("lr", "lr", "lr", "tensor", "array", "pair1", "list2", "pair1", "new", "new")[change]
        assert float(fresh["ab"[which]].get(key, value)) == value


IN_PLACE: dict[str, tuple[Callable[[], Any], Callable[[Any], object], str]] = {
    "a tensor": (lambda: torch.tensor(0.5), lambda own: own.fill_(0.25), "own"),
    "an array": (lambda: np.array(0.5), lambda own: own.fill(0.25), "own"),
    "a tensor in a tuple": (lambda: (0.5, torch.tensor(0.5)), lambda own: own[1].fill_(0.25), "own2"),
    "a list": (lambda: [0.5, 0.5], lambda own: own.__setitem__(1, 0.25), "own2"),
}


@pytest.mark.parametrize(("made", "change", "key"), IN_PLACE.values(), ids=IN_PLACE)
def test_what_changes_in_place_is_read_anew_though_all_else_stays(
    made: Callable[[], Any], change: Callable[[Any], object], key: str
) -> None:
    optimizer = grouped(made())
    grouping, values = Grouping(optimizer, "group"), Values()
    assert float(values.read(grouping.snapshot())["g"][key]) == 0.5
    change(optimizer.param_groups[0]["own"])
    assert float(values.read(grouping.snapshot())["g"][key]) == 0.25


def test_a_number_in_whose_place_there_are_several_is_left_out() -> None:
    optimizer = grouped(0.5)
    grouping, values = Grouping(optimizer, "group"), Values()
    assert values.read(grouping.snapshot())["g"]["own"] == 0.5
    optimizer.param_groups[0]["own"] = torch.ones(2)
    assert "own" not in values.read(grouping.snapshot())["g"]


def test_a_tensor_rate_that_a_schedule_writes_into_is_recorded_step_by_step() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([p], lr=torch.tensor(1.0), foreach=False)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    rates = []
    with Observer(optimizer, None) as observer:
        for _ in range(4):
            p.grad = torch.ones(2)
            optimizer.step()
            scheduler.step()
            assert observer.last is not None
            rates.append(observer.last.values["group 0"]["lr"])
    assert rates == [1.0, 0.5, 0.25, 0.125]


@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.floats(0, 1, width=16)), min_size=1, max_size=4))
def test_of_groups_that_are_one_line_the_largest_value_stands(values: list[tuple[str, float]]) -> None:
    optimizer = grouped(0.0, len(values))
    for group, (kind, value) in zip(optimizer.param_groups, values, strict=True):
        group["own"], group["network"], group["name"] = KINDS[kind](value), "one", kind
    with Observer(optimizer, None, by="network") as observer:
        optimizer.step()
    assert observer.last is not None
    assert observer.last.values["one"]["own"] == max(value for _, value in values)


def test_numbers_of_other_packages_are_left_out_without_an_error() -> None:
    assert "own" not in told(grouped(Decimal("0.5")))
