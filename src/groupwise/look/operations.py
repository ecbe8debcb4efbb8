"""From operations to uses: what each of torch's operations does with the parameters that it is given.

A table by name of operation, since torch has few that matter: products, convolutions, gathers, norms, elementwise
ones, joins, reductions. Weight norm, low-rank additions and `exp(logit_scale)` are seen through, since what is computed
from parameters alone stays a form of them. An operation that is in no row and mixes parameters with data is opaque.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from groupwise.look import elementwise, names, places, products
from groupwise.look.flow import Flow
from groupwise.look.operation import Given, Handler, Operation, is_answer, of_data, of_parameters, plain, used
from groupwise.look.provenance import CONSTANT, Value, joined


def observe(operation: Operation, flow: Flow) -> Value:
    """Record what an operation uses; what is known of its results."""
    flow.operation = operation.name
    operation = _with_looked_up_rows(operation, flow)
    if not operation.formed:
        found = of_data(operation, flow)
    else:
        found = _TABLE.get(plain(operation.name), _other)(operation, flow)
    if found.is_data and is_answer(operation):
        found = replace(found, products=0, last=0, width=0)
    return found


def _with_looked_up_rows(operation: Operation, flow: Flow) -> Operation:
    """Rows of a table that meet other parameters are data, as a token's vector that a position's is added to."""
    if len(operation.formed) < 2 or plain(operation.name) not in names.MEETINGS:
        return operation
    return replace(operation, given=tuple(_looked_up(given, flow) for given in operation.given))


def _looked_up(given: Given, flow: Flow) -> Given:
    tables = [i for i, how in given.value.forms if how == "rows" and len(flow.records[i].shape) == 2]
    if not tables:
        return given
    flow.use(tables, "rows", CONSTANT)
    return replace(given, value=given.value.as_data())


def _reduced(operation: Operation, flow: Flow) -> Value:
    found = joined(given.value for given in operation.given)
    return _other(operation, flow) if found.is_data else found.formed("statistic")


def _other(operation: Operation, flow: Flow) -> Value:
    """An operation that is in no row."""
    found = of_parameters(operation)
    if not found.is_data:
        return found
    context = joined(given.value for given in operation.given if given.value.is_data)
    flow.opaquely((i for given in operation.given for i in used(given)), context)
    return replace(found, statistic=0, normed="")


_ROWS: Final[tuple[tuple[frozenset[str], Handler], ...]] = (
    (names.PRODUCTS, products.product),
    (names.CONVOLUTIONS, products.convolution),
    (names.RECURRENT, products.recurrent),
    (names.NORMS, elementwise.norm),
    (names.SCALES, elementwise.scaled),
    (names.SUMS, elementwise.added),
    (names.WEIGHT_NORMS, elementwise.weight_norm),
    (names.GATHERS, places.gathered),
    (names.JOINS, places.placed),
    (names.TAKEN_AS_DATA, places.as_data),
    (names.REDUCTIONS, _reduced),
)
_TABLE: Final[Mapping[str, Handler]] = {name: handler for row, handler in _ROWS for name in row}
