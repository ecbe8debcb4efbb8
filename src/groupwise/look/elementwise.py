"""Sums, elementwise products and norms: biases, scales, tables, gains.

A parameter with data is used; with constants of no more entries, or with other parameters, it stays a form. What is
multiplied by a reduction of itself is normed, whoever wrote the norm: what scales it next is its gain, what is added
next its shift. A norm with a gain of its own is followed by scales as any other data is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from groupwise.look.flow import Flow, Use
from groupwise.look.operation import Given, Operation, of_data, plain
from groupwise.look.places import as_input
from groupwise.look.provenance import As, Norming, Value, bits, indices, joined


def norm(operation: Operation, flow: Flow) -> Value:
    """A norm in one operation; of a weight that is standardised by one, the form of it."""
    if all(given.value.forms or not given.value.is_data for given in operation.given):
        return joined(g.value if g.name == "input" else g.value.formed("scale") for g in operation.given)
    data = as_input([given for given in operation.given if given.name == "input"], flow)
    for name, use in (("weight", "norm"), ("bias", "norm shift")):
        for given in operation.given:
            if given.name == name:
                flow.use([i for i, _ in given.value.forms], use, data)  # type: ignore[arg-type]
    last = {given.name for given in operation.given if given.name in ("weight", "bias")}
    gains = bits(i for given in operation.given if given.name in last for i, _ in given.value.forms)
    normed: Norming = "" if "bias" in last else "gained" if last else "unit"
    return replace(data, sources=data.sources | gains, normed=normed, statistic=0)


def weight_norm(operation: Operation, flow: Flow) -> Value:
    """`g * v / |v|` in one operation, of (v, g)."""
    direction, *lengths = operation.given
    return joined([direction.value, *(given.value.formed("scale") for given in lengths)])


def added(operation: Operation, flow: Flow) -> Value:
    """A sum."""
    return _elementwise(operation, flow, add, "shift")


def scaled(operation: Operation, flow: Flow) -> Value:
    """A product element by element, or another operation that a parameter is the measure of."""
    return _elementwise(operation, flow, _scale, "scale")


def _elementwise(operation: Operation, flow: Flow, apply: Callable[[Given, Value, Flow], Value], smaller: As) -> Value:
    formed = operation.formed
    others = [given for given in operation.given if not given.value.forms]
    if _is_statistic_of(formed, others):
        return joined(given.value for given in formed)
    if any(given.value.is_data or given.tensor.numel() > _entries(formed) for given in others):
        result = _of_others(operation, others, flow)
        for given in formed:
            result = apply(given, result, flow)
        return result
    return joined(_as_factor(operation, given, formed, smaller) for given in formed)


def _of_others(operation: Operation, others: list[Given], flow: Flow) -> Value:
    """What comes of those that are no parameters, before the parameters join."""
    if len(others) == 1:
        return others[0].value.as_data()
    return of_data(replace(operation, given=tuple(others)), flow).as_data()


def _as_factor(operation: Operation, given: Given, formed: list[Given], smaller: As) -> Value:
    """A form of parameters beside others: the smaller one of them changes the larger, a curved or dividing one, too."""
    if given.tensor.numel() < operation.size:
        return given.value.formed(smaller)
    beside = any(how == "itself" for other in formed if other is not given for _, how in other.value.forms)
    divides = plain(operation.name) in ("div", "true_divide") and given is not formed[0]
    if beside and smaller == "scale" and (divides or all(how != "itself" for _, how in given.value.forms)):
        return given.value.formed("scale")
    return given.value


def _is_statistic_of(formed: Iterable[Given], others: Iterable[Given]) -> bool:
    """Whether the data among `others` comes of the same parameters alone, as the norm that a weight is divided by."""
    data = [given.value for given in others if given.value.is_data]
    sources = joined(data).sources
    return bool(sources) and not sources & ~bits(i for given in formed for i, _ in given.value.forms)


def _entries(formed: Iterable[Given]) -> int:
    return max(given.tensor.numel() for given in formed)


def add(given: Given, data: Value, flow: Flow, bias: Use = "bias") -> Value:
    """A parameter added to data."""
    sources = flow.owners(given.value.forms)
    for i, how in given.value.forms:
        if how == "statistic":
            continue
        record = flow.records[i]
        is_table = record.sides > 1 and how != "shift" and record.numel != data.width
        is_table = is_table and not (how == "rows" and _came_of_a_stack(data, flow))
        use: Use = "norm shift" if data.normed and record.sides == 1 and how == "itself" else bias
        if is_table:
            use = "rows" if how == "rows" else "table"
        flow.add([i], use if how != "scale" else "scale", data)
    return replace(data, sources=data.sources | sources, statistic=0, normed="")


def _came_of_a_stack(data: Value, flow: Flow) -> bool:
    """Whether the last product was with one of several matrices, each of which may have a bias of its own."""
    return any("stack" in flow.records[i].uses for i in indices(data.last))


def _scale(given: Given, data: Value, flow: Flow) -> Value:
    sources, normed = flow.owners(given.value.forms), data.normed
    for i, how in given.value.forms:
        if how == "statistic":
            continue
        record = flow.records[i]
        is_norm = data.normed == "unit" and record.sides == 1 and how == "itself"
        use: Use = "norm" if is_norm else "bias" if how == "shift" else "scale"
        if how == "rows" and record.sides > 1:
            use = "rows"
        normed = "gained" if is_norm else normed
        flow.use([i], use, data)
    return replace(data, sources=data.sources | sources, statistic=0, normed=normed)
