"""Arguments that had another name in an earlier version: the old one is an error that names the new one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from groupwise.errors import GroupwiseError, listed

_P = ParamSpec("_P")
_T = TypeVar("_T")


def renamed(
    error: type[GroupwiseError], new_names: Mapping[str, str]
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """A decorator: an argument that is called by one of the keys is an `error`, which tells the new name."""

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            if old := new_names.keys() & kwargs.keys():
                raise error(listed(f"{name}= is called {new_names[name]}= now" for name in new_names if name in old))
            return function(*args, **kwargs)

        return checked

    return decorate
