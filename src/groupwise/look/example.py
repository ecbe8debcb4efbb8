"""What a caller gives as an example, made into one thing: a function that runs the model on it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from groupwise.errors import SelectorError

Example: TypeAlias = "torch.Tensor | tuple[Any, ...] | Mapping[str, Any] | Callable[[Any], Any]"
"""A tensor, a tuple of arguments, a mapping of keyword arguments, or a function of the model."""

Model: TypeAlias = "torch.nn.Module | Mapping[str, torch.nn.Module | torch.Tensor]"

_FORMS = "a tensor, a tuple of arguments, a dict of keyword arguments, or a function that takes the model"


def caller_of(model: Any, inner: Any, example: Example) -> Callable[[torch.device | None], object]:
    """A function that runs the model once on the example, its tensors moved to a device unless that is None.

    Args:
        model: what a function is called with.
        inner: the module that is called with arguments: the model without wrappers.
        example: see `Example`.

    Raises:
        SelectorError: the example is of another form, or needs one module and the model is a mapping.
    """
    if isinstance(example, torch.nn.Module | type) or not _is_example(example):
        given = f"the {'class' if isinstance(example, type) else 'object'} {_name(example)}"
        raise SelectorError(f"example= takes {_FORMS}, not {given}")
    if callable(example) and not isinstance(example, torch.Tensor | Mapping | tuple):
        function = example
        return lambda device: function(model)
    if inner is None:
        raise SelectorError("a mapping of networks has no forward of its own: give example= a function that takes it")
    return lambda device: _called(inner, example, device)


def _is_example(example: object) -> bool:
    return isinstance(example, torch.Tensor | Mapping | tuple) or (
        callable(example) and not isinstance(example, list | set | str)
    )


def _called(module: Any, example: Any, device: torch.device | None) -> object:
    given = copy.copy(example) if device is None else _moved(example, device)
    if isinstance(given, Mapping):
        return module(**given)
    return module(*given) if isinstance(given, tuple) else module(given)


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.to(device)
    if isinstance(tree, Mapping):
        return {key: _moved(part, device) for key, part in tree.items()}
    if isinstance(tree, list | tuple) and type(tree) in (list, tuple):
        return type(tree)(_moved(part, device) for part in tree)
    return tree


def _name(example: object) -> str:
    return example.__name__ if isinstance(example, type) else type(example).__name__
