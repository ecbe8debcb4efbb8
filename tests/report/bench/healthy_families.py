"""Healthy runs of other families."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, layer_decay
from groupwise.balance import DWA, Static
from groupwise.schedules import cosine, warmup_stable_decay
from groupwise.select import role
from tests.report.bench.families import (
    Autoencoder,
    Contrast,
    Convolutional,
    Policy,
    Recurrent,
    Transformer,
    low_rank,
    means,
    tokens,
)  # fmt: skip
from tests.report.bench.healthy import balanced, healthy
from tests.report.bench.jobs import classes, mlp, train
from tests.report.bench.sick import planned

AdamW, SGD = torch.optim.AdamW, torch.optim.SGD


@healthy
def a_small_transformer() -> Path:
    net = Transformer()
    rules = [
        Rule("*", optimizer="AdamW", lr=cosine(3e-3, warmup="10%"), weight_decay=0.05),
        Rule(role("norm") | role("bias") | role("embedding"), label="no decay", weight_decay=0.0),
    ]
    optimizer = planned(net, *rules, clip=clip_norm(1.0))
    return train(optimizer, tokens(net), 150, scheduler=PlanScheduler(optimizer, total_steps=150))


@healthy
def a_transformer_under_muon() -> Path:
    net = Transformer(width=32)
    rules = [
        Rule("*", optimizer="AdamW", lr=warmup_stable_decay(3e-3, warmup="10%", decay="30%"), weight_decay=0.0),
        Rule(
            role("matrix"), label="hidden", optimizer="Muon", weight_decay=0.01,
            lr=warmup_stable_decay(0.01, warmup="10%", decay="30%"),
        ),
    ]  # fmt: skip
    optimizer = planned(net, *rules)
    return train(optimizer, tokens(net), 120, scheduler=PlanScheduler(optimizer, total_steps=120))


@healthy
def a_transformer_by_layer() -> Path:
    net = Transformer(3)
    return train(AdamW(net.parameters(), lr=2e-3), tokens(net), 120, by="layer", model=net, activations=True)


@healthy
def a_recurrent_net_whose_clip_guards_it() -> Path:
    net = Recurrent()
    optimizer = planned(net, Rule("*", optimizer="Adam", lr=5e-3, label="base"), clip=clip_norm(1.0))
    return train(optimizer, means(net), 150)


@healthy
def a_recurrent_net_under_rmsprop() -> Path:
    net = Recurrent()
    return train(torch.optim.RMSprop(net.parameters(), lr=2e-3), means(net), 150)


@healthy
def convolutions_with_batch_norm() -> Path:
    net = Convolutional()
    optimizer = SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=150)
    return train(optimizer, classes(net), 150, scheduler=schedule)


@healthy
def a_fine_tuned_convolution_with_layer_decay() -> Path:
    net = Convolutional()
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=3e-3), Rule("*", lr=layer_decay(0.8)))
    return train(optimizer, classes(net), 120)


@healthy
def an_autoencoder() -> Path:
    net = Autoencoder()
    return train(AdamW(net.parameters(), lr=3e-3), low_rank(net), 200)


@healthy
def two_towers_that_find_each_other() -> Path:
    net = Contrast()
    return train(AdamW(net.parameters(), lr=3e-3, weight_decay=0.0), net.loss, 150)


@healthy
def an_actor_and_its_critic() -> Path:
    net = Policy()
    return train(AdamW(net.parameters(), lr=1e-2), net.losses, 250)


@healthy
def static_weights_that_level_units() -> Path:
    return balanced(Static({"small": 1.0, "large": 1.0}))


@healthy
def weights_that_follow_the_losses() -> Path:
    return balanced(DWA())


@healthy
def a_wasserstein_game() -> Path:
    nets = {"g": mlp(1, 16, 2, 2), "d": mlp(1, 16, 2)}
    optimizer = GroupedOptimizer(nets, Plan([Rule("*", optimizer="Adam", lr=1e-3, betas=(0.5, 0.9))]))

    def losses() -> dict[str, torch.Tensor]:
        real, fake = torch.randn(64, 2) + 1.0, nets["g"](torch.randn(64, 2))
        between = (real + torch.rand(64, 1) * (fake.detach() - real)).requires_grad_()
        (slope,) = torch.autograd.grad(nets["d"](between).sum(), between, create_graph=True)
        penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
        frozen = copy.deepcopy(nets["d"]).requires_grad_(False)
        return {"d": nets["d"](fake.detach()).mean() - nets["d"](real).mean() + penalty, "g": -frozen(fake).mean()}

    return train(optimizer, losses, 200)


@healthy
def resumed_with_its_state() -> Path:
    net = Transformer()
    fit = tokens(net)
    first: Any = AdamW(net.parameters(), lr=3e-3)
    where = train(first, fit, 100, finished=False)
    second = AdamW(net.parameters(), lr=3e-3)
    second.load_state_dict(first.state_dict())
    return train(second, fit, 50, folder=where)


@healthy
def rectifiers_that_live() -> Path:
    net = mlp(3, 64, outputs=4, act=nn.ReLU)
    return train(AdamW(net.parameters(), lr=3e-3), classes(net), 100, by="layer", model=net, activations=True)


@healthy
def a_huber_loss_with_outliers() -> Path:
    net = mlp()

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8)
        y = torch.sin(x[:, :1]) + 5.0 * (torch.rand(32, 1) < 0.05) * torch.randn(32, 1)
        return nn.functional.huber_loss(net(x), y)

    return train(AdamW(net.parameters(), lr=5e-3), loss, 250)
