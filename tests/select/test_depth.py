"""Depth: levels over the outermost numbered containers, the stem at 0, the top at n + 1."""

from collections.abc import Callable

import pytest
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


def tower(width: int = 8, blocks: int = 3) -> nn.Module:
    return named(embed=nn.Linear(8, width), layers=nn.ModuleList(nn.Linear(width, width) for _ in range(blocks)))


class Text(nn.Module):
    """A tower of a class of its own, its stack at `encoder.layers`."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.encoder = named(layers=nn.ModuleList(Block() for _ in range(blocks)))
        self.norm = nn.LayerNorm(8)


class Image(Text):
    """Another."""


def test_towers_stand_side_by_side_and_heads_on_top_of_the_longer() -> None:
    alike = by_prefix(named(text=tower(), image=tower(), head=nn.Linear(16, 2)), 3)
    for name in ("text", "image"):
        assert [alike[f"{name}.layers.{i}"] for i in range(3)] == [{1}, {2}, {3}]
        assert alike[f"{name}.embed.weight"] == {0}
    assert alike["head.weight"] == {4}
    unlike = by_prefix(named(text=Text(2), image=Image(3), head=nn.Linear(8, 2)), 4)
    assert unlike["text.encoder.layers.1"] == unlike["image.encoder.layers.1"] == {2}
    assert (unlike["text.norm.weight"], unlike["image.norm.weight"], unlike["head.weight"]) == ({3}, {4}, {4})


def test_numbered_attributes_of_one_class_follow_each_other() -> None:
    found = by_prefix(named(stage1=Text(2), stage2=Text(2), head=nn.Linear(8, 2)), 4)
    assert found["stage1.encoder.layers.1"] == {2}
    assert found["stage2.encoder.layers.0"] == {3}


def test_heads_are_no_levels_whatever_holds_them() -> None:
    trunk = {"stem": nn.Linear(8, 8), "block1": nn.Linear(8, 8), "block2": nn.Linear(8, 8)}
    for heads in (
        nn.ModuleList(nn.Linear(8, k) for k in (2, 3, 4)),
        nn.ModuleDict({"a": nn.Linear(8, 2), "b": nn.Linear(8, 8)}),
        nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, k)) for k in (2, 3)),
    ):
        found = by_prefix(named(**trunk, heads=heads))
        assert found == {"stem": {1}, "block1": {2}, "block2": {3}, "heads": {4}}
    blocks = named(blocks=nn.ModuleList(Block() for _ in range(2)), seg=nn.Linear(8, 4), depth=nn.Linear(8, 1))
    assert by_prefix(blocks)["seg"] == by_prefix(blocks)["depth"] == {3}


def test_a_stem_or_head_written_as_a_sequential_is_one_level() -> None:
    model = named(
        stem=nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
        blocks=nn.Sequential(Block(), Block()),
        head=nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)),
    )
    assert by_prefix(model) == {"stem": {0}, "blocks": {1, 2}, "head": {3}}
    body = named(layers=nn.ModuleList([Block(), Block()]))
    assert by_prefix(nn.Sequential(nn.Conv2d(3, 8, 3), body, nn.Linear(8, 2))) == {"0": {0}, "1": {1, 2}, "2": {3}}


def test_a_norm_is_no_level_of_its_own() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    assert by_prefix(chain) == {"0": {1}, "1": {1}, "3": {2}, "4": {2}}
    lenet = named(conv1=nn.Conv2d(1, 4, 3), bn1=nn.BatchNorm2d(4), conv2=nn.Conv2d(4, 4, 3), fc=nn.Linear(64, 10))
    assert by_prefix(lenet) == {"conv1": {1}, "bn1": {1}, "conv2": {2}, "fc": {3}}


def test_lists_that_only_collect_are_no_stacks() -> None:
    embeddings = nn.ModuleList(nn.Embedding(5, 8) for _ in range(4))
    branches = nn.ModuleList(nn.Sequential(nn.Linear(8, 3), nn.LayerNorm(3)) for _ in range(3))
    model = named(tables=embeddings, blocks=nn.ModuleList([Block(), Block()]), branches=branches)
    assert by_prefix(model) == {"tables": {0}, "blocks": {1, 2}, "branches": {3}}


@pytest.mark.parametrize("name", ["teacher", "ema", "copy"])
@pytest.mark.parametrize("where", ["before", "between", "after"])
@pytest.mark.parametrize("blocks", [3, 12])
def test_a_frozen_copy_is_neither_level_nor_top(name: str, where: str, blocks: int) -> None:
    parts = {"blocks": nn.ModuleList(Block() for _ in range(3)), "head": nn.Linear(8, 2)}
    expected = depths(named(**parts))
    copy = named(blocks=nn.ModuleList(Block() for _ in range(blocks)), head=nn.Linear(8, 2)).requires_grad_(False)
    order = {"before": (name, "blocks", "head"), "between": ("blocks", name, "head"), "after": ("blocks", "head", name)}
    found = depths(named(**{part: (parts | {name: copy})[part] for part in order[where]}))
    assert {n: d for n, d in found.items() if not n.startswith(f"{name}.")} == expected
    assert found[f"{name}.blocks.1.gamma"] == 2
    assert max(found.values()) == max(expected.values())


def test_what_is_frozen_in_part_or_altogether_keeps_its_levels() -> None:
    model = ViT(3)
    expected = depths(model)
    model.blocks[0].requires_grad_(False)
    assert depths(model) == expected
    model.blocks.requires_grad_(False)
    assert depths(model) == expected
    assert depths(model.requires_grad_(False)) == expected


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


@given(trees)
def test_depth_never_falls_in_module_order_and_leaves_no_gap(tree: object) -> None:
    found = list(depths(grown(tree)).values())
    assert found == sorted(found)
    assert set(range(1, max(found, default=0))) <= set(found)


class Towers(nn.Module):
    """Two towers of the same kind, side by side, and a head over both."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.left, self.right = self.tower(first), self.tower(second)
        self.head = nn.Linear(8, 2)

    @staticmethod
    def tower(blocks: int) -> nn.Module:
        tower = nn.Module()
        tower.blocks = nn.ModuleList(Block() for _ in range(blocks))
        return tower


