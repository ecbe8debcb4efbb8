"""One tree of errors.

    GroupwiseError                  whatever this library raises on purpose
    ├── PlanError                   a plan, a rule or a plan file that cannot be read
    │   ├── SelectorError           a selector that cannot be built or decoded
    │   └── ScheduleError           a schedule or a length that cannot be built or decoded
    │       └── LengthError         a length whose unit needs a number that was not given
    ├── ResolutionError             a plan that does not fit the model
    ├── OptimizerError              an algorithm, a gradient or a call that the optimizer refuses
    ├── StateError                  a checkpoint that does not fit the optimizer
    ├── BalanceError                tasks, losses or a balancing method that cannot be combined
    ├── RecordError                 a run that cannot be written or read
    ├── AuditError                  a program that cannot be audited
    └── LawBroken                   a part that is not what it has to be (`groupwise.testing`)

Code inside raises short; the public door adds, once, where it happened (`within`). A message says what was given,
what exists, the nearest match and the way out; the recurring parts of that sentence are worded here.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class GroupwiseError(Exception):
    """Base of every error that groupwise raises on purpose."""


class PlanError(GroupwiseError, ValueError):
    """A plan, a rule or a plan file cannot be read."""


class SelectorError(PlanError):
    """A selector cannot be built or decoded."""


class ScheduleError(PlanError):
    """A schedule or a length cannot be built or decoded."""


class LengthError(ScheduleError):
    """A length is in a unit (percent, epochs) whose size nobody gave."""


class ResolutionError(GroupwiseError, ValueError):
    """A plan does not fit the model it is resolved against."""


class OptimizerError(GroupwiseError, ValueError):
    """An algorithm, a gradient or a call that the optimizer refuses."""


class StateError(GroupwiseError, ValueError):
    """A checkpoint does not fit the optimizer that loads it."""


class BalanceError(GroupwiseError, ValueError):
    """Tasks, losses or a balancing method that cannot be combined."""


class RecordError(GroupwiseError, ValueError):
    """A run that cannot be written or read."""


class AuditError(GroupwiseError, ValueError):
    """A program that cannot be audited."""


class LawBroken(GroupwiseError, AssertionError):
    """A method, a schedule or an optimizer class breaks a law that its kind has to obey (`groupwise.testing`)."""


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
    """Prefix any `GroupwiseError` raised inside with `where` ("rule 'backbone'", "plan.toml"), keeping its class."""
    try:
        yield
    except GroupwiseError as error:
        raise type(error)(f"{where}: {error}") from error.__cause__


def nearest(given: str, options: Iterable[str], limit: int = 3) -> list[str]:
    """The options that look most like `given`, best first; case does not count."""
    spelled: dict[str, str] = {}
    for option in options:
        spelled.setdefault(option.lower(), option)
    return [spelled[key] for key in difflib.get_close_matches(given.lower(), spelled, n=limit, cutoff=0.5)]


def listed(options: Iterable[str], limit: int = 12) -> str:
    """`a, b, c` with the tail counted once it grows long."""
    names = list(options)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def unknown(what: str, given: str, options: Iterable[str]) -> str:
    """The sentence for a name that does not exist: what was given, the nearest match, what exists."""
    known = list(options)
    close = nearest(given, known, limit=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {given!r}{hint} (there is: {listed(known) or 'none'})"


class GroupwiseWarning(UserWarning):
    """Something legal that is probably a mistake; said once."""
