"""Healthy runs of other jobs: generative models, self-supervision, reinforcement, graphs, flows, sparse tables."""

from __future__ import annotations

import copy
import math
import tempfile
from pathlib import Path

import torch
from torch import nn

from groupwise import PlanScheduler, Rule, clip_norm
from groupwise.observe import Observer
from groupwise.schedules import cosine
from tests.report.bench.families import Convolutional, Transformer, cross_entropy, tokens
from tests.report.bench.healthy import healthy
from tests.report.bench.jobs import mlp, regression, train
from tests.report.bench.sick import planned
from tests.report.bench.sick_others import Variational

AdamW, Adam, SGD = torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD


@healthy
def a_variational_autoencoder_whose_divergence_is_warmed_up() -> Path:
    net = Variational()
    step = 0

    def loss() -> torch.Tensor:
        nonlocal step
        step += 1
        found = net.losses()
        return found["reconstruction"] + min(step / 100, 1) * 0.01 * found["kl"]

    return train(AdamW(net.groups(3e-3)), loss, 200)


@healthy
def a_variational_autoencoder_of_two_tasks() -> Path:
    net = Variational()

    def losses() -> dict[str, torch.Tensor]:
        found = net.losses()
        return {"reconstruction": found["reconstruction"], "kl": 0.02 * found["kl"]}

    return train(AdamW(net.groups(3e-3)), losses, 200, task_shares=True)


@healthy
def a_denoiser_of_diffusion() -> Path:
    net = mlp(3, 32, inputs=9, outputs=8, act=nn.SiLU)
    mixing = torch.randn(2, 8)

    def loss() -> torch.Tensor:
        x, t, noise = torch.randn(64, 2) @ mixing, torch.rand(64, 1), torch.randn(64, 8)
        noisy = (1 - t).sqrt() * x + t.sqrt() * noise
        return (net(torch.cat([noisy, t], 1)) - noise).square().mean()

    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=cosine(2e-3)), clip=clip_norm(1.0))
    return train(optimizer, loss, 200, scheduler=PlanScheduler(optimizer, total_steps=200))


@healthy
def values_that_chase_a_target_network() -> Path:
    net = mlp(2, 32, inputs=4, outputs=3, act=nn.ReLU)
    target = copy.deepcopy(net)

    def loss() -> torch.Tensor:
        x, action = torch.randn(64, 4), torch.randint(3, (64, 1))
        nxt = (0.8 * x + 0.1 * (action - 1)).roll(1, 1)
        reward = (x[:, :1] > 0).float() * (action == 1)
        aim = reward + 0.9 * target(nxt).max(1, keepdim=True).values.detach()
        return nn.functional.smooth_l1_loss(net(x).gather(1, action), aim)

    def after(step: int) -> None:
        if step % 50 == 49:
            target.load_state_dict(net.state_dict())

    return train(Adam(net.parameters(), lr=1e-3), loss, 300, after=after)


@healthy
def triplets_that_are_soon_apart() -> Path:
    net = mlp(1, 32, outputs=8, act=nn.ReLU)

    def loss() -> torch.Tensor:
        y = torch.randint(4, (32,))
        centre = 2 * nn.functional.one_hot(y, 8)
        a, p = torch.randn(32, 8) + centre, torch.randn(32, 8) + centre
        return nn.functional.triplet_margin_loss(net(a), net(p), net(torch.randn(32, 8) + centre.roll(1, 1)))

    return train(Adam(net.parameters(), lr=3e-3), loss, 200)


@healthy
def a_graph_in_one_batch() -> Path:
    adjacency = (torch.rand(60, 60) < 0.1).float()
    adjacency = ((adjacency + adjacency.T) > 0).float() + torch.eye(60)
    degree = adjacency.sum(1).rsqrt()
    adjacency = degree[:, None] * adjacency * degree
    one, two = nn.Linear(8, 16), nn.Linear(16, 4)
    y = torch.randint(4, (60,))
    x = torch.randn(60, 8) + nn.functional.one_hot(y, 8)
    groups = [{"params": list(one.parameters()), "weight_decay": 5e-4}, {"params": list(two.parameters())}]

    def loss() -> torch.Tensor:
        hidden = nn.functional.dropout((adjacency @ one(x)).relu(), 0.5)
        return cross_entropy(adjacency @ two(hidden), y)

    return train(Adam(groups, lr=1e-2), loss, 200)


