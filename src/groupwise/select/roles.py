"""Roles: what a parameter is for, guessed from the words that people already use.

A parameter may have several. `weight`, `bias` and tables are read from the parameter's own name, `norm`, `embedding`
and `conv` from the class names of the layer that holds it, `expert` and `router` from the layers around it
(`Surroundings`), `head` from the whole tree (`heads`). `scalar` is what multiplies or shifts element by element:
temperatures, layer scales, decays, lengths of weight norm, and every other vector that is neither bias nor norm nor
token. `stack` is a batch of matrices in one tensor.

`matrix` is what is made for algorithms that want true matrices. Two dimensions make none: both must be longer than
one, a layer must multiply by it or its name must say so, and no place of a tied parameter may give it another use
(bias, norm, table, head, router, scale), which is why it is settled last. Each role comes with its reason.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from groupwise.select import vocabulary as say
from groupwise.select.info import Reasons

_OTHER_USES = frozenset({"bias", "norm", "embedding", "conv", "head", "router", "scalar", "stack"})
_LISTED, _STACKED = "listed", "stacked"

_VECTOR = "a vector that is neither bias nor norm nor token"
_NUMBER = "a number that scales"
_LAST = "a linear layer that nothing follows"
_BATCH = "dimensions: a batch of matrices"


class Surroundings(NamedTuple):
    """What surrounds a layer, as far as roles go.

    Args:
        expert: "listed" below one expert of a mixture, "stacked" in what holds all of them, else empty.
        router: whether it chooses among experts.
        head: whether it is one of the tree's heads.
        positions: whether it holds tables of positions, whatever their own names are.
    """

    expert: str = ""
    router: bool = False
    head: bool = False
    positions: bool = False

    @functools.lru_cache(maxsize=65536)  # noqa: B019  # of values, which hold nothing
    def inside(self, name: str, kinds: tuple[str, ...], beside: bool) -> Surroundings:
        """The place of a child; `beside` says whether experts stand beside it."""
        chooses = say.says_router(name, kinds)
        expert = "" if chooses else self.expert
        if not expert and not chooses and say.says_experts(name, kinds):
            expert = _STACKED
        if expert and any(map(str.isdigit, name[-1:])):
            expert = _LISTED
        router = self.router or chooses or (not expert and beside and say.says_gate(name))
        positions = say.holds_positions(name, kinds) or (self.positions and "ParameterList" in kinds)
        return Surroundings(expert, router, positions=positions) if expert or router or positions else NOWHERE


NOWHERE = Surroundings()


@functools.lru_cache(maxsize=65536)
def guess(leaf: str, kinds: tuple[str, ...], shape: tuple[int, ...], place: Surroundings = NOWHERE) -> Reasons:
    """(role, reason) pairs for one occurrence of a parameter; `matrix` is not among them, see `with_matrix_role`.

    Args:
        leaf: the parameter's own name in its layer: weight, bias_ih_l0, pos_embed.
        kinds: class names of that layer, bases included.
        shape: its sizes.
        place: what surrounds the layer.
    """
    norm, embedding, named = say.norm_kind(kinds), say.embedding_kind(kinds), f"its own name is {leaf!r}"
    bias = say.says_bias(leaf) or bool(norm and "beta" in say.words_of(leaf))
    weight = not bias and (say.says_weight(leaf) or bool(norm and "scale" in say.words_of(leaf)))
    table = not bias and (say.says_table(leaf) or _is_position(leaf, kinds, place))
    sides = sum(size != 1 for size in shape)
    otherwise = bias or table or (weight and (norm or (embedding and leaf != "weight_g")))
    scale = "" if otherwise else _scale_reason(leaf, kinds, len(shape), sides)
    found = [("weight", named)] if weight else [("bias", named)] if bias else []
    if norm:
        found.append(("norm", f"its layer is a {norm}"))
    if embedding and weight and not scale:
        found.append(("embedding", f"its layer is a {embedding}"))
    elif table:
        found.append(("embedding", f"its own name {leaf!r} is that of a table or a token"))
    if say.is_conv(kinds):
        found.append(("conv", f"its layer is a {kinds[0]}"))
    if scale:
        found.append(("scalar", scale))
    if place.head:
        found.append(("head", _LAST))
    return (*found, *_of_mixture(leaf, kinds, shape, place, {role for role, _ in found}))


def _is_position(leaf: str, kinds: tuple[str, ...], place: Surroundings) -> bool:
    known = say.is_linear(kinds) or say.is_conv(kinds) or say.norm_kind(kinds) or say.embedding_kind(kinds)
    return place.positions and not known and not say.says_scale(leaf)


def _scale_reason(leaf: str, kinds: tuple[str, ...], dimensions: int, sides: int) -> str:
    """Why it multiplies element by element; empty where it does not."""
    if leaf == "weight_g":
        return "it is the length that weight norm gives to a weight"
    weightlike = say.says_weight(leaf) or say.says_matrix(leaf)
    if dimensions <= 1 and not say.norm_kind(kinds):
        return _NUMBER if sides == 0 else _VECTOR
    if say.says_scale(leaf) and not leaf.endswith(("weight", "kernel", "proj", "bank")):
        return f"its own name {leaf!r} is that of a scale"
    if sides <= 1 and not weightlike and not say.multiplies(kinds):
        return _VECTOR
    return ""


def _of_mixture(
    leaf: str, kinds: tuple[str, ...], shape: tuple[int, ...], place: Surroundings, other: set[str]
) -> Reasons:
    """The roles of a mixture of experts and of stacks of matrices."""
    found = []
    bare = not other & {"bias", "norm", "embedding", "scalar", "conv"}
    mixed = say.is_mixture(kinds) and len(shape) > 2 and bare and not place.router
    expert = place.expert or (_STACKED if mixed else "")
    gate = say.says_router(leaf, ()) or (say.is_mixture(kinds) and say.says_gate(leaf))
    router = place.router or (gate and not expert)
    if expert:
        found.append(("expert", f"it belongs to {'one of' if expert == _LISTED else 'all'} the experts of a mixture"))
    if router and not other & {"norm", "scalar"}:
        found.append(("router", "it chooses among experts"))
    if bare and not router and _is_stack(leaf, kinds, shape, expert):
        found.append(("stack", f"{len(shape)} {_BATCH}"))
    return tuple(found)


def _is_stack(leaf: str, kinds: tuple[str, ...], shape: tuple[int, ...], expert: str) -> bool:
    if len(shape) < 3 or say.is_linear(kinds):
        return False
    return expert == _STACKED or (len(shape) == 3 and say.says_matrix(leaf)) or say.says_bank(leaf)


@functools.lru_cache(maxsize=65536)
def matrix_reason(leaf: str, kinds: tuple[str, ...], shape: tuple[int, ...], place: Surroundings) -> str:
    """Why it may be a matrix, as far as one occurrence can tell; empty where nothing says so."""
    if len(shape) != 2 or min(shape) < 2 or place.expert == _STACKED:
        return ""
    if (kind := say.multiplies(kinds)) and (say.says_weight(leaf) or say.says_matrix(leaf)):
        return f"its layer, a {kind}, multiplies by it, and it has two dimensions"
    return f"its own name {leaf!r} is that of a matrix, and it has two dimensions" if say.says_matrix(leaf) else ""


def with_matrix_role(occurrences: Sequence[Reasons], why: Sequence[str]) -> list[Reasons]:
    """The reasons of a parameter's occurrences with `matrix` added where `why` says so and no other use forbids it."""
    roles = {role for reasons in occurrences for role, _ in reasons}
    return [
        (*reasons, ("matrix", text)) if text and not roles & _OTHER_USES and "matrix" not in roles else reasons
        for reasons, text in zip(occurrences, why, strict=True)
    ]


@functools.lru_cache(maxsize=65536)
def read(
    leaf: str, kinds: tuple[str, ...], shape: tuple[int, ...], place: Surroundings = NOWHERE
) -> tuple[Reasons, str]:
    """The reasons of an occurrence that is the parameter's only one, and what `matrix_reason` says of it."""
    why = matrix_reason(leaf, kinds, shape, place)
    (reasons,) = with_matrix_role([guess(leaf, kinds, shape, place)], [why])
    return reasons, why


def rests_on_shape_or_place(reason: str) -> bool:
    """Whether a role was guessed without a word in a name or a class that says so."""
    return reason in (_VECTOR, _NUMBER, _LAST) or reason.endswith(_BATCH)
