"""What every command does first: read the plan, then build the model, then put the two together.

In this order, so that a mistake in the plan is told before torch is imported, and before a large model is built.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupwise.cli.collector import leave_out_what_is_imported
from groupwise.errors import OptimizerError, ResolutionError, within
from groupwise.plan import Plan
from groupwise.presets import misfit, names, origin, preset

if TYPE_CHECKING:
    from groupwise.plan import Resolution


def resolved(plan: Path, model: str, allow: Sequence[str], example: str | None = None) -> Resolution:
    """The plan file on the model that the factory `model` makes, looked at on an example if one is named.

    Raises `GroupwiseError` for whatever does not fit.
    """
    return resolved_all([plan], model, allow, example)[0]


def resolved_all(
    plans: Sequence[Path], model: str, allow: Sequence[str], example: str | None = None
) -> tuple[Resolution, ...]:
    """Several plan files on one model, which is made once. Raises `GroupwiseError` for whatever does not fit."""
    read = [Plan.load(plan, allow) for plan in plans]
    from groupwise.cli.factory import current_directory_first, load_example, load_model
    from groupwise.optim import resolve

    leave_out_what_is_imported()
    with current_directory_first():
        made = load_model(model)
        found = None if example is None else load_example(example)
        return tuple(_resolved(resolve, *each, made, found) for each in zip(plans, read, strict=True))


def _resolved(resolve: Callable[..., Resolution], path: Path, plan: Plan, model: Any, example: Any) -> Resolution:
    with within(str(path)), _expected(path, model, example):
        return resolve(model, plan, example)


@contextlib.contextmanager
def _expected(plan: Path, model: Any, example: Any) -> Iterator[None]:
    """Say, where a plan that began as a preset does not fit the model, what that preset expects and what there is."""
    try:
        yield
    except (ResolutionError, OptimizerError) as error:
        with plan.open(encoding="utf-8") as file:
            name = origin(file.readline())
        if name not in names():
            raise
        from groupwise.look import parameters_of

        said = misfit(preset(name), parameters_of(model, example=example))
        raise type(error)(f"{error}; {said}") from error.__cause__
