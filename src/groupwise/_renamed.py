"""Names of earlier versions: each is an error that names the new one."""

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
    """A decorator: an argument that is called by one of the keys is an `error`, which names the new one."""

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            if old := new_names.keys() & kwargs.keys():
                raise error(listed(f"{name}= is called {new_names[name]}= now" for name in new_names if name in old))
            return function(*args, **kwargs)

        return checked

    return decorate


def renamed_in(package: str, new_names: Mapping[str, str], found: Callable[[str], object]) -> Callable[[str], object]:
    """A `__getattr__` for a package: one of the keys is a `GroupwiseError`, which names the new one; the rest is
    `found`."""

    def known(name: str) -> object:
        if name in new_names:
            raise GroupwiseError(f"{package}.{name} is called {new_names[name]} now")
        return found(name)

    return known


def refuse_renamed(cls: type, error: type[GroupwiseError], new_names: Mapping[str, str]) -> None:
    """Raise an `error` if `cls` defines something by an old name, which nothing would call any more."""
    if old := [name for name in new_names if name in vars(cls)]:
        raise error(f"{cls.__name__}: {listed(f'{name} is called {new_names[name]} now' for name in old)}")
