"""Small models with the parts that plans tell apart, and one training loop."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(torch.relu(self.linear(x)))


class Net(nn.Module):
    """A word table (its gradient sparse or dense), three numbered blocks and a head."""

    def __init__(self, seed: int = 0, sparse: bool = False, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(20, width, sparse=sparse)
        self.backbone = nn.ModuleList([Block(width) for _ in range(3)])
        self.head = nn.Linear(width, 4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embed(words).mean(1)
        for block in self.backbone:
            x = block(x)
        return self.head(x)


def batches(n: int, seed: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randint(0, 20, (16, 3), generator=generator), torch.randint(0, 4, (16,), generator=generator))
        for _ in range(n)
    ]


def backward(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    net.zero_grad()
    loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
    loss.backward()
    return loss


def train(net: nn.Module, data: Iterable[tuple[torch.Tensor, torch.Tensor]], *steps: Callable[[], object]) -> None:
    """For each batch: backward, then every one of `steps`."""
    for batch in data:
        backward(net, batch)
        for step in steps:
            step()


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def gradients(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.to_dense().clone() for name, p in net.named_parameters() if p.grad is not None}
