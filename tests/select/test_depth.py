"""Depth: levels over the outermost numbered containers, the stem at 0, the top at n + 1."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise.select import parameters_of
from tests.select.models import Block, ResNet, ViT, bert, named, unet


def depths(model: nn.Module) -> dict[str, int]:
    """Name to depth."""
    return {info.name: info.depth for info in parameters_of(model)}


def by_prefix(model: nn.Module, length: int = 1) -> dict[str, set[int]]:
    """Depths under each prefix of so many parts."""
    found: dict[str, set[int]] = {}
    for name, depth in depths(model).items():
        found.setdefault(".".join(name.split(".")[:length]), set()).add(depth)
    return found


def test_stem_blocks_and_top() -> None:
    found = depths(ViT(blocks=3))
    assert {n: d for n, d in found.items() if not n.startswith("blocks.")} == {
        "cls_token": 0, "pos_embed": 0, "patch_embed.proj.weight": 0, "patch_embed.proj.bias": 0,
        "norm.weight": 4, "norm.bias": 4, "head.weight": 4, "head.bias": 4,
    }  # fmt: skip
    assert all(d == int(n.split(".")[1]) + 1 for n, d in found.items() if n.startswith("blocks."))


def test_containers_are_counted_one_after_the_other() -> None:
    assert by_prefix(ResNet()) == {
        "conv1": {0}, "bn1": {0}, "layer1": {1, 2}, "layer2": {3, 4}, "layer3": {5, 6}, "layer4": {7, 8}, "fc": {9},
    }  # fmt: skip


def test_a_container_inside_a_level_is_no_level() -> None:
    found = by_prefix(ResNet(), 3)
    assert found["layer2.0.downsample"] == found["layer2.0.conv1"] == {3}


def test_what_stands_between_two_containers_belongs_to_the_level_passed() -> None:
    assert by_prefix(unet(), 2) == {
        "stem.weight": {0}, "stem.bias": {0}, "down.0": {1}, "down.1": {2},
        "middle.conv": {2}, "middle.norm": {2}, "up.0": {3}, "up.1": {4}, "out.weight": {5}, "out.bias": {5},
    }  # fmt: skip


def test_an_encoder_and_a_decoder_follow_each_other() -> None:
    found = by_prefix(nn.Transformer(8, 2, 3, 2, 16, batch_first=True), 3)
    assert {k: v for k, v in found.items() if ".layers." in k} == {
        "encoder.layers.0": {1}, "encoder.layers.1": {2}, "encoder.layers.2": {3},
        "decoder.layers.0": {4}, "decoder.layers.1": {5},
    }  # fmt: skip
    assert found["encoder.norm.weight"] == {3}
    assert found["decoder.norm.weight"] == {6}


def test_a_deeply_nested_container_is_found() -> None:
    found = by_prefix(bert(), 2)
    assert found["bert.embeddings"] == {0}
    assert found["bert.encoder"] == {1, 2, 3, 4}
    assert found["bert.pooler"] == found["classifier.weight"] == {5}


def test_a_bare_sequential_is_the_container() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 5))
    model.scale = nn.Parameter(torch.ones(1))
    assert depths(nn.Sequential(*list(model))) == {
        "0.weight": 1, "0.bias": 1, "2.weight": 2, "2.bias": 2, "4.weight": 3, "4.bias": 3,
    }  # fmt: skip
    assert depths(model)["scale"] == 0


def test_without_a_numbered_container_the_order_of_registration_counts() -> None:
    model = named(
        scale=nn.Parameter(torch.ones(1)), rnn=nn.LSTM(2, 3), drop=nn.Dropout(), mix=named(a=nn.Linear(3, 3)),
        out=nn.Linear(3, 1),
    )  # fmt: skip
    assert by_prefix(model) == {"scale": {0}, "rnn": {1}, "mix": {2}, "out": {3}}


def test_children_without_parameters_are_no_levels() -> None:
    act = nn.Sequential(nn.ReLU(), nn.Dropout())
    model = named(stem=nn.Conv2d(1, 2, 3), act=act, blocks=nn.ModuleList([nn.Identity(), Block(), act, Block()]))
    assert by_prefix(model, 2) == {"stem.weight": {0}, "stem.bias": {0}, "blocks.1": {1}, "blocks.3": {2}}


def test_one_layer_is_level_zero() -> None:
    assert set(depths(nn.Linear(2, 2)).values()) == {0}


def test_what_an_enclosing_module_holds_itself_comes_before_its_containers() -> None:
    encoder = named(pos_embed=nn.Parameter(torch.zeros(1, 4)), layers=nn.ModuleList([Block(), Block()]))
    decoder = named(pos_embed=nn.Parameter(torch.zeros(1, 4)), layers=nn.ModuleList([Block()]))
    found = depths(named(encoder=encoder, decoder=decoder))
    assert found["encoder.pos_embed"] == 0
    assert found["decoder.pos_embed"] == 2
    assert found["decoder.layers.0.gamma"] == 3


def test_each_network_has_its_own_depth() -> None:
    found = {i.name: i.depth for i in parameters_of({"a": ViT(3), "b": ViT(1), "t": nn.Parameter(torch.zeros(()))})}
    assert (found["a.head.weight"], found["b.head.weight"], found["t"]) == (4, 2, 0)
    assert found["b.blocks.0.gamma"] == 1


leaves = st.sampled_from([None, "linear", "relu"])
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner)),
    max_leaves=9,
)


def grown(tree: object) -> nn.Module:
    """A module from lists (numbered) and dictionaries (named)."""
    if isinstance(tree, list):
        return nn.Sequential(*map(grown, tree))
    if isinstance(tree, dict):
        return named(**{name: grown(inner) for name, inner in tree.items()})
    return nn.Linear(1, 1) if tree == "linear" else nn.ReLU()


def reference(root: nn.Module) -> dict[str, int]:
    """The sentence of the design, written down naively: containers first, then one comparison per parameter."""

    def has_parameters(module: nn.Module) -> bool:
        return any(True for _ in module.parameters())

    def numbered(module: nn.Module) -> bool:
        names = [name for name, _ in module.named_children()]
        return bool(names) and all(name.isdigit() for name in names) and has_parameters(module)

    def outermost(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
        if numbered(module):
            return [(path, module)]
        return [found for name, child in module.named_children() for found in outermost(f"{path}{name}.", child)]

    order = [name for name, _ in root.named_parameters(remove_duplicate=False)]
    containers = outermost("", root)
    levels = [
        f"{path}{name}."
        for path, module in containers
        for name, child in module.named_children()
        if has_parameters(child)
    ]
    if not levels:
        levels = [f"{name}." for name, child in root.named_children() if has_parameters(child)]
        return {n: next((i for i, level in enumerate(levels, 1) if n.startswith(level)), 0) for n in order}
    home = {n: next((i for i, level in enumerate(levels, 1) if n.startswith(level)), None) for n in order}
    found, passed = {}, 0
    for n in order:
        passed = home[n] or passed
        later = any(home[m] for m in order[order.index(n) :])
        found[n] = passed if later else len(levels) + 1
    return found


@given(trees)
def test_depth_is_what_the_design_says_on_any_tree(tree: object) -> None:
    model = grown(tree)
    assert depths(model) == reference(model)


@given(trees)
def test_depth_never_falls_in_module_order_and_leaves_no_gap(tree: object) -> None:
    found = list(depths(grown(tree)).values())
    assert found == sorted(found)
    assert set(range(1, max(found, default=0))) <= set(found)
