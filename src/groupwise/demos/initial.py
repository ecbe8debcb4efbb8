"""Initial weights from a generator of their own, so that a demo leaves the process's generator alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.nn import init

Network = TypeVar("Network", bound=nn.Module)


def initialised(make: Callable[[], Network], seed: int) -> Network:
    """What `make()` gives, with weights drawn under `seed`: for layers that torch draws uniformly, torch's own.

    `make` runs on the meta device, so it draws nothing itself. Embeddings are normal with a standard deviation of
    0.02, as in GPT-2, where torch has 1; norms begin as the identity.
    """
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        _fill(layer, generator)
    return network


def _fill(layer: nn.Module, generator: torch.Generator) -> None:
    if isinstance(layer, nn.Linear | nn.Conv2d):
        init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        bound = 1 / math.sqrt(layer.weight[0].numel())
        if layer.bias is not None:
            init.uniform_(layer.bias, -bound, bound, generator=generator)
    elif isinstance(layer, nn.Embedding):
        init.normal_(layer.weight, std=0.02, generator=generator)
    elif isinstance(layer, nn.LayerNorm | nn.BatchNorm2d):
        layer.reset_parameters()  # to constants
