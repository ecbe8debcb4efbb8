"""Depth and roles of models as Keras makes them: levels by block, and what each variable is for."""

from typing import Any

import keras
import numpy as np
import pytest

from groupwise.keras.walker import variables_of

L = keras.layers


def levels(model: Any) -> dict[str, int]:
    """By layer, its level."""
    return {info.name.rpartition(".")[0]: info.depth for info in variables_of(model)}


def by_level(model: Any) -> list[set[str]]:
    found = levels(model)
    return [{name for name, level in found.items() if level == depth} for depth in range(max(found.values()) + 1)]


def test_blocks_that_names_tell_are_levels() -> None:
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", name="stem_conv")(x)
    for i in range(1, 4):
        y = L.BatchNormalization(name=f"block{i}a_bn")(L.Conv2D(4, 3, padding="same", name=f"block{i}a_conv")(x))
        x = L.Add(name=f"block{i}a_add")([x, y])
    x = L.Dense(2, name="predictions")(L.GlobalAveragePooling2D(name="pool")(L.BatchNormalization(name="top_bn")(x)))
    blocks = [{f"block{i}a_conv", f"block{i}a_bn"} for i in range(1, 4)]
    assert by_level(keras.Model(inputs, x)) == [{"stem_conv"}, *blocks, {"top_bn", "predictions"}]


def test_blocks_that_only_the_graph_tells_are_levels() -> None:
    x = inputs = keras.Input((6,))
    x = L.Dense(4, name="entry")(x)
    for name in ("red", "green", "blue"):
        left, right = L.Dense(4, name=f"{name}_left")(x), L.Dense(4, name=f"{name}_right")(x)
        x = L.Activation("relu", name=f"{name}_relu")(L.Concatenate(name=f"{name}_join")([left, right]))
    model = keras.Model(inputs, L.Dense(1, name="exit")(x))
    blocks = [{f"{name}_left", f"{name}_right"} for name in ("red", "green", "blue")]
    assert by_level(model) == [{"entry"}, *blocks, {"exit"}]


def test_blocks_of_parallel_paths_share_their_levels() -> None:
    inputs = [keras.Input((4,), name=name) for name in ("left_in", "right_in")]
    ends = []
    for side, start in zip(("left", "right"), inputs, strict=True):
        x = start
        for i in range(3):
            x = L.Activation("relu", name=f"{side}_block_{i}_act")(L.Dense(4, name=f"{side}_block_{i}_dense")(x))
        ends.append(x)
    model = keras.Model(inputs, L.Dense(1, name="head")(L.Concatenate(name="join")(ends)))
    blocks = [{f"{side}_block_{i}_dense" for side in ("left", "right")} for i in range(3)]
    assert by_level(model)[1:] == [*blocks, {"head"}]


def test_a_backbone_within_a_model_keeps_its_levels_below_the_head() -> None:
    x = inputs = keras.Input((4,))
    for i in range(2):
        x = L.Add(name=f"block_{i}_add")([x, L.Dense(4, name=f"block_{i}_dense")(x)])
    backbone = keras.Model(inputs, x, name="backbone")
    outer = keras.Input((4,))
    found = levels(keras.Model(outer, L.Dense(1, name="head")(backbone(outer))))
    assert found == {"backbone.block_0_dense": 1, "backbone.block_1_dense": 2, "head": 3}


def test_a_row_of_layers_without_blocks_is_as_it_was() -> None:
    x = inputs = keras.Input((4,))
    for name in ("one", "two", "three"):
        x = L.Dense(4, name=name)(x)
    assert levels(keras.Model(inputs, x)) == {"one": 1, "two": 2, "three": 3}


EXPECTED = {"MobileNetV2": 18, "ResNet50": 17, "ConvNeXtTiny": 22, "EfficientNetB0": 17, "VGG16": 6, "InceptionV3": 12}


@pytest.mark.parametrize("name", EXPECTED)
def test_ready_made_models_have_a_level_for_each_block(name: str) -> None:
    if keras.backend.backend() != "torch":
        pytest.skip("the walk is the same; torch makes models without memory")
    with keras.device("meta"):
        model = getattr(keras.applications, name)(weights=None, classes=3, include_top=True)
    found = levels(model)
    assert max(found.values()) == EXPECTED[name]
    assert len(set(found.values())) >= EXPECTED[name]
    kernels = [info for info in variables_of(model) if info.name.endswith("kernel")]
    assert kernels[0].depth == min(found.values())
    assert kernels[-1].depth == EXPECTED[name]


def zoo() -> Any:
    """One of everything that has a bias, a norm or a table."""
    x = inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(20, 8, name="tokens")(x)
    x = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = L.LayerNormalization(name="norm")(x)
    x = L.BatchNormalization(name="batch")(x)
    x = L.GRU(8, return_sequences=True, name="gru")(x)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True), name="both")(x)
    x = L.SeparableConv1D(8, 3, name="separable")(x)
    x = L.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d", name="einsum")(x)
    return keras.Model(inputs, L.Dense(2, name="classifier")(L.GlobalAveragePooling1D(name="pool")(x)))


def test_roles_of_a_zoo() -> None:
    roles = {info.name: info.roles for info in variables_of(zoo())}
    biases = {name for name, of in roles.items() if "bias" in of}
    assert biases == {name for name in roles if name.endswith(("bias", "beta"))}
    assert {name for name, of in roles.items() if "norm" in of} == {
        f"{n}.{v}" for n in ("norm", "batch") for v in ("gamma", "beta")
    }
    assert {name for name, of in roles.items() if "embedding" in of} == {"tokens.embeddings"}
    assert {name for name, of in roles.items() if "head" in of} == {"classifier.kernel", "classifier.bias"}
    assert not biases & {name for name, of in roles.items() if "matrix" in of}
    assert np.all(["kernel" in name for name, of in roles.items() if "matrix" in of])
