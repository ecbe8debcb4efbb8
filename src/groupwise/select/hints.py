"""For a selector that matched nothing: what exists that looks like it. Each atom knows its own neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from groupwise.select.info import ParameterInfo
from groupwise.select.selectors import Match, checked_infos, selector


def nearest(chosen: Match, infos: Iterable[ParameterInfo], limit: int = 5) -> list[str]:
    """Up to `limit` things to offer in an error: globs that match, classes, roles, tags, numbers that occur.

    Where every part of an "and" matches something and only their combination is empty, the hint counts what
    each part matches alone. Empty where nothing is like it.
    """
    return list(islice(dict.fromkeys(selector(chosen).suggest(checked_infos(infos))), limit))
