"""Runs with nothing wrong that come near to what the rules look at."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from groupwise import Rule, clip_norm
from tests.report.bench.families import Convolutional, Recurrent, Transformer, means, tokens
from tests.report.bench.healthy import healthy
from tests.report.bench.jobs import classes, mlp, regression, train
from tests.report.bench.sick import planned

Adam, AdamW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD


def clipped_run(optimizer: torch.optim.Optimizer, net: nn.Module, bound: float) -> Path:
    """A loop that clips by itself."""

    def clip(step: int) -> None:
        nn.utils.clip_grad_norm_(net.parameters(), bound)

    return train(optimizer, classes(net), 150, before=clip)


@healthy
def clipped_by_the_loop_under_adam() -> Path:
    net = Convolutional()
    return clipped_run(Adam(net.parameters(), lr=3e-3), net, 0.1)


@healthy
def clipped_by_the_loop_as_a_guard() -> Path:
    net = Convolutional()
    return clipped_run(SGD(net.parameters(), lr=0.05, momentum=0.9), net, 1.0)


@healthy
def a_strong_decay_that_the_gradient_holds_up() -> Path:
    net = Convolutional()
    return train(AdamW(net.parameters(), lr=3e-3, weight_decay=0.5), classes(net), 200)


@healthy
def equal_betas() -> Path:
    net = Transformer()
    return train(AdamW(net.parameters(), lr=3e-3, betas=(0.95, 0.95)), tokens(net), 150)


@healthy
def a_few_samples_learnt_by_heart() -> Path:
    net, x, y = mlp(2, 64, outputs=4, act=nn.ReLU), torch.randn(16, 8), torch.randint(4, (16,))
    return train(Adam(net.parameters(), lr=1e-2), lambda: nn.functional.cross_entropy(net(x), y), 200)


@healthy
def a_hinge_whose_gradient_ends() -> Path:
    net = nn.Linear(8, 4)

    def loss() -> torch.Tensor:
        y = torch.randint(4, (32,))
        return nn.functional.multi_margin_loss(net(torch.randn(32, 8) + 4.0 * nn.functional.one_hot(y, 8)), y)

    return train(SGD(net.parameters(), lr=0.5), loss, 200)


@healthy
def a_recurrent_net_of_clipped_sgd() -> Path:
    net = Recurrent()
    return train(planned(net, Rule("*", optimizer="SGD", lr=0.1, label="base"), clip=clip_norm(1.0)), means(net), 200)


@healthy
def rectifiers_on_batches_of_one() -> Path:
    net = mlp(2, 32, act=nn.ReLU)
    optimizer = Adam(net.parameters(), lr=1e-3)
    return train(optimizer, regression(net, size=1), 300, by="layer", model=net, activations=True)


@healthy
def rows_that_few_batches_look_up() -> Path:
    bag, head = nn.EmbeddingBag(1000, 8), nn.Linear(8, 2)
    net = nn.ModuleDict({"bag": bag, "head": head})

    def loss() -> torch.Tensor:
        words = torch.randint(1000, (64, 5))
        return nn.functional.cross_entropy(head(bag(words)), words[:, 0] % 2)

    return train(AdamW(net.parameters(), lr=3e-2), loss, 250)


@healthy
def a_game_whose_networks_have_no_names() -> Path:
    nets = nn.ModuleDict({"gen": mlp(1, 16, 4, 2), "disc": mlp(1, 16, 2)})
    judge = nn.functional.binary_cross_entropy_with_logits
    one, none = torch.ones(64, 1), torch.zeros(64, 1)

    def losses() -> dict[str, torch.Tensor]:
        real, fake = 0.5 * torch.randn(64, 2), nets["gen"](torch.randn(64, 4))
        frozen = copy.deepcopy(nets["disc"]).requires_grad_(False)
        return {
            "disc": judge(nets["disc"](real), one) + judge(nets["disc"](fake.detach()), none),
            "gen": judge(frozen(fake), one),
        }

    return train(Adam(nets.parameters(), lr=1e-3, betas=(0.5, 0.9)), losses, 250)
