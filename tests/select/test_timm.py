"""Real architectures: timm's own groups, and BEiT's recipe, to the digit."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from groupwise.select import ParameterInfo, inside, parameters_of, role, select, tag

MODELS = ["vit_tiny_patch16_224", "beit_base_patch16_224", "resnet18", "convnext_tiny", "swin_tiny_patch4_window7_224"]


def built(timm: ModuleType, name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, **options)
    return model


def depths(model: nn.Module) -> dict[str, int]:
    return {info.name: info.depth for info in parameters_of(model)}


def timms(timm: ModuleType, model: Any, coarse: bool = False) -> dict[str, int]:
    grouped: dict[str, int] = timm.models.group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
    return grouped


def beits(name: str, layers: int) -> int:
    """`get_num_layer_for_vit` of microsoft/unilm, beit/optim_factory.py, where `num_max_layer` is `layers + 2`."""
    top = layers + 1
    if name in ("cls_token", "mask_token", "pos_embed"):
        return 0
    if name.startswith("patch_embed"):
        return 0
    if name.startswith("rel_pos_bias"):
        return top
    if name.startswith("blocks"):
        return int(name.split(".")[1]) + 1
    return top


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_found_in_order(timm: ModuleType, name: str) -> None:
    model = built(timm, name)
    assert [info.name for info in parameters_of(model)] == [n for n, _ in model.named_parameters()]


@pytest.mark.parametrize(
    ("name", "options", "coarse"),
    [
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, False),
        ("resnet18", {}, False),
        ("resnet50", {}, False),
        ("beit_base_patch16_224", {}, False),
        ("swin_tiny_patch4_window7_224", {}, True),  # whose outermost numbered container are the stages
        ("convnext_tiny", {}, True),  # and whose stem, a Sequential of convolution and norm, is no level
        ("efficientvit_b0", {}, True),
    ],
)
def test_depth_is_timms_to_the_digit(timm: ModuleType, name: str, options: dict[str, Any], coarse: bool) -> None:
    model = built(timm, name, **options)
    assert depths(model) == timms(timm, model, coarse)


def test_with_a_class_token_timm_puts_the_final_norm_with_the_last_block_and_nothing_else_differs(
    timm: ModuleType,
) -> None:
    model = built(timm, "vit_tiny_patch16_224")
    ours, theirs = depths(model), timms(timm, model)
    assert {n: (ours[n], theirs[n]) for n in ours if ours[n] != theirs[n]} == {
        "norm.weight": (13, 12), "norm.bias": (13, 12),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224", "deit_tiny_patch16_224"])
def test_depth_is_beits_recipe_to_the_digit(timm: ModuleType, name: str) -> None:
    model = built(timm, name)
    assert depths(model) == {n: beits(n, layers=12) for n, _ in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_the_head_is_timms_classifier(timm: ModuleType, name: str) -> None:
    model = built(timm, name)
    classifier = model.default_cfg["classifier"]
    heads = [info.name for info in select(role("head"), parameters_of(model))]
    assert heads == [f"{classifier}.weight", f"{classifier}.bias"]


@pytest.mark.parametrize("name", MODELS)
def test_every_norm_layer_is_found_and_nothing_else(timm: ModuleType, name: str) -> None:
    model = built(timm, name)
    norms = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
    held = {id(p) for m in model.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    assert {id(info.parameter) for info in select(role("norm"), parameters_of(model))} == held


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_a_role(timm: ModuleType, name: str) -> None:
    nameless = [info.name for info in parameters_of(built(timm, name)) if not info.roles]
    assert [n for n in nameless if not n.endswith(("q_bias", "v_bias"))] == []


def no_decay_of_beit(info: ParameterInfo) -> bool:
    """The usual recipe: whatever has one dimension, biases, tokens and tables."""
    return info.ndim <= 1 or "embedding" in info.roles


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224", "swin_tiny_patch4_window7_224"])
def test_what_a_model_says_about_weight_decay_can_be_taken_as_it_is(timm: ModuleType, name: str) -> None:
    model = built(timm, name)
    infos = parameters_of(model, tags={"no_decay": model.no_weight_decay()})
    tagged = {info.name for info in select(tag("no_decay"), infos)}
    assert tagged == model.no_weight_decay() & {info.name for info in infos}
    assert all(no_decay_of_beit(info) for info in infos if info.name in tagged)


def test_inside_finds_blocks_by_class(timm: ModuleType) -> None:
    model = built(timm, "beit_base_patch16_224")
    found = select(inside("Block"), parameters_of(model))
    assert {info.name for info in found} == {n for n, _ in model.named_parameters() if n.startswith("blocks.")}
