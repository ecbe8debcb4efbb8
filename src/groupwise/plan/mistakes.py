"""The mistakes of a plan on a model, reported together.

Who corrects one mistake only to be shown the next corrects a plan one run at a time. So whatever can still be checked
after a mistake is checked, and one error lists them all; a mistake that many parameters share is listed once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from groupwise.errors import GroupwiseError, ResolutionError

_MOST = 8


class Mistakes:
    """Collects errors; `raise_all` raises one that lists them all."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[GroupwiseError, list[str], str]] = {}

    @property
    def count(self) -> int:
        """How many different ones there are."""
        return len(self._found)

    @contextlib.contextmanager
    def collecting(self, *parameters: str, alike: str = "", place: str = "") -> Iterator[None]:
        """Collect an error of the block, which is about these parameters if any are named, and go on after it.

        Where several are told, each says its `place`, such as a line of a file.
        Errors of one text, but for the first parameter's name, are one mistake; so are those with one key `alike`.
        """
        try:
            yield
        except GroupwiseError as error:
            key = alike or (str(error).replace(repr(parameters[0]), "…") if parameters else str(error))
            self._found.setdefault(key, (error, [], place))[1].extend(parameters)

    def raise_all(self, mixed: type[GroupwiseError] = ResolutionError) -> None:
        """Raise what was collected: a single error as it is, several as one of their class, or of the class `mixed`."""
        found = list(self._found.values())
        if not found:
            return
        messages = [_message(error, parameters) for error, parameters, _ in found]
        kinds = {type(error) for error, *_ in found}
        kind = kinds.pop() if len(kinds) == 1 else mixed
        if len(found) == 1:
            raise kind(messages[0]) from found[0][0].__cause__
        places = [f"{place}: " if place else "" for *_, place in found]
        lines = [f"  {i}. {place}{text}" for i, (place, text) in enumerate(zip(places, messages, strict=True), 1)]
        rest = [f"  and {len(messages) - _MOST} more"] if len(messages) > _MOST else []
        raise kind("\n".join([f"{len(messages)} mistakes:", *lines[:_MOST], *rest]))


def _message(error: GroupwiseError, parameters: list[str]) -> str:
    others = list(dict.fromkeys(parameters))[1:]
    return f"{error} (the same for {others[0]!r}{_more(len(others) - 1)})" if others else str(error)


def _more(count: int) -> str:
    return f" and {count} more" if count else ""
