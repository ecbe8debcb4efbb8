"""Following the steps of one optimizer through torch's step hooks, without ever disturbing them.

torch walks through the dictionaries of an optimizer's hooks while a step runs, and raises in the middle of the user's
step if one of them changes meanwhile. So hooks that are removed are inert at once, and leave the dictionaries when no
step can be under way: not in this thread, and no other thread lives that has made any. That is mostly at once, else as
soon as anybody here adds or removes hooks. They are hooks of that optimizer alone. The registry that all optimizers of
the process share is not touched, since another thread may be walking through it at any time.

A class whose step calls its parent's runs its hooks twice; what is called here is called once, around the whole.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, final

import torch
from torch.utils.hooks import RemovableHandle

from groupwise._torch import steps_under_way, untraced

Hook: TypeAlias = Callable[[torch.optim.Optimizer, Any, Any], Any]
"""Called with the optimizer, the arguments of its step (itself first) and its keywords."""


@final
class StepHooks:
    """Bound methods that are called before and after each step of an optimizer.

    They are held weakly: hooks keep nobody alive, and go when the object goes that follows the steps.

    Args:
        optimizer: one whose class runs step hooks.
        before: may return other arguments and keywords for the step, as a pair.
        after: is not called where the step raises.

    Raises:
        AttributeError: the optimizer has no hooks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, before: Hook | None = None, after: Hook) -> None:
        _remove_late()
        self._methods = {"after": weakref.WeakMethod(after)}
        registered = Registered(weakref.ref(optimizer), [], set())
        registered.handles.append(optimizer.register_step_post_hook(_hook(self, "after", registered)))
        if before is not None:
            self._methods["before"] = weakref.WeakMethod(before)
            registered.handles.append(optimizer.register_step_pre_hook(_hook(self, "before", registered)))
        self._take_away = weakref.finalize(self, _take_away, registered)
        self._take_away.atexit = False

    def remove(self) -> None:
        """Call nobody any more; a second time does nothing."""
        self._methods = {}
        self._take_away()
        _remove_late()

    def method(self, name: str) -> Hook | None:
        """What is to be called, if there is anybody left."""
        found = self._methods.get(name)
        return None if found is None else found()


@final
class Registered(NamedTuple):
    """What stands in the dictionaries of an optimizer, and the threads that made its steps."""

    owner: weakref.ref[torch.optim.Optimizer]
    handles: list[RemovableHandle]
    threads: set[threading.Thread]


_late: Final[deque[Registered]] = deque()
"""Hooks that could not leave when they were removed."""


def _hook(hooks: StepHooks, name: str, registered: Registered) -> Hook:
    """A function, which a copy of the optimizer shares: there it does nothing."""
    weakly, last, alone = weakref.ref(hooks), 0, _steps_alone(registered.owner())

    def called(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        nonlocal last
        if (here := threading.get_ident()) != last:
            registered.threads.add(threading.current_thread())
            last = here
        live = weakly()
        method = None if live is None else live.method(name)
        if method is None or optimizer is not registered.owner():
            return None
        inner = not (alone and len(args) == 1 and not kwargs) and (steps_under_way(optimizer) or 1) > 1
        return None if inner else method(optimizer, args, kwargs)

    return lambda optimizer, args, kwargs: _call(called, optimizer, args, kwargs)


@untraced
def _call(hook: Hook, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
    """Call a hook: `torch.compile(optimizer.step)` leaves it as it is, a clock and a file being nothing to trace."""
    return hook(optimizer, args, kwargs)


def _steps_alone(optimizer: torch.optim.Optimizer | None) -> bool:
    """Whether a step of its class without a closure is certain to run no other one: no base has a step that it could
    call. Where it is not, the stack is walked through, which takes long right after a forward pass."""
    own = [base for base in type(optimizer).__mro__ if "step" in vars(base) and base is not torch.optim.Optimizer]
    return len(own) == 1


def _take_away(registered: Registered) -> None:
    optimizer, here = registered.owner(), threading.current_thread()
    others = any(thread is not here and thread.is_alive() for thread in registered.threads)
    if optimizer is not None and (others or steps_under_way(optimizer)):
        _late.append(registered)
        return
    for handle in registered.handles:
        handle.remove()


def _remove_late() -> None:
    with contextlib.suppress(IndexError):  # another thread was quicker
        for _ in range(len(_late)):
            _take_away(_late.popleft())
