"""Models of other families than the bench began with, and the data that each of them learns from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.report.bench.jobs import Losses

cross_entropy = nn.functional.cross_entropy


class Transformer(nn.Module):
    """Two blocks over eight tokens of twelve kinds; it says which kind comes most often."""

    def __init__(self, depth: int = 2, width: int = 16, *, norm_first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, width)
        layers = (
            nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True, norm_first=norm_first)
            for _ in range(depth)
        )
        self.blocks = nn.ModuleList(layers)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 12)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x.mean(1)))  # type: ignore[no-any-return]


def tokens(net: nn.Module, size: int = 32, factor: float = 1.0) -> Losses:
    """Cross-entropy of the first token's kind, which the network has to carry to its end."""

    def loss() -> torch.Tensor:
        x = torch.randint(12, (size, 8))
        x[:, 1:4] = x[:, :1]
        return factor * cross_entropy(net(x), x[:, 0])

    return loss


class Recurrent(nn.Module):
    """A GRU whose last state is read out."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(1, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])  # type: ignore[no-any-return]


def means(net: nn.Module, factor: float = 1.0) -> Losses:
    """The mean of a sequence."""

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8, 1)
        return factor * (net(x) - x.mean(1)).square().mean()

    return loss


class Convolutional(nn.Module):
    """Two convolutions with batch norms, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm1 = nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8)
        self.two, self.norm2 = nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.one(x[:, None])).relu()
        return self.head(self.norm2(self.two(x)).relu().flatten(1))  # type: ignore[no-any-return]


class Autoencoder(nn.Sequential):
    """Eight numbers through three."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3), nn.Linear(3, 16), nn.GELU(), nn.Linear(16, 8))


def low_rank(net: nn.Module) -> Losses:
    """Numbers that three others determine."""
    mixing = torch.randn(3, 8)

    def loss() -> torch.Tensor:
        x = torch.randn(32, 3) @ mixing
        return (net(x) - x).square().mean()

    return loss


class Policy(nn.Module):
    """An actor and a critic over one trunk, on a bandit with contexts."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.actor, self.critic = nn.Linear(32, 4), nn.Linear(32, 1)

    def losses(self) -> dict[str, torch.Tensor]:
        x = torch.randn(64, 8)
        z = self.trunk(x)
        choices = torch.distributions.Categorical(logits=self.actor(z))
        action = choices.sample()
        reward = (x[:, :4].argmax(1) == action).float()
        value = self.critic(z).squeeze(1)
        gain = (reward - value).detach()
        return {"actor": -(choices.log_prob(action) * gain).mean(), "critic": (value - reward).square().mean()}


class Contrast(nn.Module):
    """Two towers that find each other's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def loss(self) -> torch.Tensor:
        x = torch.randn(32, 8)
        a, b = self.left(x), self.right(x + 0.1 * torch.randn(32, 8))
        a, b = nn.functional.normalize(a), nn.functional.normalize(b)
        return cross_entropy(self.scale.exp() * a @ b.T, torch.arange(32))


def named(net: nn.Module, *heads: str) -> Callable[[float], list[dict[str, object]]]:
    """Torch groups: one for each of some children, one for the rest."""

    def groups(lr: float) -> list[dict[str, object]]:
        own = [{"params": list(net.get_submodule(head).parameters()), "name": head, "lr": lr} for head in heads]
        taken = {id(p) for group in own for p in group["params"]}  # type: ignore[attr-defined]
        rest = [p for p in net.parameters() if id(p) not in taken]
        return [{"params": rest, "name": "rest", "lr": lr}, *own]

    return groups
