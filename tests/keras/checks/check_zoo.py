"""A zoo: the role and the level of every variable of one of everything.

A row is a layer, its level, and by variable its roles without `weight`, which every variable has that is no bias and no
scalar.
"""

from collections.abc import Callable
from typing import Any

import keras
import pytest

from groupwise.keras.walker import variables_of

L = keras.layers
Row = tuple[str, int, dict[str, str]]

AFFINE = {"kernel": "matrix", "bias": "bias"}
HEAD = {"kernel": "head", "bias": "bias head"}
CONV = {"kernel": "conv", "bias": "bias conv"}
NORM = {"gamma": "norm", "beta": "bias norm"}
HEADED = {"kernel": "", "bias": "bias"}  # by head: neither a matrix nor a convolution
CELL = {"kernel": "matrix", "recurrent_kernel": "matrix", "bias": "bias"}


def transformer() -> Any:
    x = inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(20, 8, name="tokens")(x)
    for name in ("transformer_layer_0", "transformer_layer_1"):
        attended = L.MultiHeadAttention(2, 4, name=f"{name}_attention")(x, x)
        x = L.LayerNormalization(name=f"{name}_norm")(L.Add(name=f"{name}_add")([x, attended]))
        inner = L.Dense(8, name=f"{name}_out")(L.Dense(16, activation="gelu", name=f"{name}_in")(x))
        x = L.LayerNormalization(name=f"{name}_last_norm")(L.Add(name=f"{name}_last_add")([x, inner]))
    return keras.Model(inputs, L.Dense(2, name="classifier")(L.GlobalAveragePooling1D(name="pool")(x)))


def _attention(name: str, level: int) -> list[Row]:
    parts = ("query_dense", "key_dense", "value_dense", "output_dense")
    return [(f"{name}.{part}", level, HEADED) for part in parts]


def _block(name: str, level: int) -> list[Row]:
    rest = [("norm", NORM), ("in", AFFINE), ("out", AFFINE), ("last_norm", NORM)]
    return [*_attention(f"{name}_attention", level), *((f"{name}_{part}", level, roles) for part, roles in rest)]


TRANSFORMER: list[Row] = [
    ("tokens", 0, {"embeddings": "embedding"}),
    *_block("transformer_layer_0", 1),
    *_block("transformer_layer_1", 2),
    ("classifier", 3, HEAD),
]


def recurrent() -> Any:
    x = inputs = keras.Input((5, 4))
    x = L.GRU(3, return_sequences=True, name="gru")(x)
    x = L.Bidirectional(L.LSTM(3, return_sequences=True), name="both")(x)
    x = L.SimpleRNN(3, name="simple")(x)
    return keras.Model(inputs, L.Dense(1, name="head")(x))


RECURRENT: list[Row] = [
    ("gru.cell", 1, CELL),
    ("both.forward_layer.cell", 2, CELL),
    ("both.backward_layer.cell", 2, CELL),
    ("simple.cell", 3, CELL),
    ("head", 4, HEAD),
]


def convolutional() -> Any:
    x = inputs = keras.Input((3, 8, 8, 2))
    x = L.ConvLSTM2D(4, 3, name="memory")(x)
    x = L.SeparableConv2D(3, 3, name="separable")(x)
    x = L.DepthwiseConv2D(2, name="depthwise")(x)
    x = L.Conv2DTranspose(3, 2, name="up")(x)
    x = L.PReLU(name="prelu")(L.GroupNormalization(groups=3, name="groups")(x))
    x = L.EinsumDense("ab,bc->ac", 4, bias_axes="c", name="einsum")(L.Flatten(name="flat")(x))
    return keras.Model(inputs, L.Dense(1, name="head")(x))


CONVOLUTIONAL: list[Row] = [
    ("memory.cell", 1, {"kernel": "conv", "recurrent_kernel": "conv", "bias": "bias conv"}),
    ("separable", 2, {"depthwise_kernel": "conv", "pointwise_kernel": "conv", "bias": "bias conv"}),
    ("depthwise", 3, CONV),
    ("up", 4, CONV),
    ("groups", 4, NORM),
    ("prelu", 4, {"alpha": "scalar"}),
    ("einsum", 5, AFFINE),
    ("head", 6, HEAD),
]


def attentive() -> Any:
    x = inputs = keras.Input((5, 8))
    x = L.GroupQueryAttention(4, 4, 2, name="grouped")(x, x)
    x = L.Attention(use_scale=True, name="scaled")([x, x])
    x = L.AdditiveAttention(name="additive")([x, x])
    x = L.TimeDistributed(L.Dense(4), name="each")(x)
    return keras.Model(inputs, L.Dense(1, name="head")(x))


ATTENTIVE: list[Row] = [
    *_attention("grouped", 1),
    ("scaled", 1, {"scale": "scalar"}),
    ("additive", 1, {"scale": "scalar"}),
    ("each.layer", 1, AFFINE),
    ("head", 2, HEAD),
]


def pointwise() -> Any:
    """Ends as a MobileNet does: in a convolution of one place."""
    x = inputs = keras.Input((8, 8, 3))
    x = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, name="stem")(x))
    x = L.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = L.Conv2D(16, 1, activation="relu", name="hidden")(x)
    return keras.Model(inputs, L.Flatten(name="flat")(L.Conv2D(3, 1, name="logits")(x)))


POINTWISE: list[Row] = [
    ("stem", 1, CONV),
    ("norm", 1, NORM),
    ("hidden", 2, CONV),
    ("logits", 3, {"kernel": "conv head", "bias": "bias conv head"}),
]

ZOO: dict[str, tuple[Callable[[], Any], list[Row]]] = {
    "transformer": (transformer, TRANSFORMER),
    "recurrent": (recurrent, RECURRENT),
    "convolutional": (convolutional, CONVOLUTIONAL),
    "attentive": (attentive, ATTENTIVE),
    "pointwise": (pointwise, POINTWISE),
}


@pytest.mark.parametrize("name", ZOO)
def test_every_variable_has_its_role_and_its_level(name: str) -> None:
    build, rows = ZOO[name]
    found = {info.name: (info.depth, " ".join(sorted(info.roles - {"weight"}))) for info in variables_of(build())}
    assert found == {f"{layer}.{leaf}": (level, role) for layer, level, roles in rows for leaf, role in roles.items()}


HEADS = {
    "MobileNet": "conv_preds",
    "MobileNetV3Small": "logits",
    "DenseNet121": "predictions",
    "Xception": "predictions",
}
LEVELS = {"MobileNet": 14, "MobileNetV3Small": 12, "DenseNet121": 59, "Xception": 15}


@pytest.mark.parametrize("name", LEVELS)
def test_a_ready_made_model_ends_in_its_head(name: str) -> None:
    if keras.backend.backend() != "torch":
        pytest.skip("the walk is the same; torch makes models without memory")
    with keras.device("meta"):
        found = variables_of(getattr(keras.applications, name)(weights=None, classes=3))
    assert max(info.depth for info in found) == LEVELS[name]
    heads = [info for info in found if "head" in info.roles]
    assert {info.name for info in heads} == {f"{HEADS[name]}.kernel", f"{HEADS[name]}.bias"}
    assert {info.depth for info in heads} == {LEVELS[name]}
    for info in found:
        assert ("bias" in info.roles) == info.name.endswith(("bias", "beta"))
        assert ("norm" in info.roles) == info.name.endswith(("gamma", "beta"))