@healthy
def factors_of_a_sparse_matrix() -> Path:
    rows, columns = nn.Embedding(50, 4, sparse=True), nn.Embedding(40, 4, sparse=True)
    truth = torch.randn(50, 4) @ torch.randn(4, 40) / 2

    def loss() -> torch.Tensor:
        i, j = torch.randint(50, (256,)), torch.randint(40, (256,))
        return ((rows(i) * columns(j)).sum(1) - truth[i, j]).square().mean()

    return train(torch.optim.SparseAdam([rows.weight, columns.weight], lr=2e-2), loss, 200)


@healthy
def a_mixture_of_experts_whose_balance_is_level_from_the_start() -> Path:
    router, experts = nn.Linear(8, 4, bias=False), nn.ModuleList(nn.Linear(8, 1) for _ in range(4))
    nn.init.normal_(router.weight, std=0.02)
    groups = [
        {"params": list(router.parameters()), "name": "router"},
        {"params": list(experts.parameters()), "name": "experts"},
    ]

    def losses() -> dict[str, torch.Tensor]:
        x = torch.randn(64, 8)
        gates = router(x).softmax(1)
        out = sum(gates[:, i : i + 1] * expert(x) for i, expert in enumerate(experts))
        share = nn.functional.one_hot(gates.argmax(1), 4).float().mean(0)
        return {
            "answer": (out - x.abs()[:, :1]).square().mean(),
            "balance": 0.01 * 4 * (share * gates.mean(0)).sum(),
        }

    return train(AdamW(groups, lr=5e-3), losses, 200)


@healthy
def a_flow_whose_likelihood_grows() -> Path:
    net = mlp(1, 16, inputs=1, outputs=2)

    def loss() -> torch.Tensor:
        x = torch.randn(128, 2) * torch.tensor([1.0, 0.2])
        x = torch.cat([x[:, :1], x[:, 1:] + 0.5 * x[:, :1].square()], 1)
        shift, log_scale = net(x[:, :1]).chunk(2, 1)
        z = torch.cat([x[:, :1], (x[:, 1:] - shift) * (-log_scale).exp()], 1)
        return (0.5 * z.square().sum(1) + log_scale.squeeze(1) + math.log(2 * math.pi)).mean()

    return train(Adam(net.parameters(), lr=5e-3), loss, 200)


@healthy
def training_against_an_adversary() -> Path:
    net = mlp(2, 32, outputs=4, act=nn.ReLU)

    def loss() -> torch.Tensor:
        y = torch.randint(4, (32,))
        x = (torch.randn(32, 8) + 2 * nn.functional.one_hot(y, 8)).requires_grad_(True)
        (slope,) = torch.autograd.grad(cross_entropy(net(x), y), x)
        return cross_entropy(net(x.detach() + 0.3 * slope.sign()), y)

    return train(SGD(net.parameters(), lr=0.05, momentum=0.9), loss, 200)


@healthy
def a_policy_that_is_reinforced() -> Path:
    net = mlp(1, 32, outputs=4)
    baseline = 0.0

    def loss() -> torch.Tensor:
        nonlocal baseline
        x = torch.randn(64, 8)
        choice = torch.distributions.Categorical(logits=net(x))
        action = choice.sample()
        reward = (x[:, :4].argmax(1) == action).float()
        gain, baseline = reward - baseline, 0.9 * baseline + 0.1 * float(reward.mean())
        return -(choice.log_prob(action) * gain).mean() - 0.01 * choice.entropy().mean()

    return train(Adam(net.parameters(), lr=3e-3), loss, 300)


@healthy
def a_distilled_student() -> Path:
    teacher, student = mlp(2, 32, outputs=4), mlp(1, 8, outputs=4)
    for p in teacher.parameters():
        p.requires_grad_(False).mul_(3)

    def loss() -> torch.Tensor:
        x = torch.randn(64, 8)
        return 4 * nn.functional.kl_div(
            (student(x) / 2).log_softmax(1), (teacher(x) / 2).softmax(1), reduction="batchmean"
        )

    return train(AdamW(student.parameters(), lr=1e-2), loss, 200)


