"""Which parameters? Facts about parameters, and predicates over them.

`parameters_of(model)` tells what there is: names, roles, depth, shapes. A selector tells which of it is meant, by name
or by what it is, so that a rule written for one model still holds for the next. Standard library only: models are
walked by duck typing, and a tree of layers from any framework can be described (`describe`).
"""

from typing import TYPE_CHECKING

from groupwise import _lazy, _pickling
from groupwise.select.by_fact import depth, ndim, role, shape, size, tag
from groupwise.select.by_place import inside, kind, name, network, regex
from groupwise.select.by_value import magnitude, statistic, where
from groupwise.select.files import decode, encode
from groupwise.select.hints import nearest
from groupwise.select.info import ROLES, Basis, Occurrence, ParameterInfo
from groupwise.select.part import Part
from groupwise.select.selectors import Selector, select, selector
from groupwise.select.statistics import STATISTICS

if TYPE_CHECKING:
    from groupwise.select.described import describe
    from groupwise.select.tree import Node, OwnParameter
    from groupwise.select.usage import Usage, looked_at
    from groupwise.select.walk import parameters_of

__all__ = [
    "ROLES",
    "STATISTICS",
    "Basis",
    "Node",
    "Occurrence",
    "OwnParameter",
    "ParameterInfo",
    "Part",
    "Selector",
    "Usage",
    "decode",
    "depth",
    "describe",
    "encode",
    "inside",
    "kind",
    "looked_at",
    "magnitude",
    "name",
    "ndim",
    "nearest",
    "network",
    "parameters_of",
    "regex",
    "role",
    "select",
    "selector",
    "shape",
    "size",
    "statistic",
    "tag",
    "where",
]

_LAZY = {
    "Node": "tree",
    "OwnParameter": "tree",
    "Usage": "usage",
    "describe": "described",
    "looked_at": "usage",
    "parameters_of": "walk",
}
__getattr__ = _lazy.on_first_use(__name__, _LAZY)


def __dir__() -> list[str]:
    return __all__


_pickling.by_name(__name__, [name for name in __all__ if name not in _LAZY])
