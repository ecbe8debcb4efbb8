"""What is called with a wrong value says so itself: no traceback from inside of torch, pathlib or dataclasses.

Every public callable, and every public method of what people hold, is called with wrong types and values in place of
each argument. It may accept them (many do: `None` is often a default), or raise one of groupwise's errors, or Python's
own `TypeError` for a call that does not fit the signature.
"""

import dataclasses
import enum
import importlib
import inspect
import itertools
import math
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import Balancer, GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, scale
from groupwise.balance import CAGrad
from groupwise.errors import GroupwiseError
from groupwise.optim import parameters_of, resolve
from groupwise.schedules import cosine, plateau
from groupwise.select import role

PACKAGES = ("", ".select", ".schedules", ".plan", ".optim", ".balance", ".observe", ".audit", ".checkpoint", ".report",
            ".records", ".presets", ".look")  # fmt: skip
WRONG: list[Any] = [
    None, "text", "", -1, 0, math.nan, math.inf, 3.5, True, [], {}, (1, 2), [None], {"a": 1}, {"a": "b"}, b"x",
    "\ud800", object(), torch.zeros(2), lambda *_: 1, ValueError, 10**400,
]  # fmt: skip
MADE_BY_US = {
    "groupwise.select": {"Node", "Occurrence", "ParameterInfo", "OwnParameter", "Usage", "describe", "looked_at"},
    "groupwise.schedules": {"plateaus", "reduced"},
    "groupwise.plan": {"differences", "standings"},
    "groupwise.optim": {"NetworkView"},
    "groupwise.balance": {"Memory"},
    "groupwise.audit": {"Severity"},
    "groupwise.report": {"differences", "follow", "view"},
    "groupwise.records": {"finished_after", "Writer"},
    "groupwise.presets": {"misfit", "origin"},
}
"""What packages say to one another, in values that they have made: a user gets these and never makes them."""
TORCHS = "param_group must be a dict"
"""What torch raises of `add_param_group`, and its own tests ask for."""
OF_IMPLEMENTERS = {
    "schedule": {"curve", "curve_over", "expression", "value_in"},
    "balancer": {"method"},
    "selector": {"matches", "suggest"},
    "scheduler": {"write", "observe_all", "get_lr"},
    "optimizer": {"attach"},
    "plan": {"resolve"},
    "resolution": {"declaring_rules"},
}
"""Methods that groupwise calls, with values that it has made."""


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    for package in PACKAGES:
        module = importlib.import_module(f"groupwise{package}")
        for name in module.__all__:
            found = getattr(module, name)
            plain = isinstance(found, type) and issubclass(found, BaseException | enum.Enum)
            if not callable(found) or plain or inspect.isabstract(found) or not hasattr(found, "__qualname__"):
                continue
            if name not in MADE_BY_US.get(module.__name__, ()):
                yield f"{module.__name__}.{name}", found


PUBLIC = dict(public())


def wrong_calls(function: Callable[..., Any]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Calls with one wrong value in every place, with two in turn, and with one in each optional argument."""
    parameters = inspect.signature(function).parameters.values()
    placed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = max(1, sum(p.kind in placed and p.default is p.empty for p in parameters))
    for value in WRONG:
        yield [value] * needed, {}
    for one, other in itertools.product(WRONG[:9], WRONG[9:14]):
        yield [one] * (needed - 1) + [other], {}
    for parameter in parameters:
        if parameter.kind not in (placed[0], parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            for value in WRONG:
                yield ["text"] * needed, {parameter.name: value}


def foreign(call: Callable[[], Any]) -> str:
    """The error of a call that is neither ours nor Python's for a signature; empty if there is none."""
    try:
        made = call()
        if isinstance(made, types.GeneratorType):
            list(itertools.islice(made, 3))
    except GroupwiseError:
        return ""
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        unfit = isinstance(error, TypeError) and (
            ("argument" in str(error) and "()" in str(error)) or TORCHS in str(error)
        )
        return "" if unfit else f"{type(error).__name__}: {error} ({frames[-1].filename}:{frames[-1].lineno})"
    return ""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own: many texts are paths."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_callable_refuses_a_wrong_value_in_its_own_words(name: str) -> None:
    function = PUBLIC[name]
    for args, kwargs in wrong_calls(function):
        said = foreign(lambda args=args, kwargs=kwargs: function(*args, **kwargs))  # type: ignore[misc]
        assert not said, (args, kwargs, said)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


PLAN = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-3), weight_decay=0.0), Rule("0", lr=plateau(1e-3))])
SGD = Plan([Rule("*", optimizer="SGD", lr=0.1)])
HELD: dict[str, Callable[[], Any]] = {
    "optimizer": lambda: GroupedOptimizer(network(), PLAN),
    "view": lambda: GroupedOptimizer({"a": network()}, SGD).only("a"),
    "scheduler": lambda: PlanScheduler(GroupedOptimizer(network(), PLAN), total_steps=9),
    "plan": lambda: PLAN,
    "rule": lambda: PLAN.rules[0],
    "resolution": lambda: resolve(network(), PLAN),
    "schedule": lambda: cosine(1.0),
    "factor": lambda: scale(0.1),
    "selector": lambda: role("norm"),
    "info": lambda: parameters_of(network())[0],
    "balancer": lambda: Balancer(CAGrad()),
    "observer": lambda: Observer(GroupedOptimizer(network(), SGD), "run"),
}


def methods() -> list[tuple[str, str]]:
    found = []
    for what, make in HELD.items():
        inherited = set(dir(torch.optim.Optimizer)) - {"step", "load_state_dict", "add_param_group"}
        known = OF_IMPLEMENTERS.get(what, set()) | (inherited if what in ("optimizer", "view") else set())
        cls = Observer if what == "observer" else type(make())
        names = [name for name in dir(cls) if not name.startswith("_") and name not in known]
        found += [(what, name) for name in names if inspect.isfunction(inspect.unwrap(getattr(cls, name)))]
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("what", "name"), methods(), ids=str)
def test_a_method_of_what_people_hold_refuses_a_wrong_value_in_its_own_words(what: str, name: str) -> None:
    for args, kwargs in wrong_calls(getattr(held := HELD[what](), name)):
        if not (dataclasses.is_dataclass(held) or what in ("plan", "balancer")):
            getattr(held, "close", lambda: None)()
            held = HELD[what]()
        said = foreign(lambda args=args, kwargs=kwargs, held=held: getattr(held, name)(*args, **kwargs))  # type: ignore[misc]
        assert not said, (args, kwargs, said)
    getattr(held, "close", lambda: None)()
