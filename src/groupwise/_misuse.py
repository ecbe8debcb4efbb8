"""Calls that do not fit a signature, where a habit of torch or of another library says what was meant.

Python's own `TypeError` names the function and the argument. That is enough for a typing mistake, and not for
`PlanScheduler(optimizer, T_max=1000)`: there the error says which argument it is here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from groupwise._spelling import shown
from groupwise.errors import GroupwiseError, listed, nearest

_P = ParamSpec("_P")
_T = TypeVar("_T")


def explained(
    error: type[GroupwiseError], name: str, meant: Mapping[str, str], positional: str = ""
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """A decorator: a call that does not fit the signature is an `error`.

    Args:
        error: its class.
        name: what the callable is called.
        meant: what to write in place of an argument that people give from habit.
        positional: what to write in place of too many arguments without a name.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return function(*args, **kwargs)
            except TypeError:
                reason = _misfit(inspect.signature(function), name, args, kwargs, meant, positional)
                if not reason:
                    raise
                raise error(reason) from None

        return checked

    return decorate


def _misfit(
    signature: inspect.Signature,
    name: str,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    meant: Mapping[str, str],
    positional: str,
) -> str:
    """Why a call does not fit, in words; empty if it does."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        strange = next((key for key in kwargs if key not in signature.parameters), None)
        known = [argument for argument in signature.parameters if argument != "self"]
        if strange is None and "too many positional" in str(error):
            return f"{name} does not take {shown(args[-1])} without a name: {positional or listed(known)}"
        if strange is None or any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            return f"{name}: {error}; its arguments are {listed(known)}"
        close = nearest(strange, known, limit=1)
        way_out = meant.get(strange) or (f"did you mean {close[0]}=?" if close else f"there is {listed(known)}")
        return f"{name} has no argument {strange}=: {way_out}"
    return ""
