"""The algorithms of Keras, and of anyone who subclasses its `Optimizer`, as the cascade needs them.

A bare name is one of `keras.optimizers`; `"package.module:Class"` is imported, or, where a saved model names it, has
been imported before. Hyperparameters go by Keras' own names, and by the neutral ones: `lr`, `beta1`, `beta2`, `eps`.
Names are translated, values never.

What the base class gives every optimizer besides (clipping, averaging, accumulation, loss scaling) happens once, around
the groups, so a rule cannot say it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any, final

import keras

from groupwise.errors import OptimizerError, unknown
from groupwise.plan import REQUIRED, Algorithm, Plan

NEUTRAL: Mapping[str, str] = {"lr": "learning_rate", "beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}
"""Neutral names of hyperparameters, and what Keras calls them."""

_AROUND_OTHERS = ("LossScaleOptimizer", "MultiOptimizer", "OptimizerMap", "GroupedOptimizer")
_ONCE = ("__init__", "__new__", "build", "get_config")


@final
class KerasAlgorithms(Mapping[str, Algorithm]):
    """Algorithms by name, looked up on first use. Classes given in the plan's rules are used as they are.

    Args:
        plan: whose rules may hold classes.
        trusted: whether classes of other packages may be imported; False for a plan that came with a saved model.
    """

    def __init__(self, plan: Plan, trusted: bool = True) -> None:
        given = {rule.optimizer: rule.algorithm_class for rule in plan.rules if rule.algorithm_class is not None}
        self._given: dict[str, type] = {str(name): cls for name, cls in given.items()}
        self._trusted = trusted
        self._known: dict[str, Algorithm] = {}

    def __getitem__(self, name: str) -> Algorithm:
        if name not in self._known:
            defaults = hyperparameters_of(self.class_of(name))
            aliases = {neutral: native for neutral, native in NEUTRAL.items() if native in defaults}
            self._known[name] = Algorithm(name, defaults, aliases)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def class_of(self, name: str) -> type[Any]:
        """The class called `name`. Raises `OptimizerError` if there is none or if it cannot serve a group."""
        cls = self._given[name] if name in self._given else _find(name, self._trusted)
        refusal = _refusal(cls)
        if refusal:
            raise OptimizerError(f"optimizer {name!r} cannot be used in a plan: {refusal}")
        return cls


def hyperparameters_of(cls: type[Any]) -> dict[str, object]:
    """What the constructor takes that is a group's own, with defaults (`REQUIRED` where none)."""
    found: dict[str, object] = {}
    for owner in cls.__mro__:
        if "__init__" not in owner.__dict__ or owner is object:
            continue
        arguments = inspect.signature(owner.__dict__["__init__"]).parameters
        for name, argument in arguments.items():
            if name not in _of_every_optimizer() and argument.kind not in (
                argument.VAR_POSITIONAL,
                argument.VAR_KEYWORD,
            ):
                found.setdefault(name, REQUIRED if argument.default is argument.empty else argument.default)
        if not any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values()):
            break
    return found


def takes_name(cls: type[Any]) -> bool:
    """Whether the constructor takes `name`, as all of Keras' own do."""
    arguments = inspect.signature(cls.__init__).parameters
    return "name" in arguments or any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())


def reads_in_step(cls: type[Any], name: str) -> bool:
    """Whether the update of `cls` reads its attribute `name`, so that a new value has an effect."""
    methods = ((key, value) for base in cls.__mro__ for key, value in vars(base).items() if key not in _ONCE)
    codes = (getattr(inspect.unwrap(value), "__code__", None) for _, value in methods if inspect.isfunction(value))
    return any(code is not None and _names(code, name) for code in codes)


def _names(code: CodeType, name: str) -> bool:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return name in code.co_names or any(_names(nested, name) for nested in inner)


@functools.cache
def _of_every_optimizer() -> frozenset[str]:
    constructors = [base.__dict__.get("__init__") for base in keras.optimizers.Optimizer.__mro__ if base is not object]
    named = (name for each in constructors if each is not None for name in inspect.signature(each).parameters)
    return frozenset(named) - {"learning_rate", "weight_decay"}


def _find(name: str, trusted: bool) -> type[Any]:
    module, _, attribute = name.rpartition(":")
    if not module:
        cls = getattr(keras.optimizers, name, None)
        if not isinstance(cls, type):
            elsewhere = '; any other is a class, or "package.module:Class"'
            raise OptimizerError(unknown("optimizer of keras.optimizers", name, _keras_names()) + elsewhere)
        return cls
    if module not in sys.modules and not trusted:
        raise OptimizerError(
            f"the saved model uses the optimizer {name!r}, and loading a model imports nothing: import {module} first"
        )
    cls = getattr(_imported(name, module), attribute, None)
    if not isinstance(cls, type):
        raise OptimizerError(f"optimizer {name!r}: {module!r} has no class {attribute!r}")
    return cls


def _imported(name: str, module: str) -> object:
    try:
        return sys.modules[module] if module in sys.modules else importlib.import_module(module)
    except ImportError as error:
        raise OptimizerError(f"optimizer {name!r}: cannot import {module!r} ({error})") from error


def _keras_names() -> list[str]:
    classes = ((name, getattr(keras.optimizers, name)) for name in dir(keras.optimizers))
    return [name for name, cls in classes if isinstance(cls, type) and not _refusal(cls)]


def _refusal(cls: type[Any]) -> str:
    """Why a class cannot serve a group; empty if it can."""
    if not issubclass(cls, keras.optimizers.Optimizer) or cls is keras.optimizers.Optimizer:
        return f"{cls.__name__} is not a subclass of keras.optimizers.Optimizer"
    if any(base.__name__ in _AROUND_OTHERS for base in cls.__mro__):
        return f"{cls.__name__} goes around other optimizers, so it is no algorithm for a group; put it around this one"
    return ""
