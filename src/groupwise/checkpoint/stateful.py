"""Parts that know how to save themselves: schedulers, balancers, gradient scalers."""

from __future__ import annotations

import copy
from typing import Any, Protocol, final

from groupwise._spelling import shown
from groupwise.checkpoint.part import Part, Undo
from groupwise.errors import StateError


class Stateful(Protocol):
    """Anything with torch's pair of methods."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object: ...


@final
class StatefulPart(Part):
    """An object with `state_dict` and `load_state_dict`."""

    def __init__(self, owner: Stateful) -> None:
        if not callable(getattr(owner, "state_dict", None)) or not callable(getattr(owner, "load_state_dict", None)):
            raise StateError(f"{shown(owner)} has no state_dict and load_state_dict")
        self._owner = owner

    def capture(self) -> Any:
        return self._owner.state_dict()

    def check(self, saved: Any) -> None:
        if not isinstance(saved, dict):
            raise StateError(f"its state is {type(saved).__name__}, not a dict")

    def snapshot(self) -> Undo:
        before = copy.deepcopy(self._owner.state_dict())
        return lambda: _restore(self._owner, before)

    def apply(self, saved: Any) -> bool:
        self._owner.load_state_dict(saved)
        return True


def _restore(owner: Stateful, before: dict[str, Any]) -> None:
    owner.load_state_dict(before)
