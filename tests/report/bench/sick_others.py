"""Sick runs of other jobs: generative models, adapters, mixtures of units, precision, resumes, and what users do to
them.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.observe import Observer
from groupwise.schedules import cosine
from tests.report.bench.families import Convolutional, Recurrent, Transformer, cross_entropy, means, named, tokens
from tests.report.bench.jobs import classes, mlp, regression, train
from tests.report.bench.sick import planned, sick

AdamW, SGD = torch.optim.AdamW, torch.optim.SGD


class Variational(nn.Module):
    """An encoder of a mean and a variance, and a decoder."""

    def __init__(self, latent: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 16), nn.SiLU(), nn.Linear(16, 8))
        self.mixing = torch.randn(3, 8)

    def losses(self) -> dict[str, torch.Tensor]:
        x = torch.randn(64, 3) @ self.mixing
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return {"reconstruction": (self.decoder(z) - x).square().mean(), "kl": kl}

    def groups(self, lr: float) -> list[dict[str, Any]]:
        return [
            {"params": list(part.parameters()), "name": name, "lr": lr}
            for name, part in (("encoder", self.encoder), ("decoder", self.decoder))
        ]


@sick(r"Task 'kl' (owns 'encoder'|drowns 'reconstruction').*\d")
def posterior_that_collapses() -> Path:
    net = Variational()

    def losses() -> dict[str, torch.Tensor]:
        found = net.losses()
        return {"reconstruction": found["reconstruction"], "kl": 500 * found["kl"]}

    return train(AdamW(net.groups(3e-3), weight_decay=0.0), losses, 200, task_shares=True)


class Houses(nn.Module):
    """Three targets of one house in three units."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.price, self.rooms, self.garden = nn.Linear(32, 1), nn.Linear(32, 1), nn.Linear(32, 1)

    def losses(self) -> dict[str, torch.Tensor]:
        x = torch.randn(64, 8)
        z = self.trunk(x)
        return {
            "price": (self.price(z) - 3e5 - 1e5 * x[:, :1]).square().mean(),
            "rooms": (self.rooms(z) - 4 - torch.sin(2 * x[:, 1:2])).square().mean(),
            "garden": cross_entropy(torch.cat([self.garden(z), -self.garden(z)], 1), (x[:, 2] * x[:, 3] > 0).long()),
        }


@sick(r"Task 'price' (drowns|owns).*(%|times)")
def prices_in_dollars_beside_rooms() -> Path:
    net = Houses()
    return train(AdamW(net.parameters(), lr=1e-2), net.losses, 200)


@sick(r"did not move. (No gradient ever reached any parameter|Their gradient was exactly 0).*\(?\d+ parameters")
def an_optimizer_of_another_copy() -> Path:
    net = mlp()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    return train(optimizer, regression(copy.deepcopy(net)), 60)


@sick(r"'adapters' did not move. They and their gradient were exactly 0 .*\(32 parameters|24 parameters")
def adapters_that_both_begin_at_zero() -> Path:
    base = nn.Linear(8, 4)
    down, up = nn.Linear(8, 2, bias=False), nn.Linear(2, 4, bias=False)
    nn.init.zeros_(down.weight)
    nn.init.zeros_(up.weight)
    groups = [{"params": [down.weight, up.weight], "name": "adapters"}]

    return train(AdamW(groups, lr=1e-2, weight_decay=0.0), classes(lambda x: base(x).detach() + up(down(x))))  # type: ignore[arg-type]


@sick(r"Weight decay outweighs the gradient of 'group 0' \(\d+ % a step\)|decay")
def coupled_decay_that_outweighs() -> Path:
    net = mlp(act=nn.ReLU)
    return train(SGD(net.parameters(), lr=0.1, weight_decay=1.0), classes(mlp_classes(net)), 200)


def mlp_classes(net: nn.Sequential) -> nn.Sequential:
    net[-1] = nn.Linear(16, 4)
    return net


@sick(r"(ran away|too far|turns back and forth|loss rose|not finite from step \d+)")
def momentum_next_to_one() -> Path:
    net = Transformer()
    return train(SGD(net.parameters(), lr=0.5, momentum=0.99), tokens(net), 150)


@sick(r"Updates of 'group 0' are lost in rounding|steps are too small \(update ratio")
def brain_floats_at_a_low_rate() -> Path:
    net = mlp().bfloat16()

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8)
        return (net(x.bfloat16()).float() - torch.sin(x[:, :1])).square().mean()

    return train(AdamW(net.parameters(), lr=1e-5), loss, 150)


