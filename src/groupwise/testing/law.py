"""A law is a sentence and a way to find it broken.

A library's parts are tested by what is true of all of them, not by what one of them returned yesterday: a method does
not care in what order the tasks come, a schedule does not advance by itself, a class under a plan steps as alone. A law
holds a part and looks for a counterexample over samples that are the same on every machine; calling it says nothing, or
raises `LawBroken` with the sample that broke it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import final

from groupwise.errors import GroupwiseError, LawBroken


@final
@dataclass(frozen=True)
class Law:
    """One law of one part. `law()` looks for a counterexample; `str(law)` is its name, for `ids=str`.

    Attributes:
        part: what it is about, in words: `CAGrad(c=0.4)`.
        name: the law in a few words: `the order of the tasks does not matter`.
        search: raises `LawBroken` with the first counterexample.
    """

    part: str
    name: str
    search: Callable[[], None]

    def __call__(self) -> None:
        """Raises `LawBroken` where the law does not hold."""
        try:
            self.search()
        except GroupwiseError as error:
            raise LawBroken(f"{self.part} breaks the law that {self.name}: {error}") from error

    def __str__(self) -> str:
        return self.name


def demand(holds: bool, otherwise: str) -> None:
    """Raise `LawBroken(otherwise)` unless it holds."""
    if not holds:
        raise LawBroken(otherwise)


def all_of(laws: Iterable[Law]) -> None:
    """Check every law, and raise one `LawBroken` that names every law that was broken."""
    messages = [str(broken) for broken in map(_broken, laws) if broken is not None]
    demand(not messages, "\n".join(messages))


def _broken(law: Law) -> LawBroken | None:
    try:
        law()
    except LawBroken as broken:
        return broken
    return None
