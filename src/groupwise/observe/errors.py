"""What becomes of an error while a step is observed.

An error in the middle of a record must leave neither the record half written nor the update half made, and whether it
may end a training is not for an observer to decide. So everything that can fail is attempted: what fails is put aside
until the rest is done, and then raised, or, if the observer was made so, warned of once and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, TypeVar, final

from groupwise._warning import warn
from groupwise.errors import RecordError, listed

OnError: TypeAlias = Literal["raise", "warn"]
T = TypeVar("T")

_WAYS: Final = ("raise", "warn")


@final
class Errors:
    """The errors of one observer. Raises `RecordError` for a choice that is none."""

    def __init__(self, on_error: OnError) -> None:
        if on_error not in _WAYS:
            raise RecordError(f"on_error={on_error!r}: it has to be one of {listed(map(repr, _WAYS))}")
        self._raises = on_error == "raise"
        self._aside: list[tuple[str, int, Exception]] = []
        self._often: Counter[str] = Counter()

    def attempt(self, what: str, step: int, act: Callable[..., T], *arguments: Any) -> T | None:
        """What `act` returns; None if it fails, which is put aside as the failure of `what` at a step."""
        try:
            return act(*arguments)
        except Exception as error:
            self._aside.append((what, step, error))
            return None

    def settle(self, quietly: bool = False) -> None:
        """Raise the first error that was put aside, or all of them; `quietly` where another error is on its way."""
        aside, self._aside = self._aside, []
        if aside and self._raises and not quietly:
            (_, _, first), *others = aside
            for what, step, error in others:
                first.add_note(f"{what} failed as well at step {step}: {type(error).__name__}: {error}")
            raise first
        for what, step, error in aside:
            self._tell(what, step, error)

    def close(self, quietly: bool) -> None:
        """Settle, and say how often something failed, where it was more than once."""
        self.settle(quietly)
        several = [f"{what} {count} times" for what, count in self._often.items() if count > 1]
        self._often.clear()
        if several:
            warn(f"in the whole run failed: {listed(several)}")

    def _tell(self, what: str, step: int, error: Exception) -> None:
        self._often[what] += 1
        if self._often[what] == 1:
            warn(
                f"{what} failed at step {step} ({type(error).__name__}: {error}); training goes on, and so does "
                "whatever else is recorded. This is said once"
            )
