"""Which laws a part has to obey, by what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.optim import Optimizer

from groupwise.balance.method import Method
from groupwise.errors import GroupwiseError
from groupwise.schedules import Schedule
from groupwise.testing.law import Law, all_of
from groupwise.testing.methods import method_laws
from groupwise.testing.optimizers import optimizer_laws
from groupwise.testing.schedules import schedule_laws


def laws_of(part: Method | Schedule | type[Optimizer], hyperparameters: Mapping[str, Any] | None = None) -> list[Law]:
    """The laws of a balancing method, a schedule or an optimizer class, to call or to parametrize a test over.

    Args:
        part: the method or schedule, as a value, or the class of an optimizer. A bare callable is not a method yet:
            say its shape with `FromLosses`, `FromGramian` or `FromJacobian`.
        hyperparameters: for an optimizer class only, what to build it with (by default a learning rate of 1e-2).

    Raises:
        GroupwiseError: the part is none of the three.
    """
    if hyperparameters is not None and not isinstance(part, type):
        raise GroupwiseError(f"hyperparameters are for optimizer classes; {part!r} is a value that has its own")
    return list(_laws(part, hyperparameters))


def check(part: Method | Schedule | type[Optimizer], hyperparameters: Mapping[str, Any] | None = None) -> None:
    """Check every law of a part (see `laws_of`). Raises one `LawBroken` that names all that were broken."""
    all_of(laws_of(part, hyperparameters))


def _laws(part: object, hyperparameters: Mapping[str, Any] | None) -> Iterator[Law]:
    if isinstance(part, Method):
        return method_laws(part)
    if isinstance(part, Schedule):
        return schedule_laws(part)
    if isinstance(part, type) and issubclass(part, Optimizer):
        return optimizer_laws(part, hyperparameters)
    raise GroupwiseError(
        f"{part!r} is no balancing method, no schedule and no optimizer class, so no laws are known for it"
        + ("; say what it takes: FromLosses(f), FromGramian(f) or FromJacobian(f)" if callable(part) else "")
    )
