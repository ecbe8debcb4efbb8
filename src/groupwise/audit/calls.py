"""Calls of torch's functions, passed on to callbacks.

torch has no hook for what a loop calls besides `step`: backward, clipping, an update of GradScaler. So these functions
stand wrapped in their modules, once for all listeners, from the first that comes until the last has gone, in whatever
order they go. A wrapper passes everything through, keywords included. It is never taken from under another one: where
somebody has wrapped the wrapper meanwhile, it stays inside, calls nothing, and goes when it is found on the outside.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeAlias, final

import torch

After: TypeAlias = Callable[[], None]
Listener: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any], FrameType], After | None]
"""Called before a call, with its arguments, its keywords and the frame that makes it. What it returns is called after
it, unless it raises."""


@final
class Calls:
    """The calls of `owner.name`, a module's function or a class's method."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name
        self._listeners: dict[int, weakref.WeakMethod[Listener]] = {}
        self._numbers = itertools.count()
        self._wrapper: Callable[..., Any] | None = None
        self._settling = threading.RLock()  # a collection of garbage may end listening in the middle of it

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call a bound method at every call from now on, while its object lives; returns what ends that."""
        number = next(self._numbers)
        end = functools.partial(self._end, number)
        self._listeners[number] = weakref.WeakMethod(listener, end)
        self._settle()
        return end

    def _end(self, number: int, *_: object) -> None:
        self._listeners.pop(number, None)
        self._settle()

    def _settle(self) -> None:
        """Have a wrapper while there are listeners, and none otherwise."""
        with self._settling:
            while bool(self._listeners) != (self._wrapper is not None):
                if self._wrapper is None:
                    self._wrapper = self._wrapping(getattr(self._owner, self._name))
                    setattr(self._owner, self._name, self._wrapper)
                else:
                    self._unwrap(self._wrapper)
                    self._wrapper = None

    def _unwrap(self, wrapper: Callable[..., Any]) -> None:
        if vars(self._owner).get(self._name) is wrapper:
            setattr(self._owner, self._name, wrapper.__wrapped__)

    def _live(self, wrapper: Callable[..., Any]) -> list[Listener]:
        """The callbacks of a wrapper. One that was left inside another's goes as soon as it is outside again."""
        if self._wrapper is not wrapper:
            self._unwrap(wrapper)
            return []
        found = [] if torch.compiler.is_compiling() else [held() for held in list(self._listeners.values())]
        return [listener for listener in found if listener is not None]

    def _wrapping(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1)
            afterwards = [listener(args, kwargs, caller) for listener in self._live(wrapper)]
            result = original(*args, **kwargs)
            for after in afterwards:
                if after is not None:
                    after()
            return result

        return wrapper
