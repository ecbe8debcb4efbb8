"""Runs with nothing wrong: other jobs, other algorithms, other schedules.

Whatever a report wants looked at is false.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, layer_decay, scale
from groupwise.balance import Balancer, Static, Uncertainty, UPGrad
from groupwise.observe import Observer
from groupwise.schedules import cosine, one_cycle, warmup_stable_decay
from groupwise.select import role
from tests.report.bench.jobs import classes, mlp, regression, train
from tests.report.bench.sick import TwoTasks, by_layer, heads, planned

HEALTHY: dict[str, Callable[[], Path]] = {}
AdamW, SGD = torch.optim.AdamW, torch.optim.SGD


def healthy(make: Callable[[], Path]) -> Callable[[], Path]:
    """Enter a run under its name."""
    HEALTHY[make.__name__] = make
    return make


@healthy
def adamw() -> Path:
    net = mlp()
    return train(AdamW(net.parameters(), lr=1e-2), regression(net))


@healthy
def sgd_with_momentum() -> Path:
    net = mlp()
    return train(SGD(net.parameters(), lr=0.02, momentum=0.9), regression(net))


@healthy
def classification() -> Path:
    net = mlp(outputs=4, act=nn.ReLU)
    return train(AdamW(net.parameters(), lr=3e-3), classes(net))


@healthy
def muon_and_adamw() -> Path:
    net = mlp(3, 32)
    hidden = Rule(role("matrix"), label="hidden", optimizer="Muon", lr=cosine(0.02, warmup="5%"), weight_decay=0.1)
    rest = Rule("*", optimizer="AdamW", lr=cosine(3e-3, warmup="5%"), weight_decay=0.0)
    optimizer = planned(net, rest, hidden, clip=clip_norm(10.0))
    return train(optimizer, regression(net), scheduler=PlanScheduler(optimizer, total_steps=120))


@healthy
def rmsprop() -> Path:
    net = mlp()
    return train(torch.optim.RMSprop(net.parameters(), lr=1e-3), regression(net), 200)


@healthy
def adagrad() -> Path:
    net = mlp()
    return train(torch.optim.Adagrad(net.parameters(), lr=0.05), regression(net))


@healthy
def nadam() -> Path:
    net = mlp()
    return train(torch.optim.NAdam(net.parameters(), lr=5e-3), regression(net))


@healthy
def adamw_whose_clip_acts_on_every_step() -> Path:
    net = mlp()
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=1e-2, label="base"), clip=clip_norm(0.05))
    return train(optimizer, regression(net, factor=100.0))


@healthy
def clip_as_a_guard() -> Path:
    net = mlp()
    optimizer = planned(net, Rule("*", optimizer="SGD", lr=0.05, label="base"), clip=clip_norm(3.0))
    return train(optimizer, regression(net))


@healthy
def a_part_with_a_larger_gradient_under_a_joint_clip() -> Path:
    net = nn.ModuleDict({"calm": mlp(), "loud": nn.Linear(8, 1)})
    fit = regression(net["calm"])

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8)
        return fit() + 100 * (net["loud"](x) - x[:, :1]).square().mean()  # type: ignore[operator]

    rules = [Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.0), Rule("calm", label="calm", lr=scale(0.99))]
    return train(planned(net, *rules, clip=clip_norm(1.0)), loss, 200)


@healthy
def cosine_with_warmup() -> Path:
    net = mlp()
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="10%"), label="base"))
    return train(optimizer, regression(net), scheduler=PlanScheduler(optimizer, total_steps=120))


@healthy
def warmup_stable_and_decay() -> Path:
    net = mlp()
    optimizer = planned(
        net, Rule("*", optimizer="AdamW", lr=warmup_stable_decay(1e-2, warmup="10%", decay="20%"), label="base")
    )
    return train(optimizer, regression(net), scheduler=PlanScheduler(optimizer, total_steps=120))


@healthy
def one_cycle_run() -> Path:
    net = mlp()
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=one_cycle(2e-2), label="base"))
    return train(optimizer, regression(net), scheduler=PlanScheduler(optimizer, total_steps=120))


@healthy
def step_decay_of_torch() -> Path:
    net = mlp()
    optimizer = SGD(net.parameters(), lr=0.05, momentum=0.9)
    return train(optimizer, regression(net), scheduler=torch.optim.lr_scheduler.MultiStepLR(optimizer, [60, 90]))


@healthy
def cosine_of_torch_over_two_groups() -> Path:
    net = mlp()
    groups = [
        {"params": net[0].parameters()},
        {"params": net[2].parameters(), "lr": 3e-3},
        {"params": net[4].parameters()},
    ]
    optimizer = AdamW(groups, lr=1e-2)
    return train(optimizer, regression(net), scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120))


@healthy
def a_plateau_that_fires_late() -> Path:
    net = mlp()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=40, factor=0.3)
    return train(optimizer, regression(net), 200, after=lambda step: plateau.step(max(1.0 - step / 120, 0.0)))


@healthy
def warm_restarts() -> Path:
    net = mlp()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 40)
    return train(optimizer, regression(net), scheduler=schedule)


@healthy
def layer_decay_of_a_deep_net() -> Path:
    net = mlp(4)
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=1e-2), Rule("*", lr=layer_decay(0.7)))
    return train(optimizer, regression(net), 150)


class Residual(nn.Module):
    """A block on a residual path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


