"""The laws of balancing methods: what each of them owes, and what this one claims besides.

A method is called as a balancer calls it, with rows of some tasks, their names, and a `Memory`. For a loss method the
gradients are those that its weights multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from groupwise.balance.method import Method
from groupwise.testing import balancing, properties
from groupwise.testing.claimed import CLAIMED
from groupwise.testing.law import Law

Search = Callable[[Method], None]

OWED: dict[str, Search] = {
    "the same inputs give the same update": properties.pure,
    "the update is finite on every scale": properties.finite,
    "one task is left its direction": properties.along,
    "a task that is absent has no say": properties.absent,
    "a run that was saved goes on to the last bit": properties.resumes,
    "a balancer that was saved goes on to the last bit": balancing.resumed,
    "a scaler for mixed precision makes no difference": balancing.scaled,
    "an update that fails leaves no trace": balancing.untouched,
    "a layer may be unfrozen in mid-run": balancing.unfrozen,
}


def method_laws(method: Method) -> Iterator[Law]:
    """Every law that this method has to obey: those of all methods, and one for each of its claims."""
    claimed = {claim.value: search for claim, search in CLAIMED.items() if claim in method.properties}
    for name, search in {**OWED, **claimed}.items():
        yield Law(repr(method), name, _bound(search, method))


def _bound(search: Search, method: Method) -> Callable[[], None]:
    return lambda: search(method)
