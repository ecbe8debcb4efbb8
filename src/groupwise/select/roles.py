"""Roles: what a parameter is for, guessed from the words that people already use.

Seven words, and a parameter may have several. `weight`, `bias` and `embedding` are read from the parameter's own name,
`norm`, `embedding` and `conv` from the class names of the layer that holds it (bases included, so subclasses count, and
so does a `LlamaRMSNorm` that inherits from nothing). `head` needs the whole tree (`heads`). `matrix` is what is left
for algorithms that want true matrices: exactly two dimensions, and neither embedding nor head *anywhere*, which is why
it is settled last, over all the places of a tied parameter. Each role comes with its reason.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

ROLES = ("weight", "bias", "norm", "embedding", "matrix", "conv", "head")

_PLAIN_NORM = re.compile(r"(RMS|Rms|Layer|Batch|Group|Instance|Scale|Response)[Nn]orm(alization)?(\d?[dD])?$")
_NORM = re.compile(r"(?<!Weight)(?<!Spectral)[Nn]orm(alization)?(?![a-z])")
_NOT_NORM = re.compile(
    r"Linear|Conv|Dense|M[Ll][Pp]|Head|Attention|Block|Encoder|Decoder|LSTM|GRU|RNN|Cell|Embed|Classifier|Residual"
)
_CONV = re.compile(r"Conv(Transpose)?[123N][dD]|Conv[123]DTranspose")
_LINEAR = re.compile(r"(Linear|Dense)\d*$")
_EMBEDDING = re.compile(r"(?<!Patch)Embedding(Bag)?$")
_TABLE = re.compile(  # pos_embed, positional_embedding, class_embedding, cls_token, relative_position_bias_table
    r"(^|_)pos(ition(al)?)?_?emb(ed(ding)?)?s?(_|\d|$)|(^|_)emb(ed(ding)?)?s?(_?\d+)?$|(^|_)tokens?(_?\d+)?$"
    r"|(^|_)(rel(ative)?|abs(olute)?)_pos|bias_table|^lora_embedding",
    re.IGNORECASE,
)


@functools.lru_cache(maxsize=4096)
def is_conv(kinds: tuple[str, ...]) -> bool:
    """Whether a layer of these classes convolves; GPT-2's `Conv1D` is linear, Keras' has `BaseConv` above it."""
    if "_ConvNd" in kinds or "BaseConv" in kinds:
        return True
    return any(_CONV.search(kind) and kind != "Conv1D" for kind in kinds)


@functools.lru_cache(maxsize=4096)
def is_linear(kinds: tuple[str, ...]) -> bool:
    """Whether a layer of these classes is a dense affine map."""
    return not is_conv(kinds) and any(_LINEAR.search(kind) or kind == "Conv1D" for kind in kinds)


@functools.lru_cache(maxsize=4096)
def norm_kind(kinds: tuple[str, ...]) -> str:
    """The class name that makes a layer a normalisation; empty where none does."""
    if is_conv(kinds) or is_linear(kinds):
        return ""
    return next((kind for kind in kinds if _PLAIN_NORM.search(kind) or _is_other_norm(kind)), "")


def _is_other_norm(kind: str) -> bool:
    return _NORM.search(kind) is not None and not _NOT_NORM.search(kind)


@functools.lru_cache(maxsize=4096)
def embedding_kind(kinds: tuple[str, ...]) -> str:
    """The class name that makes a layer an embedding; empty where none does (PatchEmbed is a convolution)."""
    if is_conv(kinds) or is_linear(kinds):
        return ""
    return next((kind for kind in kinds if _EMBEDDING.search(kind)), "")


@functools.lru_cache(maxsize=65536)
def guess(leaf: str, kinds: tuple[str, ...], vector: bool, head: bool = False) -> tuple[tuple[str, str], ...]:
    """(role, reason) pairs for one place of a parameter; `matrix` is not among them, see `with_matrix_role`.

    Args:
        leaf: the parameter's own name in its layer: weight, bias_ih_l0, pos_embed.
        kinds: class names of that layer, bases included.
        vector: whether at most one dimension is longer than 1.
        head: whether the layer is one of the tree's heads.
    """
    words = set(re.findall(r"[a-z]+", leaf.lower()))
    norm, embedding = norm_kind(kinds), embedding_kind(kinds)
    said_bias = words & {"bias", "biases"} or (norm and "beta" in words)
    bias = bool(said_bias) and vector and "table" not in words
    weight = words & {"weight", "weights", "kernel", "gamma"} or leaf == "embeddings" or (norm and "scale" in words)
    found = []
    if weight and not bias:
        found.append(("weight", f"its own name is {leaf!r}"))
    if bias:
        found.append(("bias", f"its own name is {leaf!r} and it is a vector"))
    if norm:
        found.append(("norm", f"its layer is a {norm}"))
    if embedding and weight:
        found.append(("embedding", f"its layer is a {embedding}"))
    elif not bias and _TABLE.search(leaf):
        found.append(("embedding", f"its own name {leaf!r} is that of a table or a token"))
    if is_conv(kinds):
        found.append(("conv", f"its layer is a {kinds[0]}"))
    if head:
        found.append(("head", "a linear layer that nothing follows"))
    return tuple(found)


def with_matrix_role(
    occurrences: Sequence[tuple[tuple[str, str], ...]], shape: Sequence[int]
) -> list[tuple[tuple[str, str], ...]]:
    """The reasons of a parameter's places with `matrix` added where it is due, or taken away where it no longer is."""
    told = {role for reasons in occurrences for role, _ in reasons}
    why = ("matrix", "it has exactly two dimensions and is neither embedding nor head")
    bare = [tuple(pair for pair in reasons if pair != why) for reasons in occurrences]
    if len(shape) != 2 or told & {"embedding", "head"}:
        return bare
    return [reasons if any(role == "matrix" for role, _ in reasons) else (*reasons, why) for reasons in bare]