@healthy
def a_deep_residual_net() -> Path:
    net = nn.Sequential(nn.Linear(8, 16), *(Residual(16) for _ in range(6)), nn.Linear(16, 1))
    rules = [Rule(f"{i}.*", label=f"layer{i}", lr=scale(1 + 1e-6 * i)) for i in range(1, 8)]
    return train(planned(net, Rule("*", optimizer="AdamW", lr=1e-3), *rules), regression(net), 100)


@healthy
def every_layer_a_group() -> Path:
    net = mlp(5)
    return train(by_layer(net, "Adam", 3e-3), regression(net))


@healthy
def norms_and_biases_without_decay() -> Path:
    net = nn.Sequential(nn.LayerNorm(8), *mlp())
    rules = [
        Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.1),
        Rule(role("norm") | role("bias"), label="norms and biases", weight_decay=0.0),
    ]
    return train(planned(net, *rules), regression(net))


@healthy
def a_frozen_backbone() -> Path:
    net = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(8, 32), nn.Tanh()), "head": nn.Linear(32, 4)})
    rules = [Rule("*", optimizer="AdamW", lr=1e-2), Rule("backbone", label="backbone", trainable=False)]
    return train(planned(net, *rules), classes(nn.Sequential(net["backbone"], net["head"])))


@healthy
def low_rank_adapters() -> Path:
    base, down, up = nn.Linear(8, 4), nn.Linear(8, 2, bias=False), nn.Linear(2, 4, bias=False)
    nn.init.zeros_(up.weight)
    net = nn.ModuleDict({"base": base, "down": down, "up": up})

    class Adapted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return base(x) + up(down(x))  # type: ignore[no-any-return]

    rules = [Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.0), Rule("base", label="base", trainable=False)]
    return train(planned(net, *rules), classes(Adapted()))


@healthy
def fine_tuning_at_a_low_rate() -> Path:
    net = mlp(outputs=4)
    before = AdamW(net.parameters(), lr=1e-2)
    loss = classes(net)
    for _ in range(40):
        before.zero_grad()
        loss().backward()  # type: ignore[union-attr]
        before.step()
    return train(AdamW(net.parameters(), lr=1e-3), loss, 200)


@healthy
def a_short_run() -> Path:
    net = mlp()
    return train(AdamW(net.parameters(), lr=1e-2), regression(net), 20)


@healthy
def a_language_model_in_small() -> Path:
    net = nn.Sequential(nn.Embedding(40, 16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 40))

    def loss() -> torch.Tensor:
        x = torch.randint(40, (64,))
        return nn.functional.cross_entropy(net(x), (3 * x + 1) % 40)

    rules = [
        Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=0.01),
        Rule("0", label="embedding", weight_decay=0.0),
    ]
    optimizer = planned(net, *rules, clip=clip_norm(1.0))
    return train(optimizer, loss, scheduler=PlanScheduler(optimizer, total_steps=120))


@healthy
def a_loss_below_0() -> Path:
    net = mlp(outputs=2)

    def loss() -> torch.Tensor:
        x = torch.randn(64, 8)
        mean, log = net(x).split(1, 1)
        y = 0.1 * x[:, :1]
        return (log + 0.5 * ((y - mean) / log.exp()) ** 2).mean()

    return train(AdamW(net.parameters(), lr=3e-3), loss, 150)


@healthy
def a_run_that_has_converged() -> Path:
    net = nn.Linear(8, 1)
    return train(SGD(net.parameters(), lr=0.1), regression_without_noise(net), 200)


def regression_without_noise(net: nn.Module) -> Callable[[], torch.Tensor]:
    """A line that the network can fit."""

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8)
        return (net(x) - x.sum(1, keepdim=True)).square().mean()

    return loss


@healthy
def adamw_that_has_converged() -> Path:
    net = nn.Linear(8, 1)
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=cosine(5e-2), weight_decay=0.0))
    return train(optimizer, regression_without_noise(net), 250, scheduler=PlanScheduler(optimizer, total_steps=250))


@healthy
def a_loss_in_thousands() -> Path:
    net = mlp()
    return train(AdamW(net.parameters(), lr=1e-2), regression(net, factor=5e3))


@healthy
def a_small_loss() -> Path:
    net = mlp()
    return train(AdamW(net.parameters(), lr=1e-2), regression(net, factor=1e-3))


