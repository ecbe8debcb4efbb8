"""The pickle of a public value: the public name of its class and the arguments that make it anew.

Left to itself, pickle names the module in which a class happens to be defined, so a file that moves makes older pickles
unreadable; changing `__module__` instead would lead `inspect.getsource` and `typing.get_type_hints` astray. What is
written here is `pkgutil.resolve_name("groupwise.plan:scale")`, which is the standard library's, and plain arguments.

The faces of the packages register their classes (`by_name`); a class that is not public says itself which public call
makes it (`Public`). Subclasses that a user writes are pickled as ever.
"""

from __future__ import annotations

import copyreg
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Public:
    """A call of what stands under a public name, such as "groupwise.select:role", with some keywords given already.

    It is pickled as what stands there, or as the `functools.partial` of it.
    """

    path: str
    words: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, *arguments: object) -> Any:
        import pkgutil

        return pkgutil.resolve_name(self.path)(*arguments, **self.words)

    def __reduce__(self) -> tuple[Any, ...]:
        import pkgutil

        if not self.words:
            return pkgutil.resolve_name, (self.path,)
        bare = Public(self.path)
        return partial, (bare,), (bare, (), dict(self.words), None)


def by_name(package: str, names: Iterable[str]) -> None:
    """Pickle instances of a package's public classes by their names there: every frozen dataclass that can be made."""
    face = sys.modules[package]
    for name in names:
        cls = getattr(face, name)
        if isinstance(cls, type) and is_dataclass(cls) and not inspect.isabstract(cls) and _is_plain(cls):
            as_public(cls, f"{package}:{name}")


def public(path: str) -> Callable[[type[T]], type[T]]:
    """For a class that its package's face does not see (`groupwise._lazy`): `as_public`, as a decorator."""

    def marked(cls: type[T]) -> type[T]:
        as_public(cls, path)
        return cls

    return marked


def as_public(cls: type, path: str) -> None:
    """Pickle instances of one class as calls of what stands under a public name, which takes the same arguments."""
    copyreg.pickle(cls, partial(_reduced, path))


def _is_plain(cls: type) -> bool:
    """Whether its fields, which nobody changes, say everything, and it does not say itself how it is pickled."""
    frozen: bool = cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return frozen and not any("__reduce__" in vars(base) for base in cls.__mro__[:-1])


def _reduced(path: str, value: object) -> Reduced:
    places: list[object] = []
    words: dict[str, object] = {}
    for name, parameter in inspect.signature(type(value)).parameters.items():
        given = getattr(value, f"{name}_" if name not in _fields(value) else name)
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            words[name] = given
        else:
            places.append(given)
    return Public(path, words), tuple(places)


def _fields(value: object) -> Iterable[str]:
    fields: dict[str, Any] = type(value).__dataclass_fields__  # type: ignore[attr-defined]
    return fields.keys()