@pytest.mark.parametrize(("first", "second"), [(4, 2), (2, 4), (3, 3)])
def test_what_follows_two_towers_lies_above_the_deeper_one(first: int, second: int) -> None:
    assert by_prefix(Towers(first, second))["head"] == {max(first, second) + 1}


def test_a_model_that_is_frozen_as_a_whole_has_the_levels_of_one_that_trains() -> None:
    net = nn.Module()
    net.blocks = nn.ModuleList(Block() for _ in range(2))
    net.teacher = nn.ModuleList(Block() for _ in range(4))
    trained = depths(net)
    assert depths(net.requires_grad_(False)) == trained


def staged() -> nn.Module:
    stage = nn.Module()
    stage.blocks = nn.ModuleList(Block() for _ in range(2))
    return stage


@pytest.mark.parametrize("make", [staged, Block], ids=["stages of blocks", "blocks"])
def test_a_frozen_stage_is_no_copy_of_the_one_that_it_feeds(make: Callable[[], nn.Module]) -> None:
    net = nn.Module()
    for i in range(1, 4):
        net.add_module(f"stage{i}", make())
    trained = depths(net)
    assert len({trained[name] for name in trained}) == (6 if make is staged else 3)
    net.stage1.requires_grad_(False)
    assert depths(net) == trained


def test_what_has_a_part_that_trains_is_no_frozen_copy() -> None:
    net = nn.Module()
    net.student, net.teacher = nn.ModuleList([Block(), Block()]), nn.Module()
    net.teacher.scale = nn.Parameter(torch.ones(3), requires_grad=False)
    net.teacher.blocks = nn.ModuleList(Block() for _ in range(3))
    assert by_prefix(net, 3)["teacher.blocks.2"] == {5}
    net.teacher.blocks.requires_grad_(False)
    assert by_prefix(net, 3)["teacher.blocks.2"] == {2}, "now a copy: none above the top of what trains"


def test_a_container_of_one_layer_is_no_stack() -> None:
    net = nn.Module()
    net.entry = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    net.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    assert by_prefix(net, 2) == {"entry.0": {0}, "body.0": {1}, "body.2": {2}, "body.4": {3}}


def test_a_norm_that_opens_a_container_is_of_the_level_passed() -> None:
    net = nn.Module()
    net.first = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8))
    net.second = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))
    net.head = nn.Linear(8, 2)
    assert by_prefix(net, 2) == {
        "first.0": {1}, "first.1": {2}, "first.2": {3}, "head.bias": {6}, "head.weight": {6},
        "second.0": {3}, "second.1": {4}, "second.2": {4}, "second.3": {5},
    }  # fmt: skip


@pytest.mark.parametrize(
    "within", [lambda net: nn.ModuleList([net]), nn.Sequential, lambda net: nn.ModuleDict({"0": net})]
)
def test_a_list_of_one_network_has_the_levels_of_that_network(within: Callable[[nn.Module], nn.Module]) -> None:
    alone = depths(ViT(blocks=3))
    model = nn.Module()
    model.nets = within(ViT(blocks=3))
    assert {name.removeprefix("nets.0."): depth for name, depth in depths(model).items()} == alone


class OwnReadout(nn.Module):
    """A block with a head of its own beside its layer, as for deep supervision."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc, self.head = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 2)


def test_a_stack_of_one_block_that_ends_in_a_head_is_a_stack() -> None:
    model = nn.ModuleDict(
        {"embed": nn.Embedding(5, 4), "layers": nn.ModuleList([OwnReadout()]), "head": nn.Linear(4, 2)}
    )
    assert by_prefix(model) == {"embed": {0}, "layers": {1}, "head": {2}}