@healthy
def two_balanced_tasks() -> Path:
    net = TwoTasks(1.0)
    return train(heads(net, 1e-2), easy(net), 200, task_shares=True)


def easy(net: TwoTasks) -> Callable[[], dict[str, torch.Tensor]]:
    """Two tasks that a small trunk can do."""

    def losses() -> dict[str, torch.Tensor]:
        x = torch.randn(32, 8)
        z = net.trunk(x)
        small, large = net.small(z) - torch.sin(x[:, :1]), net.large(z) - torch.sin(x[:, 1:2])
        return {"small": small.square().mean(), "large": large.square().mean()}

    return losses


def balanced(method: Any) -> Path:
    net = TwoTasks(1.0)
    return train(heads(net, 1e-2), easy(net), 200, balancer=Balancer(method))


@healthy
def static_weights() -> Path:
    return balanced(Static({"small": 1.0, "large": 0.5}))


@healthy
def uncertainty_weights() -> Path:
    return balanced(Uncertainty())


@healthy
def upgrad() -> Path:
    return balanced(UPGrad())


@healthy
def unrelated_tasks() -> Path:
    net = nn.ModuleDict({"trunk": nn.Linear(16, 16), "a": nn.Linear(16, 1), "b": nn.Linear(16, 1)})

    def losses() -> dict[str, torch.Tensor]:
        x = torch.randn(64, 16)
        z = net["trunk"](x)
        return {"a": (net["a"](z) - x[:, :1]).square().mean(), "b": (net["b"](z) - x[:, 1:2]).square().mean()}

    return train(AdamW(net.parameters(), lr=3e-3), losses, 150, task_shares=True)


@healthy
def a_game_that_is_level() -> Path:
    nets = {"g": nn.Linear(2, 2), "d": nn.Linear(2, 1)}
    optimizer = GroupedOptimizer(nets, Plan([Rule("*", optimizer="Adam", lr=3e-3, betas=(0.5, 0.99))]))
    bce = nn.functional.binary_cross_entropy_with_logits

    def losses() -> dict[str, torch.Tensor]:
        real, fake = torch.randn(64, 2) + 1.0, nets["g"](torch.randn(64, 2))
        one, zero = torch.ones(64, 1), torch.zeros(64, 1)
        d = bce(nets["d"](real), one) + bce(nets["d"](fake.detach()), zero)
        frozen = copy.deepcopy(nets["d"]).requires_grad_(False)
        return {"d": d, "g": bce(frozen(fake), one)}

    return train(optimizer, losses, 200)


@healthy
def resumed_as_it_was() -> Path:
    net = mlp()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    fit = regression(net)
    where = train(optimizer, fit, 100, finished=False)
    return train(optimizer, fit, 60, folder=where)


@healthy
def accumulated_and_divided() -> Path:
    net = mlp()
    fit = regression(net)
    return train(SGD(net.parameters(), lr=0.05, momentum=0.9), lambda: (fit() + fit() + fit() + fit()) / 4)  # type: ignore[operator]


@healthy
def a_large_noise_and_a_slow_fall() -> Path:
    net = mlp()
    return train(AdamW(net.parameters(), lr=5e-3), regression(net, noise=0.7), 250)


@healthy
def a_convolution() -> Path:
    net = nn.Sequential(nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    fit = classes(nn.Sequential(nn.Unflatten(1, (1, 8)), net))
    return train(SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4), fit)


@healthy
def a_recurrent_net() -> Path:
    net = nn.GRU(1, 16, batch_first=True)
    read_out = nn.Linear(16, 1)

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8, 1)
        return (read_out(net(x)[0][:, -1]) - x.mean(1)).square().mean()

    return train(AdamW([*net.parameters(), *read_out.parameters()], lr=1e-2), loss)


@healthy
def default_cadences() -> Path:
    net = mlp()
    where = Path(tempfile.mkdtemp()) / "run"
    optimizer = AdamW(net.parameters(), lr=1e-2)
    with Observer(optimizer, where) as observer:
        fit = regression(net)
        for _ in range(200):
            optimizer.zero_grad()
            loss = fit()
            loss.backward()  # type: ignore[union-attr]
            observer.log(loss=loss.detach())  # type: ignore[union-attr]
            optimizer.step()
    return where


@healthy
def thawed_on_the_way() -> Path:
    net = nn.ModuleDict({"backbone": mlp(1, outputs=8), "head": nn.Linear(8, 1)})
    fit = regression(nn.Sequential(net["backbone"], net["head"]))
    net["backbone"].requires_grad_(False)
    optimizer = AdamW(
        [
            {"params": net["backbone"].parameters(), "name": "backbone"},
            {"params": net["head"].parameters(), "name": "head"},
        ],
        lr=1e-2,
    )

    def after(step: int) -> None:
        if step == 60:
            net["backbone"].requires_grad_(True)

    return train(optimizer, fit, 150, after=after)
