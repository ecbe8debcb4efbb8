"""From uses to roles: what each use makes of a parameter, and in which operation."""

from __future__ import annotations

from typing import Final

from groupwise.look.flow import Flow, Record, Use
from groupwise.look.mixtures import Mixtures
from groupwise.look.provenance import bits

_ROLES: Final[dict[Use, tuple[tuple[str, ...], str]]] = {
    "conv": (("weight", "conv"), "a convolution multiplies by it"),
    "matrix": (("weight",), "a product multiplies by it"),
    "stack": (("weight", "stack"), "a product multiplies by each of its matrices"),
    "wide": (("weight",), "a product multiplies by it, flattened"),
    "vector": (("scalar",), "a product multiplies by it, a vector"),
    "conv bias": (("bias", "conv"), "a convolution adds it"),
    "embedding": (("weight", "embedding"), "rows are looked up in it"),
    "rows": (("embedding",), "rows are gathered from it"),
    "token": (("embedding",), "it stands beside the data, as a token or a query"),
    "table": (("embedding",), "it is added to the data, other values in other places"),
    "norm": (("weight", "norm"), "it scales what was normalised"),
    "norm shift": (("bias", "norm"), "it is added to what was normalised"),
    "bias": (("bias",), "it is added to the data"),
    "scale": (("scalar",), "it multiplies element by element"),
}
_STRONGER: Final[dict[Use, frozenset[Use]]] = {
    "scale": frozenset({"conv", "matrix", "stack", "wide", "vector", "embedding", "norm"}),
    "bias": frozenset({"conv", "matrix", "stack", "wide", "vector", "embedding", "norm", "norm shift", "conv bias"}),
    "token": frozenset({"conv", "matrix", "stack", "wide"}),
    "rows": frozenset({"embedding", "stack"}),
    "table": frozenset({"matrix", "stack", "conv"}),
}
"""Uses that say nothing where one of these has been seen: a weight whose norm is penalised is no scale."""

_HEAD: Final = "no product follows the one with it"
_EXPERT: Final = "scores choose among as many as there are of it"
_ROUTER: Final = "its scores choose among experts"

_BIASES: Final[frozenset[Use]] = frozenset({"bias", "conv bias"})


def reasons_of(record: Record, i: int, heads: int, mixed: Mixtures) -> tuple[tuple[str, str], ...]:
    """(role, reason) pairs of what was seen of parameter `i`; `matrix` is not among them, see `product_of`."""
    found: dict[str, str] = {}
    for use, operation in record.uses.items():
        if _STRONGER.get(use, frozenset()).isdisjoint(record.uses):
            roles, why = _ROLES[use]
            for role in roles:
                found.setdefault(role, f"{why}, in {operation}")
    sets = (("head", heads, _HEAD), ("expert", mixed.experts, _EXPERT), ("router", mixed.routers, _ROUTER))
    found |= {role: why for role, having, why in sets if having >> i & 1}
    return tuple(found.items())


def product_of(record: Record) -> str:
    """How it was seen to be a matrix; empty where it is none, or not longer than one both ways."""
    is_matrix = "matrix" in record.uses and len(record.shape) == 2 and min(record.shape) > 1
    return f"a product multiplies by it, in {record.uses['matrix']}" if is_matrix else ""


def heads_of(flow: Flow, inner: int) -> int:
    """The parameters that are a head or a head's bias; `inner` are those that are none though nothing follows them."""
    heads = flow.heads & ~inner
    return heads | bits(
        i
        for i, record in enumerate(flow.records)
        if record.beside & heads and not _BIASES.isdisjoint(record.uses) and "scale" not in record.uses
    )
