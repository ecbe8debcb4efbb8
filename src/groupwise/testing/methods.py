"""The laws of balancing methods: those of every method, and one for each property of this one.

A method is called as a balancer calls it, with rows of some tasks, their names, and a `Memory`. For a loss method the
gradients are those that its weights multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from groupwise.balance.method import Method
from groupwise.testing import balancing, every_method
from groupwise.testing.law import Law
from groupwise.testing.properties import BY_PROPERTY

Search = Callable[[Method], None]

COMMON: dict[str, Search] = {
    "the same inputs give the same update": every_method.pure,
    "the update is finite on every scale": every_method.finite,
    "one task is left its direction": every_method.along,
    "a task that is absent has no say": every_method.absent,
    "a run that was saved goes on to the last bit": every_method.resumes,
    "a balancer that was saved goes on to the last bit": balancing.resumed,
    "a scaler for mixed precision makes no difference": balancing.scaled,
    "an update that fails leaves no trace": balancing.untouched,
    "a layer may be unfrozen in mid-run": balancing.unfrozen,
}


def method_laws(method: Method) -> Iterator[Law]:
    """Every law that this method has to obey: those of all methods, and one for each of its properties."""
    own = {name.value: search for name, search in BY_PROPERTY.items() if name in method.properties}
    for name, search in {**COMMON, **own}.items():
        yield Law(repr(method), name, _bound(search, method))


def _bound(search: Search, method: Method) -> Callable[[], None]:
    return lambda: search(method)
