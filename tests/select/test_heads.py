"""Heads: the linear layers that nothing follows."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from groupwise.select import parameters_of
from tests.select.models import Block, Conv1D, ResNet, ViT, bert, language_model, lora, named, unet


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for into, out in pairwise(sizes):
        layers += [nn.Linear(into, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def heads(model: nn.Module) -> list[str]:
    found = [info.occurrences[-1] for info in parameters_of(model) if "head" in info.roles]
    return list(dict.fromkeys(occurrence.module for occurrence in found))


CASES: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "a classifier": (ResNet, ["fc"]),
    "after a final norm": (ViT, ["head"]),
    "behind a pooler": (bert, ["classifier"]),
    "a tied decoder": (language_model, ["lm_head"]),
    "behind adapters": (lora, ["score"]),
    "the last of a stack": (lambda: mlp(4, 8, 8, 2), ["4"]),
    "a lone layer": (lambda: nn.Linear(3, 2), [""]),
    "none behind a convolution": (unet, []),
    "none where a norm is last": (lambda: nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), []),
    "none in a transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), []),
    "none in a recurrent net": (lambda: nn.LSTM(2, 3), []),
    "after a recurrent net": (lambda: named(rnn=nn.LSTM(2, 3), out=nn.Linear(3, 1)), ["out"]),
    "three side by side": (
        lambda: named(trunk=nn.Conv2d(1, 8, 3), left=nn.Linear(8, 10), right=nn.Linear(8, 10), sum=nn.Linear(8, 19)),
        ["left", "right", "sum"],
    ),
    "three side by side on a linear trunk": (
        lambda: named(trunk=mlp(4, 16, 8), left=nn.Linear(8, 10), right=nn.Linear(8, 10), sum=nn.Linear(8, 19)),
        ["left", "right", "sum"],
    ),
    "a dictionary of stacks": (
        lambda: named(trunk=nn.Conv2d(1, 8, 3), tasks=nn.ModuleDict({"a": mlp(8, 16, 3), "b": mlp(8, 16, 5)})),
        ["tasks.a.2", "tasks.b.2"],
    ),
    "a dictionary of stacks of one width": (
        lambda: named(trunk=mlp(4, 8), tasks=nn.ModuleDict({"a": mlp(8, 8, 8), "b": mlp(8, 8, 8)})),
        ["tasks.a.2", "tasks.b.2"],
    ),
    "a dictionary of stacks with norms": (
        lambda: nn.ModuleDict(
            {
                "a": nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3)),
                "b": nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 5)),
            }
        ),
        ["a.1", "b.1"],
    ),
    "a dictionary that only names a sequence": (
        lambda: named(
            net=nn.ModuleDict({"wte": nn.Embedding(9, 8), "h": nn.ModuleList([Block()]), "ln": nn.LayerNorm(8)}),
            lm_head=nn.Linear(8, 9),
        ),
        ["lm_head"],
    ),
    "encoders that feed a fusion": (
        lambda: named(parts=nn.ModuleDict({"a": mlp(4, 8), "b": mlp(6, 8)}), fuse=nn.Linear(8, 2)),
        ["fuse"],
    ),
    "gpt-2's linear layers": (lambda: named(norm=nn.LayerNorm(4), fc=Conv1D(8, 4), out=Conv1D(2, 8)), ["out"]),
    "a dictionary that is a sequence": (
        lambda: nn.ModuleDict({"body": mlp(4, 8), "mid": mlp(8, 8), "head": nn.Linear(8, 1)}),
        ["head"],
    ),
    "a dictionary of backbone and head": (
        lambda: nn.ModuleDict({"backbone": mlp(4, 8, 8), "head": nn.Linear(8, 1)}),
        ["head"],
    ),
    "attributes with norms of their own": (
        lambda: named(
            norm=nn.LayerNorm(8),
            a=nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3)),
            b=nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 5)),
        ),
        ["a.1", "b.1"],
    ),
    "encoders that are joined": (lambda: named(a=mlp(4, 8), b=mlp(6, 8), fuse=nn.Linear(16, 2)), ["fuse"]),
    "beside a bare parameter": (
        lambda: named(norm=nn.LayerNorm(4), a=named(bias=nn.Parameter(torch.zeros(2)), decoder=nn.Linear(4, 2))),
        ["a.decoder"],
    ),
}


@pytest.mark.parametrize(("build", "expected"), CASES.values(), ids=CASES.keys())
def test_heads_are_the_linear_layers_that_nothing_follows(build: Callable[[], nn.Module], expected: list[str]) -> None:
    assert heads(build()) == expected


def test_a_head_is_head_with_its_bias() -> None:
    infos = {i.name: i.roles for i in parameters_of(ViT())}
    assert infos["head.weight"] == {"weight", "head"}
    assert infos["head.bias"] == {"bias", "head"}


def test_each_network_has_its_own_heads() -> None:
    infos = parameters_of({"actor": mlp(4, 8, 2), "critic": mlp(4, 8, 1), "log_std": nn.Parameter(torch.zeros(2))})
    assert [i.name for i in infos if "head" in i.roles] == [
        "actor.2.weight", "actor.2.bias", "critic.2.weight", "critic.2.bias",
    ]  # fmt: skip
