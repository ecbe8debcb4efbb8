"""Products, convolutions and recurrent layers: what multiplies data by a parameter.

Of `addmm` and the like one argument is added. A product of parameters alone (`B @ A`) is still a form of them. Among
factors the one that is no parameter is the data; what a convolution takes besides its weight and bias is data, too, and
parameters among it are tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from groupwise.look.elementwise import add
from groupwise.look.flow import Flow, Use
from groupwise.look.names import ADDED_TO, BATCHED
from groupwise.look.operation import Given, Operation, applied, entries, of_data, owners
from groupwise.look.places import as_input
from groupwise.look.provenance import CONSTANT, As, Value, joined


def product(operation: Operation, flow: Flow) -> Value:
    """A product of matrices."""
    added_name = ADDED_TO.get(operation.name, "")
    added = [given for given in operation.given if given.name == added_name]
    factors = [given for given in operation.given if given.name != added_name]
    formed = [given for given in factors if given.value.forms]
    if formed and len(formed) == len(factors):
        return _of_parameters(formed, added, flow)
    data = joined(given.value.as_data() for given in factors if not given.value.forms)
    multiplying = owners(formed, flow)
    for given in formed:
        chosen = data.chosen | given.value.chosen
        _multiply(operation, given, replace(data, chosen=chosen), flow)
    result = _multiplied(operation, formed, data, multiplying) if formed else of_data(operation, flow)
    return _with_added(added, result, flow)


def _of_parameters(factors: list[Given], added: list[Given], flow: Flow) -> Value:
    """`B @ A`: still a form of parameters, each of which is multiplied by."""
    if len(factors) == 1:  # a matrix times itself, by way of one argument
        return factors[0].value
    for given in factors:
        chosen = [i for i, how in given.value.forms if how == "itself"]
        flow.multiply([i for i in chosen if len(flow.records[i].shape) > 1], "matrix", CONSTANT)
    return joined([*(given.value for given in factors), *(given.value for given in added)])


def _multiply(operation: Operation, given: Given, data: Value, flow: Flow) -> None:
    gives = _features(operation)
    for i, how in given.value.forms:
        if len(flow.records[i].shape) > 2 and flow.records[i].sides < 2:  # a learnt query that meets keys
            flow.use([i], "token", data)
        elif how in ("itself", "rows", "curved"):
            flow.multiply([i], _kind_of_product(operation, given, how, flow.records[i].shape), data, gives)
        elif how != "statistic":
            flow.use([i], "scale" if how == "scale" else "bias", data)


def _kind_of_product(operation: Operation, given: Given, how: As, shape: tuple[int, ...]) -> Use:
    if len(shape) < 2:
        return "vector"
    if how == "rows" and len(shape) == 2:
        return "rows"
    if len(shape) == 2:
        return "matrix"
    is_slice = given.tensor.numel() < entries(shape)
    is_batch = operation.name in BATCHED and given.tensor.shape[0] > 1
    return "stack" if how == "rows" or is_slice or is_batch else "wide"


def _features(operation: Operation) -> int:
    return max((result.shape[-1] for result in operation.results if result.ndim), default=1)


def _multiplied(operation: Operation, factors: Iterable[Given], data: Value, multiplying: int) -> Value:
    factors = list(factors)
    batch = max((g.tensor.shape[0] for g in factors if operation.name in BATCHED and g.tensor.ndim > 2), default=1)
    last = applied(factors)
    return Value((), True, data.sources | multiplying, data.products | last, last, _features(operation) * batch)


def _with_added(added: Iterable[Given], result: Value, flow: Flow, bias: Use = "bias") -> Value:
    for given in added:
        result = add(given, result, flow, bias) if given.value.forms else joined([result, given.value])
    return result


def convolution(operation: Operation, flow: Flow) -> Value:
    """A convolution, with its bias."""
    by_name = {given.name: given for given in operation.given}
    data = as_input([given for given in operation.given if given.name not in ("weight", "bias")], flow)
    weight, bias = by_name.get("weight"), [by_name["bias"]] if "bias" in by_name else []
    if weight is None or not weight.value.forms:
        return _with_added(bias, of_data(operation, flow), flow, "conv bias")
    multiplying = flow.owners(weight.value.forms)
    for i, how in weight.value.forms:
        if how in ("itself", "curved"):
            flow.multiply([i], "conv" if len(flow.records[i].shape) > 2 else "matrix", data)
        elif how != "statistic":
            flow.use([i], "scale" if how == "scale" else "bias", data)
    width = operation.results[0].shape[1] if operation.results[0].ndim > 1 else 1
    last = applied([weight])
    result = Value((), True, data.sources | multiplying, data.products | last, last, width)
    return _with_added(bias, result, flow, "conv bias")


def recurrent(operation: Operation, flow: Flow) -> Value:
    """All of an LSTM in one operation."""
    formed = operation.formed
    data = joined(given.value.as_data() for given in operation.given if not given.value.forms)
    multiplying = 0
    for i in (i for given in formed for i, _ in given.value.forms):
        is_matrix = len(flow.records[i].shape) > 1
        (flow.multiply if is_matrix else flow.use)([i], "matrix" if is_matrix else "bias", data)
        multiplying |= (1 << i) if is_matrix else 0
    return Value((), True, data.sources | multiplying, data.products | multiplying, multiplying)
