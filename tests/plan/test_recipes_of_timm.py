"""Where timm and BEiT define groups, a plan gives the same rate and weight decay, to the digit."""

import importlib
from types import ModuleType
from typing import Any

import pytest
import torch

from groupwise import Plan, Rule, layer_decay, scale
from groupwise.optim import parameters_of, resolve
from groupwise.select import ndim, tag
from tests.plan.models import value

LR, DECAY, WEIGHT_DECAY = 1e-3, 0.75, 0.05

RULES = [
    Rule("*", optimizer="AdamW", lr=LR, weight_decay=WEIGHT_DECAY),
    Rule("*", lr=layer_decay(DECAY)),
    Rule(ndim(max=1) | tag("no_decay"), weight_decay=0.0),
]


def no_decay(model: Any) -> set[str]:
    """What the model itself exempts; a ResNet exempts nothing."""
    names = getattr(model, "no_weight_decay", set)
    return set(names())


def timms(timm: ModuleType, model: Any) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by parameter, as timm's groups say."""
    layer_decayed = importlib.import_module("timm.optim").param_groups_layer_decay
    groups = layer_decayed(model, weight_decay=WEIGHT_DECAY, layer_decay=DECAY, no_weight_decay_list=no_decay(model))
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (LR * group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}


def ours(model: Any, *more: Rule) -> dict[str, tuple[float, float]]:
    infos = parameters_of(model, tags={"no_decay": no_decay(model)})
    resolution = resolve(infos, Plan(RULES) + list(more))
    return {info.name: (value(resolution, info.name), value(resolution, info.name, "weight_decay")) for info in infos}


def vit(timm: ModuleType, **options: Any) -> Any:
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 5, "num_heads": 2, "num_classes": 3}
    return timm.models.vision_transformer.VisionTransformer(**(sizes | options))


def test_a_vit_that_pools_the_average_is_timms_to_the_digit(timm: ModuleType) -> None:
    model = vit(timm, global_pool="avg")
    assert ours(model) == timms(timm, model)
    assert ours(model)["pos_embed"] == (LR * DECAY**6, 0.0)


def test_a_vit_with_a_class_token_differs_from_timm_at_the_final_norm_alone(timm: ModuleType) -> None:
    model = vit(timm, global_pool="token")
    theirs, mine = timms(timm, model), ours(model)
    assert {name for name in mine if mine[name] != theirs[name]} == {"norm.weight", "norm.bias"}
    assert (mine["norm.weight"][0], theirs["norm.weight"][0]) == (LR, LR * DECAY)


def test_one_more_rule_puts_the_final_norm_where_timm_has_it(timm: ModuleType) -> None:
    model = vit(timm, global_pool="token")
    assert ours(model, Rule("norm.*", lr=scale(DECAY))) == timms(timm, model)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "resnet18", "resnet50"])
def test_other_families_are_timms_to_the_digit_too(timm: ModuleType, name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert ours(model) == timms(timm, model)


def beits_layer(name: str, depth: int) -> int:
    """`get_num_layer_for_vit` of BEiT's optim_factory.py."""
    if name in ("cls_token", "mask_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    if name.startswith("blocks"):
        return int(name.split(".")[1]) + 1
    return depth + 1


def test_beits_recipe_has_the_final_norm_and_the_head_on_top(timm: ModuleType) -> None:
    model = vit(timm, global_pool="token")
    mine = ours(model)
    assert {name: lr for name, (lr, _) in mine.items()} == pytest.approx(
        {name: LR * DECAY ** (5 + 1 - beits_layer(name, 5)) for name, _ in model.named_parameters()}, rel=1e-15
    )
    skipped = model.no_weight_decay()
    assert {name: decay for name, (_, decay) in mine.items()} == {
        name: 0.0 if p.ndim == 1 or name.endswith(".bias") or name in skipped else WEIGHT_DECAY
        for name, p in model.named_parameters()
    }


def test_layer_decay_over_the_backbone_alone_leaves_its_last_block_whole(timm: ModuleType) -> None:
    model = vit(timm, global_pool="avg")
    resolution = resolve(model, Plan([RULES[0], Rule("blocks.*", lr=layer_decay(DECAY))]))
    rates = [value(resolution, f"blocks.{i}.norm1.weight") for i in range(5)]
    assert rates == pytest.approx([LR * DECAY ** (4 - i) for i in range(5)], rel=1e-15)
    assert value(resolution, "head.weight") == value(resolution, "pos_embed") == LR
