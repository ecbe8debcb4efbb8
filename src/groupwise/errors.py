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
    ├── ProbeError                  a short run that cannot be made, or cannot go on
    └── LawBroken                   a part that is not what it has to be (`groupwise.testing`)

Code inside raises short; the public function adds, once, where it happened (`within`). A message says what was given,
what exists, the nearest match and the way out; the recurring parts of that sentence are worded here. What was given
may be of any length, so it is quoted by its ends (`shown`), and no message is longer than `LONGEST` characters or holds
what a terminal would obey.

What is wrong with what was given is an error of this tree. What the disk or the system refuses is an `OSError`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from groupwise._spelling import LONGEST, clipped, printable_lines, shown

_COMPARED = 200
_PLACE = 300


class _Message(Exception):
    """What is said in at most `LONGEST` characters, none of which a terminal would obey."""

    def __init__(self, *said: object) -> None:
        super().__init__(*(printable_lines(clipped(part, LONGEST)) if isinstance(part, str) else part for part in said))


class GroupwiseError(_Message):
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


class ProbeError(GroupwiseError, ValueError):
    """A short run that cannot be made, or cannot go on where it was."""


class LawBroken(GroupwiseError, AssertionError):
    """A method, a schedule or an optimizer class breaks a law that its kind has to obey (`groupwise.testing`)."""


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
    """Prefix any `GroupwiseError` raised inside with `where` ("rule 'backbone'", "plan.toml"), keeping its class."""
    try:
        yield
    except GroupwiseError as error:
        raise type(error)(f"{clipped(where, _PLACE)}: {error}") from error.__cause__


def nearest(given: object, options: Iterable[str], limit: int = 3, cutoff: float = 0.51) -> list[str]:
    """The options that look most like `given`, best first; case does not count, nor what follows 200 characters.

    Nothing looks like what is no text.

    `cutoff` is the least likeness, as `difflib` measures it.
    """
    import difflib  # where something is wrong

    spelled: dict[str, str] = {}
    for option in options:
        spelled.setdefault(option[:_COMPARED].lower(), option)
    if not isinstance(given, str):
        return []
    close = difflib.get_close_matches(given[:_COMPARED].lower(), spelled, n=limit, cutoff=cutoff)
    return [spelled[key] for key in close]


def listed(options: Iterable[str], limit: int = 12) -> str:
    """`a, b, c` with the tail counted once it grows long."""
    names = list(options)
    text = ", ".join(clipped(name) for name in names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"


def unknown(what: str, given: object, options: Iterable[str]) -> str:
    """The sentence for a name that does not exist: what was given, the nearest match, what exists."""
    known = list(options)
    close = nearest(given, known, limit=1)
    hint = f"; did you mean {shown(close[0])}?" if close else ""
    return f"unknown {what} {shown(given)}{hint} (there is: {listed(known) or 'none'})"


class GroupwiseWarning(_Message, UserWarning):
    """Something legal that is probably a mistake; said once."""
