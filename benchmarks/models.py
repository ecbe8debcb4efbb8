"""Parameter sets of three sizes. Nothing is computed with them: they are shapes, names and random gradients."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import nn


def small() -> nn.Module:
    """A CNN of 0.3 million parameters in 12 tensors."""
    convolutions = nn.Sequential(nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 3))
    heads = nn.ModuleDict({"left": nn.Linear(144, 10), "right": nn.Linear(144, 10)})
    return nn.ModuleDict({"backbone": convolutions, "dense": nn.Linear(1600, 144), "head": heads})


def resnet18_size() -> nn.Module:
    """The shapes of a ResNet-18: 11.7 million parameters in 62 tensors."""

    def block(before: int, width: int) -> nn.Module:
        layers = [nn.Conv2d(before, width, 3, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)]
        shortcut = [nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)] if before != width else []
        return nn.Sequential(*layers, *shortcut)

    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = nn.ModuleList(block(before, width) for before, width in itertools.pairwise(widths))
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, bias=False), nn.BatchNorm2d(64))
    return nn.ModuleDict({"stem": stem, "backbone": blocks, "head": nn.Linear(512, 1000)})


def vit_small_size() -> nn.Module:
    """The shapes of a ViT-S: 22 million parameters in 150 tensors."""
    return vit_size(384)


def vit_size(width: int) -> nn.Module:
    """The shapes of a ViT of that width with twelve blocks: 150 tensors."""
    blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, width // 64, 4 * width) for _ in range(12))
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, width, 16, stride=16),
            "backbone": blocks,
            "norm": nn.LayerNorm(width),
            "head": nn.Linear(width, 1000),
        }
    )


SIZES = {"small CNN": small, "ResNet-18 size": resnet18_size, "ViT-S size": vit_small_size}


def copies(model: nn.Module, count: int) -> list[nn.Module]:
    """Equal models with equal random gradients, one for each contestant."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    made = [copy.deepcopy(model) for _ in range(count)]
    for other in made:
        for parameter, source in zip(other.parameters(), model.parameters(), strict=True):
            parameter.grad = source.grad.clone() if source.grad is not None else None
    return made


def fresh_gradients(model: nn.Module) -> Callable[[], None]:
    """What hands out the same random gradients again, in new tensors: clipping writes into the old ones."""
    generator = torch.Generator().manual_seed(0)
    held = [torch.randn(p.shape, generator=generator) for p in model.parameters()]

    def hand_out() -> None:
        for p, gradient in zip(model.parameters(), held, strict=True):
            p.grad = gradient.clone()

    return hand_out


def numel(model: nn.Module) -> int:
    """How many numbers a model holds."""
    return sum(parameter.numel() for parameter in model.parameters())


def described(model: nn.Module) -> str:
    """`22.1 M in 150 tensors`."""
    return f"{numel(model) / 1e6:.3g} M in {len(list(model.parameters()))} tensors"
