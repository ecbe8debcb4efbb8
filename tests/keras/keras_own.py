"""Keras' own optimizer tests, which come with its package, with our optimizer in the place of each of Keras'.

In a test module every name of an optimizer class is replaced by a stand-in: called with the arguments of the class, it
makes a `GroupedOptimizer` of a plan of one rule that says the same, and `isinstance` with it asks whether a plan names
the class. What a stand-in has besides (class attributes) is the class's.
"""

import contextlib
import importlib
import inspect
import types
import unittest
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from groupwise import Plan, Rule, clip_norm, clip_value
from groupwise.keras import GroupedOptimizer

PACKAGE = "keras.src.optimizers"
SHARED = (
    "name", "use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps",
)  # fmt: skip
_made: list[str] = []
AROUND = ("LossScaleOptimizer", "MultiOptimizer")


@dataclass(frozen=True)
class Run:
    """What came of the tests of one module, by `Class.test`.

    Args:
        made: how many optimizers of ours they made.
    """

    ran: tuple[str, ...]
    failed: dict[str, str]
    made: int


def modules() -> tuple[str, ...]:
    """The names of Keras' test modules of single optimizers."""
    folder = Path(str(importlib.import_module(PACKAGE).__file__)).parent
    return tuple(sorted(path.stem for path in folder.glob("*_test.py") if not path.stem.startswith("multi_")))


def run(name: str, uncompiled: Collection[str] = ()) -> Run:
    """Run the tests of one module with ours in place; those of `uncompiled` without what jax would compile."""
    module = _imported(name)
    for key, value in list(vars(module).items()):
        if replaced := _replaced(value):
            setattr(module, key, replaced)
    before = len(_made)
    ran, failed = [], {}
    for test in _tests(unittest.defaultTestLoader.loadTestsFromModule(module)):
        key = ".".join(test.id().partition(" ")[0].split(".")[-2:])  # what follows are a case's arguments
        if _skipped(test):
            continue
        result = unittest.TestResult()
        with _eager(key in uncompiled):
            test.run(result)
        if not result.skipped:
            ran.append(key)
        if wrong := result.failures + result.errors:
            failed[key] = "\n".join(trace for _, trace in wrong)
    return Run(tuple(ran), failed, len(_made) - before)


class StandIn(type):
    """In the place of an optimizer class: what it makes is ours."""

    replaced: type[Any]

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        return planned(cls.replaced, *arguments, **keywords)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, GroupedOptimizer) and instance.plan.rules[0].optimizer == cls.replaced.__name__

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.replaced, name)


class Namespace:
    """In the place of `keras.optimizers`: its classes are stand-ins, and what `get` makes is ours."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return _replaced(value) or value

    def get(self, identifier: Any) -> Any:
        """Ours for what Keras' own `get` makes."""
        found = self._module.get(identifier)
        if not isinstance(found, keras.optimizers.Optimizer):
            return found
        config = identifier["config"] if isinstance(identifier, dict) else {}
        return planned(getattr(keras.optimizers, type(found).__name__), **config)


def _imported(name: str) -> types.ModuleType:
    """A test module, whose lists of cases are made of stand-ins too."""
    source = importlib.import_module("keras.src")
    real = source.optimizers
    source.optimizers = Namespace(real)
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    finally:
        source.optimizers = real


def planned(cls: type[Any], *arguments: Any, **keywords: Any) -> GroupedOptimizer:
    """Ours, with a plan of one rule that says what the arguments of `cls` say."""
    given = inspect.signature(cls.__init__).bind(None, *arguments, **keywords)
    given.apply_defaults()
    said = {name: value for name, value in given.arguments.items() if name not in ("self", "kwargs")}
    said = {name: value for name, value in (said | given.arguments.get("kwargs", {})).items() if value is not None}
    shared = {name: said.pop(name) for name in SHARED if name in said}
    shared["name"] = keywords.get("name", "grouped_optimizer")
    clip, rate = _clip(said), said.pop("learning_rate")
    constant = isinstance(rate, int | float)
    plan = Plan([Rule("*", optimizer=cls.__name__, lr=rate if constant else 1.0, **said)], clip=clip)
    _made.append(cls.__name__)
    if constant:
        return GroupedOptimizer(plan, learning_rate_as="rate", **shared)
    return GroupedOptimizer(plan, learning_rate=rate, **shared)


def _clip(said: dict[str, Any]) -> Any:
    norm, value, joint = (said.pop(name, None) for name in ("clipnorm", "clipvalue", "global_clipnorm"))
    if norm is not None:
        return clip_norm(norm, per="parameter")
    if joint is not None:
        return clip_norm(joint)
    return None if value is None else clip_value(value)


def _replaced(value: object) -> Any:
    """The stand-in for a class; None for what is not replaced."""
    if not isinstance(value, type) or not issubclass(value, keras.optimizers.Optimizer) or value.__name__ in AROUND:
        return None
    if not value.__module__.startswith(f"{PACKAGE}.") or value is keras.optimizers.Optimizer:
        return None
    return StandIn(value.__name__, (), {"replaced": value})


def _tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _tests(test)
        else:
            yield test


def _eager(now: bool) -> contextlib.AbstractContextManager[object]:
    return importlib.import_module("jax").disable_jit() if now else contextlib.nullcontext()


def _skipped(test: unittest.TestCase) -> bool:
    """Whether a mark of pytest says that the test is another backend's."""
    method = getattr(test, test._testMethodName)
    marks = [*getattr(method, "pytestmark", ()), *getattr(type(test), "pytestmark", ())]
    return any(mark.name == "skipif" and mark.args[0] for mark in marks)
