"""Gradients switched off for a while, and what is said about them meanwhile.

A tensor does not tell who set its `requires_grad`. Whoever switches it off and on again would so undo what the user, or
the plan's own timeline, froze in between. So a tensor that is paused is, for that while, of a subclass of its class
whose one difference is that setting the flag first makes the tensor what it was. What still is of the subclass at the
end was not touched, and is switched on again; all else stays as it was set.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from typing import Any

import torch


def pause(p: torch.Tensor) -> Callable[[], None]:
    """Switch the gradient of `p` off; return what switches it on again unless somebody has set it in between."""
    cls, paused = type(p), _paused(type(p))
    p.requires_grad_(False)
    try:
        p.__class__ = paused
    except TypeError:  # a class that is laid out in a way of its own: there the flag alone is switched
        return functools.partial(_switch_on, p)

    def resume() -> None:
        if type(p) is paused:
            p.__class__ = cls
            _switch_on(p)

    return resume


def _switch_on(p: torch.Tensor) -> None:
    p.requires_grad_(True)


@functools.cache
def _paused(cls: Any) -> Any:
    """The subclass of a class of tensors; the same one each time, since a compiled graph is guarded by it."""

    flag: Any = torch.Tensor.requires_grad

    def set_flag(self: Any, requires_grad: bool) -> None:
        self.__class__ = cls
        self.requires_grad = requires_grad

    def requires_grad_(self: Any, requires_grad: bool = True) -> Any:
        self.__class__ = cls
        return self.requires_grad_(requires_grad)

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        self.__class__ = cls
        try:
            return copy.deepcopy(self, memo)
        finally:
            self.__class__ = _paused(cls)

    body = {
        "requires_grad": property(flag.__get__, set_flag),
        "requires_grad_": requires_grad_,
        "__deepcopy__": deepcopy,
        "__module__": cls.__module__,
        "__doc__": cls.__doc__,
    }
    return types.new_class(cls.__name__, (cls,), exec_body=lambda space: space.update(body))
