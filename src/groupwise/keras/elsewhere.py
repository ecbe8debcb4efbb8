"""Attributes that Keras gives every optimizer, and that a plan says otherwise.

Keras reads them in its own update, which does not run here: an assignment would have no effect, and say nothing.
"""

from __future__ import annotations

from typing import Any

from groupwise.errors import OptimizerError


def in_the_plan(name: str, way: str) -> Any:
    """An attribute that is None, and can be nothing else; `way` is how a plan says it."""

    def assign(optimizer: object, value: object) -> None:
        if value is not None:
            raise OptimizerError(f"optimizer.{name} = {value!r} has no effect: the plan says it, with {way}")

    return property(lambda optimizer: None, assign)
