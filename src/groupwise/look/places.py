"""Gathers, joins and inputs: parameters that are looked up, stand beside data, or are taken as data.

Rows from a table that is looked up at once are data; of rows by any other index what follows tells what they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from groupwise.look.flow import Flow
from groupwise.look.names import LOOKUPS
from groupwise.look.operation import Given, Operation, plain, used
from groupwise.look.provenance import CONSTANT, Value, joined


def gathered(operation: Operation, flow: Flow) -> Value:
    """Rows by index."""
    tables = [given.value for given in operation.given if given.value.forms]
    data = joined(given.value for given in operation.given if given.value.is_data)
    made_of = [i for table in tables for i, how in table.forms if how != "statistic"]
    flow.look_up(made_of, data)
    if plain(operation.name) not in LOOKUPS:
        found = joined([value.formed("rows") for value in tables])
        return replace(found, chosen=found.chosen | data.chosen)
    flow.use(made_of, "embedding", data)
    return joined([*(table.as_data() for table in tables), data])


def placed(operation: Operation, flow: Flow) -> Value:
    """Parameters that stand beside data, or in places of it: tokens; a number for each head beside scores: scales."""
    data = [given.value for given in operation.given if given.value.is_data]
    if not data:
        return joined(given.value for given in operation.given)
    context = joined(data)
    for given in operation.given:
        is_spread = given.tensor.ndim > 1 and given.tensor.shape[-1] == 1
        for i in used(given):
            flow.use([i], "scale" if is_spread and flow.records[i].sides < 2 else "token", context)
    return joined([context, *(given.value.as_data() for given in operation.given if given.value.forms)])


def as_data(operation: Operation, flow: Flow) -> Value:
    """An operation that takes nothing but data."""
    return replace(as_input(operation.given, flow), statistic=0, normed="")


def as_input(given: Iterable[Given], flow: Flow) -> Value:
    """What an operation takes as data: parameters among it are tokens."""
    values = []
    for each in given:
        if each.value.forms:
            flow.use(used(each), "token", CONSTANT)
        values.append(each.value.as_data())
    return joined(values)
