"""The algorithms of torch, and of anyone who follows its constructor convention, as the cascade needs them.

`TorchAlgorithms` looks a name up once: the class behind it, what its constructor takes and with which defaults. A bare
name is one of `torch.optim`; `"package.module:Class"` is imported, which for plan files `Plan.load(allow=…)` has
permitted before.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Final

import torch

from groupwise.errors import OptimizerError, unknown
from groupwise.optim.borrowed import engine_class
from groupwise.plan import REQUIRED, Algorithm, Plan

_NOT_HYPERPARAMETERS = ("params", "param_groups", "defaults")  # bases of optimizers are built from `(params, defaults)`


class TorchAlgorithms(Mapping[str, Algorithm]):
    """Algorithms by name, looked up on first use. Classes given in the plan's rules are used as they are."""

    def __init__(self, plan: Plan) -> None:
        given = {rule.optimizer: rule.algorithm_class for rule in plan.rules if rule.algorithm_class is not None}
        self._given: dict[str, type] = {str(name): cls for name, cls in given.items()}
        self._classes: dict[str, type[torch.optim.Optimizer]] = {}
        self._engines: dict[str, type[torch.optim.Optimizer]] = {}
        self._known: dict[str, Algorithm] = {}

    def __getitem__(self, name: str) -> Algorithm:
        if name not in self._known:
            self._known[name] = Algorithm(name, hyperparameters_of(self.class_of(name)), takes_extra=True)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def class_of(self, name: str) -> type[torch.optim.Optimizer]:
        """The class called `name`. Raises `OptimizerError` if there is none or if it cannot be an engine."""
        if name not in self._classes:
            cls = self._given[name] if name in self._given else _find(name)
            refusal = _refusal(cls)
            if refusal:
                raise OptimizerError(f"optimizer {name!r} cannot be used in a plan: {refusal}")
            self._classes[name] = cls
        return self._classes[name]

    def engine_of(self, name: str) -> type[torch.optim.Optimizer]:
        """What engines of the class called `name` are built from: `groupwise.optim.borrowed.engine_class`."""
        if name not in self._engines:
            self._engines[name] = engine_class(self.class_of(name))
        return self._engines[name]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_engines": {}}


def hyperparameters_of(cls: type) -> dict[str, object]:
    """What the constructor of an optimizer class takes besides parameters, with defaults (`REQUIRED` where none).

    A constructor with `**kwargs` passes them on: the arguments of the next class in line count too.
    """
    found: dict[str, object] = {}
    for owner in cls.__mro__:
        if "__init__" not in owner.__dict__ or owner in (object, torch.optim.Optimizer):
            continue
        arguments = inspect.signature(owner.__dict__["__init__"]).parameters
        own = list(arguments.items())[1:]
        if own and arguments.keys().isdisjoint(_NOT_HYPERPARAMETERS) and _may_be_parameters(own[0][1]):
            own = own[1:]  # the parameters, whatever a class calls them
        for name, argument in own:
            if name in _NOT_HYPERPARAMETERS or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
                continue
            default = REQUIRED if argument.default is argument.empty else argument.default
            found.setdefault(name, default)
        if not any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values()):
            break
    return found


def _may_be_parameters(argument: inspect.Parameter) -> bool:
    """Whether a constructor's first argument may be the parameters under a name of its own: not a whole model's, nor
    another optimizer's.
    """
    required = argument.default is argument.empty and argument.kind is not argument.VAR_POSITIONAL
    return required and not any(word in argument.name.lower() for word in ("model", "module", "optim"))


def _find(name: str) -> type:
    module, _, attribute = name.rpartition(":")
    if not module:
        cls = getattr(torch.optim, name, None)
        if not isinstance(cls, type):
            raise OptimizerError(_unknown(name))
        return cls
    with _importing(name, module):
        cls = getattr(importlib.import_module(module), attribute, None)
    if not isinstance(cls, type):
        raise OptimizerError(f"optimizer {name!r}: {module!r} has no class {attribute!r}")
    return cls


_ELSEWHERE: Final = {
    "adamw8bit": "bitsandbytes.optim:AdamW8bit",
    "adam8bit": "bitsandbytes.optim:Adam8bit",
    "adamwschedulefree": "schedulefree:AdamWScheduleFree",
    "sgdschedulefree": "schedulefree:SGDScheduleFree",
    "lion": "lion_pytorch:Lion",
    "prodigy": "prodigyopt:Prodigy",
    "soap": "heavyball:SOAP",
    "lamb": "timm.optim:Lamb",
}
"""Optimizers that people know by their names alone, each as one of the packages that have it."""


def _unknown(name: str) -> str:
    other = _ELSEWHERE.get(name.lower())
    if other is not None:
        return f'torch.optim has no {name}; one of another package is "package.module:Class", as {other!r} is'
    return unknown("optimizer of torch.optim", name, _torch_names()) + '; any other is "package.module:Class"'


@contextlib.contextmanager
def _importing(name: str, module: str) -> Iterator[None]:
    """Raise whatever the import of anyone's module raises, an exit included, as an `OptimizerError`."""
    try:
        yield
    except (Exception, SystemExit) as error:
        what = f"optimizer {name!r}: cannot import {module!r}"
        raise OptimizerError(f"{what} ({type(error).__name__}: {error})") from error


def _torch_names() -> list[str]:
    classes = ((name, getattr(torch.optim, name)) for name in dir(torch.optim))
    return [name for name, cls in classes if isinstance(cls, type) and not _refusal(cls)]


def _refusal(cls: type) -> str:
    """Why a class cannot be an engine; empty if it can."""
    if not issubclass(cls, torch.optim.Optimizer) or cls is torch.optim.Optimizer:
        return f"{cls.__name__} is not a subclass of torch.optim.Optimizer"
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        return (
            f"{cls.__name__} evaluates the loss itself and treats all parameters as one vector, so it cannot share a "
            "step with other algorithms; use it on its own, through plain torch"
        )
    required = [name for name, default in hyperparameters_of(cls).items() if default is REQUIRED]
    inner = [name for name in required if name in ("optimizer", "base_optimizer")]
    if inner:
        return (
            f"{cls.__name__} goes around another optimizer (its argument {inner[0]!r}) and steps that one, so it is no "
            "algorithm for a group; put it around the GroupedOptimizer if it takes one, or use it through plain torch"
        )
    return ""