@healthy
def a_linear_probe_under_lbfgs() -> Path:
    net = nn.Linear(8, 4)
    y = torch.randint(4, (200,))
    x = torch.randn(200, 8) + nn.functional.one_hot(y, 8)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=4)
    where = Path(tempfile.mkdtemp()) / "run"
    with Observer(optimizer, where, every=1) as observer:

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(net(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for _ in range(40):
            observer.log(loss=optimizer.step(closure))
    return where


@healthy
def a_cyclic_rate() -> Path:
    net = mlp()
    optimizer = SGD(net.parameters(), lr=1e-3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, 1e-3, 0.05, step_size_up=30)
    return train(optimizer, regression(net), 240, scheduler=scheduler)


@healthy
def two_crops_that_agree() -> Path:
    net = nn.Sequential(mlp(1, 32, outputs=16, act=nn.ReLU), nn.BatchNorm1d(16, affine=False))

    def loss() -> torch.Tensor:
        x = torch.randn(128, 8)
        a, b = net(x + 0.1 * torch.randn_like(x)), net(x + 0.1 * torch.randn_like(x))
        crossed = a.T @ b / 128
        return (crossed.diagonal() - 1).square().sum() + 0.01 * (
            crossed - torch.diag(crossed.diagonal())
        ).square().sum()

    return train(AdamW(net.parameters(), lr=3e-3), loss, 200)


@healthy
def segments_of_few_pixels() -> Path:
    net = nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 1, 3, padding=1))

    def losses() -> dict[str, torch.Tensor]:
        mask = (torch.rand(16, 1, 32) < 0.05).float()
        out = net(mask * 2 + torch.randn_like(mask))
        p = out.sigmoid()
        dice = 1 - 2 * (p * mask).sum() / (p.sum() + mask.sum() + 1)
        return {"dice": dice, "cross entropy": nn.functional.binary_cross_entropy_with_logits(out, mask)}

    return train(AdamW(net.parameters(), lr=1e-2), losses, 200, task_shares=True)


@healthy
def a_language_model_with_tied_tables() -> Path:
    net = Transformer()
    net.head.weight = net.embed.weight
    rules = [Rule("*", optimizer="AdamW", lr=cosine(5e-3), weight_decay=0.1, betas=(0.9, 0.95))]
    optimizer = planned(net, *rules, clip=clip_norm(1.0))
    return train(optimizer, tokens(net), 200, scheduler=PlanScheduler(optimizer, total_steps=200))


@healthy
def a_rank_of_full_batches_under_rprop() -> Path:
    net = mlp()
    x = torch.randn(200, 8)
    y = torch.sin(x[:, :1])
    return train(torch.optim.Rprop(net.parameters(), lr=1e-3), lambda: (net(x) - y).square().mean(), 150)


@healthy
def adafactor_on_a_transformer() -> Path:
    net = Transformer()
    return train(torch.optim.Adafactor(net.parameters(), lr=1e-2), tokens(net), 200)


@healthy
def adamax_and_labels_that_are_smoothed() -> Path:
    net = Convolutional()

    def loss() -> torch.Tensor:
        y = torch.randint(4, (32,))
        return cross_entropy(net(torch.randn(32, 8) + 2 * nn.functional.one_hot(y, 8)), y, label_smoothing=0.1)

    return train(torch.optim.Adamax(net.parameters(), lr=3e-3), loss, 200)


@healthy
def data_in_the_order_of_its_classes() -> Path:
    net, at = mlp(2, 16, outputs=4), 0

    def loss() -> torch.Tensor:
        nonlocal at
        at += 1
        y = (torch.arange(32) // 16 + at) % 4
        return cross_entropy(net(torch.randn(32, 8) + 2 * nn.functional.one_hot(y, 8)), y)

    return train(AdamW(net.parameters(), lr=1e-3), loss, 200)


@healthy
def a_run_of_many_epochs_over_forty_samples() -> Path:
    net = mlp(2, 32)
    x = torch.randn(40, 8)
    y = torch.sin(x[:, :1])

    def loss() -> torch.Tensor:
        rows = torch.randperm(40)[:8]
        return (net(x[rows]) - y[rows]).square().mean()

    return train(AdamW(net.parameters(), lr=3e-3), loss, 400)
