"""Many parameters before the selectors of one plan: what several selectors read is looked at once.

A model has thousands of parameters and a few dozen kinds of them: the shapes, roles and classes of one block are those
of the next. So an atom that reads nothing else is asked once for each kind, and only names are gone through one by one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import final

from groupwise.select.globs import dotted
from groupwise.select.info import ParameterInfo


@final
class ParameterTable:
    """Parameters by their position.

    `kinds` has the kind of each: equal where all is equal but names, depth and values. `samples` has one parameter of
    each kind, `first` the first name of each, `others` the rest of the names of those that have more than one.
    """

    def __init__(self, infos: Sequence[ParameterInfo]) -> None:
        self.infos = infos
        numbers: dict[Hashable, int] = {}
        self.kinds = [numbers.setdefault(_kind_of(info), len(numbers)) for info in infos]
        self.samples: dict[int, ParameterInfo] = {}
        for kind, info in zip(self.kinds, infos, strict=True):
            self.samples.setdefault(kind, info)
        self.first = [dotted(info.occurrences[0].name) for info in infos]
        self.others = {
            i: info.spellings[1:]
            for i, info in enumerate(infos)
            if len(info.occurrences) > 1 or info.occurrences[0].aliases
        }


def _kind_of(info: ParameterInfo) -> Hashable:
    occurrences = info.occurrences
    if len(occurrences) == 1:
        (only,) = occurrences
        return info.shape, info.roles, info.tags, info.part, only.kinds, only.ancestors, only.network
    places = tuple([(place.kinds, place.ancestors, place.network) for place in occurrences])
    return info.shape, info.roles, info.tags, info.part, places