@sick(r"updates were skipped. That is (4|5)\d %")
def a_scaler_that_skips_every_update() -> Path:
    net = mlp()
    optimizer = SGD(net.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    where = Path(tempfile.mkdtemp()) / "run"
    fit = regression(net)
    with Observer(optimizer, where, scaler=scaler, every={"updates": 5, "weights": 5}) as observer:
        for step in range(120):
            loss = fit()
            observer.log(loss=loss)
            scaler.scale(loss).backward()
            if step % 2:
                next(net.parameters()).grad[0, 0] = float("inf")  # type: ignore[index]
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return where


@sick(r"learning rate of .* is 0 from step 60 on. The last 180 of 240 steps")
def total_steps_of_one_epoch() -> Path:
    net = Transformer()
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=cosine(3e-3), label="body"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(optimizer, tokens(net), 240, scheduler=PlanScheduler(optimizer, total_steps=60))


@sick(r"loss jumped from \S+ to \S+ at the resume \(step 200\)")
def resumed_with_fresh_weights() -> Path:
    net = Recurrent()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    where = train(optimizer, means(net), 200, finished=False)
    with torch.no_grad():
        for own, fresh in zip(net.parameters(), Recurrent().parameters(), strict=True):
            own.copy_(3 * fresh)
    return train(optimizer, means(net), 60, folder=where)


@sick(r"'head'.* moves? \S+ of (its|their) weights a step: too far|ran away|loss rose")
def one_group_with_a_typing_error() -> Path:
    net = Convolutional()
    groups = named(net, "head")(1e-3)
    groups[1]["lr"] = 10.0

    def loss() -> torch.Tensor:
        y = torch.randint(4, (32,))
        x = torch.randn(32, 8) + nn.functional.one_hot(y, 8)
        return cross_entropy(net(x), y)

    return train(AdamW(groups), loss, 150)


@sick(r"fell below 1 % of its peak by step \d+ of 300.*(falls|jumps)|next to 0 from step \d+ on")
def epochs_decay_stepped_by_the_batch() -> Path:
    net = mlp()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60, 90], 0.1)
    return train(optimizer, regression(net), 300, scheduler=scheduler)


@sick(r"Clipping normalised scope '\S+' \(median factor \S+\)|clipped to 1e-3 at every step")
def clip_far_below_the_gradient() -> Path:
    net = Transformer()
    rule = Rule("*", optimizer="SGD", lr=0.05, momentum=0.9, label="all")
    return train(planned(net, rule, clip=clip_norm(1e-3)), tokens(net), 150)


@sick(r"'g' outran 'd': \S+ to \S+|'d' (did not move|moves)|'g' moves \S+ times as fast as 'd'")
def discriminator_that_sleeps() -> Path:
    nets = nn.ModuleDict({"g": mlp(inputs=2, outputs=8), "d": mlp()})
    optimizer = GroupedOptimizer(
        {"g": nets["g"], "d": nets["d"]},
        Plan([Rule("*", optimizer="Adam", lr=1e-3, betas=(0.5, 0.999)), Rule("d.*", lr=0.0)]),
    )
    bce = nn.functional.binary_cross_entropy_with_logits

    def losses() -> dict[str, torch.Tensor]:
        real, fake = torch.randn(32, 8) + 2, nets["g"](torch.randn(32, 2))
        ones = torch.ones(32, 1)
        judged = bce(nets["d"](real), ones) + bce(nets["d"](fake.detach()), 0 * ones)
        nets["d"].requires_grad_(False)
        made = bce(nets["d"](fake), ones)
        nets["d"].requires_grad_(True)
        return {"d": judged, "g": made}

    return train(optimizer, losses, 200)


@sick(r"'(tokens|embed)' starves .* through the clip \(\d|starves a part")
def one_table_eats_the_clip_of_muon() -> Path:
    net = Transformer()
    fit = tokens(net)

    def loss() -> torch.Tensor:
        return fit() + 1e9 * net.embed.weight.mean()

    rules = [
        Rule("*", optimizer="AdamW", lr=3e-3, weight_decay=0.0, label="rest"),
        Rule("embed", label="embed", lr=scale(0.5)),
    ]
    return train(planned(net, *rules, clip=clip_norm(1.0)), loss, 120)


@sick(r"look at the data, the labels and the loss|loss did not clearly change|loss has stood at 1.\d+ since the start")
def inputs_in_another_order_than_labels() -> Path:
    net = Convolutional()

    def loss() -> torch.Tensor:
        y = torch.randint(4, (32,))
        x = torch.randn(32, 8) + nn.functional.one_hot(y[torch.randperm(32)], 8)
        return cross_entropy(net(x), y)

    return train(AdamW(net.parameters(), lr=1e-3), loss, 200)


@sick(r"'(left|anchor)' did not move")
def a_tower_that_was_never_given_to_the_loss() -> Path:
    net = nn.ModuleDict({"left": nn.Linear(8, 8), "right": nn.Linear(8, 8)})
    optimizer = planned(
        net, Rule("*", optimizer="Adam", lr=1e-2, label="right"), Rule("left", label="left", lr=scale(0.5))
    )

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8)
        b = nn.functional.normalize(net["right"](x))
        return cross_entropy(5 * b @ b.detach().T, torch.arange(32))

    return train(optimizer, loss)


@sick(r"(too far|ran away|turns back|loss rose|not finite)")
def summed_loss_under_sgd() -> Path:
    net = Recurrent()

    def loss() -> torch.Tensor:
        x = torch.randn(256, 8, 1)
        return (net(x) - x.mean(1)).square().sum()

    return train(SGD(net.parameters(), lr=0.05, momentum=0.9), loss, 150)
