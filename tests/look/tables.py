"""Tables of what every parameter of a model is, written by hand, and what differs from one.

A line is a pattern of names (`#` is a number, `?` one character, `*` anything), the level (`n` is the first number in
the name), and roles. The first line that fits counts, and each parameter has one.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from groupwise.select import ParameterInfo


def expected(table: str, name: str) -> tuple[int, set[str]]:
    """Level and roles of a parameter."""
    number = re.search(r"\.(\d+)(\.|$)", name)
    for line in filter(None, map(str.strip, table.splitlines())):
        pattern, level, *roles = line.split()
        regex = re.escape(pattern).replace(r"\#", r"\d+").replace("\\*", ".*").replace("\\?", ".")
        if re.fullmatch(regex, name):
            first, _, more = level.partition("+")
            return (int(number[1]) if first == "n" and number else int(first)) + int(more or 0), set(roles)
    raise AssertionError(f"no line for {name}")


def differences(
    model: nn.Module, infos: Iterable[ParameterInfo], table: str, names: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """What was found and what is right, by name, where they differ.

    `names` are those of the table, by identity, where the model has others; of what no operation used nothing is known
    then.
    """
    of = names or {id(parameter): name for name, parameter in model.named_parameters()}
    seen = [info for info in infos if names is None or (info.basis and info.basis.reached)]
    told = {of[id(info.parameter)]: (info.depth, info.roles) for info in seen}
    right = {name: expected(table, name) for name in told}
    return {
        name: (level, sorted(roles), *right[name])
        for name, (level, roles) in told.items()
        if (level, set(roles)) != right[name]
    }
