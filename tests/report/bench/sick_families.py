"""Sick runs of other families: transformers, recurrent and convolutional networks, games, policies, several tasks."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.balance import Balancer, Static
from groupwise.observe import Observer
from groupwise.schedules import cosine
from groupwise.select import role
from tests.report.bench.families import Convolutional, Policy, Recurrent, Transformer, means, named, tokens
from tests.report.bench.jobs import classes, mlp, regression, train
from tests.report.bench.sick import TwoTasks, heads, planned, sick

AdamW, SGD = torch.optim.AdamW, torch.optim.SGD


@sick(r"Only the learning rate of 'rest' was scheduled. It went from \S+ to \S+.*'head'")
def transformer_whose_head_keeps_its_rate() -> Path:
    net = Transformer()
    optimizer = AdamW(named(net, "head")(3e-3))

    def after(step: int) -> None:
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - (step + 1) / 101)

    return train(optimizer, tokens(net), 100, after=after)


@sick(r"Weight decay acts on 'norms'.*shrinks 'norms' by \d+ %")
def transformer_whose_norms_decay() -> Path:
    net = Transformer()
    base = Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.3, label="matrices")
    return train(planned(net, base, Rule(role("norm"), label="norms", lr=scale(1.01))), tokens(net), 120)


@sick(r"rest'?.* was still rising at the end. It went from \S+ to \S+|still rising at the end. It went from \S+ to \S+")
def transformer_in_its_warmup() -> Path:
    net = Transformer()
    optimizer = AdamW(net.parameters(), lr=3e-3)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, total_iters=2000)
    return train(optimizer, tokens(net), 120, scheduler=warm)


@sick(r"'embed' starves .* through the clip \(\d")
def embedding_eats_the_joint_clip() -> Path:
    net = Transformer()
    fit = tokens(net)
    base = Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.0, label="rest")
    optimizer = planned(net, base, Rule("embed", label="embed", lr=scale(1.01)), clip=clip_norm(1.0))
    return train(optimizer, lambda: fit() + 1e8 * net.embed.weight.mean())  # type: ignore[operator]


@sick(r"(weights a step: too far|loss rose from|turns back and forth|ran away|not finite from step \d+)")
def recurrent_net_whose_micro_batches_are_not_divided() -> Path:
    net = Recurrent()
    fit = means(net)
    return train(SGD(net.parameters(), lr=0.5, momentum=0.9), lambda: sum(fit() for _ in range(16)), 120)  # type: ignore[arg-type, return-value, misc]


@sick(r"gradient of 'group 0' underflows \(\d+ % zeros\)")
def recurrent_net_in_half_precision() -> Path:
    net = Recurrent()

    def before(step: int) -> None:
        for p in net.parameters():
            p.grad = p.grad.half().float()  # type: ignore[union-attr]

    return train(AdamW(net.parameters(), lr=1e-3, eps=1e-12), means(net, 1e-6), before=before)


@sick(r"learning rate of 'base' is 0 from step 60 on. The last 60 of 120 steps")
def convolutions_that_outlive_their_schedule() -> Path:
    net = Convolutional()
    optimizer = planned(net, Rule("*", optimizer="SGD", momentum=0.9, lr=cosine(0.05), label="base"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(optimizer, classes(net), 120, scheduler=PlanScheduler(optimizer, total_steps=60))


@sick(r"running statistics of 1 frozen norm move \(norm1\)")
def convolutions_whose_frozen_norm_follows_the_data() -> Path:
    net = Convolutional()
    for module in (net.one, net.norm1):
        module.requires_grad_(False)
    optimizer = AdamW(net.parameters(), lr=3e-3)
    where = Path(tempfile.mkdtemp()) / "run"
    fit = classes(net)
    with warnings.catch_warnings(), Observer(optimizer, where, every={"updates": 5}, by="layer", model=net) as seen:
        warnings.simplefilter("ignore")
        for _ in range(60):
            optimizer.zero_grad()
            loss = fit()
            loss.backward()  # type: ignore[union-attr]
            seen.log(loss=loss.detach())  # type: ignore[union-attr]
            optimizer.step()
    return where


@sick(r"fell below 1 % of its peak by step \d+ of 200. .*jumps")
def plateau_of_the_wrong_sign() -> Path:
    net = mlp()
    optimizer = SGD(net.parameters(), lr=0.02, momentum=0.9)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=2, factor=0.2)
    return train(optimizer, regression(net), 200, after=lambda step: plateau.step(1.0 / (step + 1)))


@sick(r"Task 'large' (owns 'trunk'|drowns 'small').*%")
def static_weights_for_other_units() -> Path:
    net = TwoTasks(1.0)
    return train(heads(net), net.losses, 120, balancer=Balancer(Static({"small": 1.0, "large": 5000.0})))


@sick(r"had no state when the run went on at step 120|state of 'group 0' was lost at the resume \(step 120\)")
def transformer_resumed_without_its_optimizer() -> Path:
    net = Transformer()
    fit = tokens(net)
    where = train(AdamW(net.parameters(), lr=3e-3), fit, 120, finished=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(AdamW(net.parameters(), lr=3e-3), fit, 40, folder=where)


@sick(r"'d' outran 'g': \S+ to \S+")
def generator_without_a_chance() -> Path:
    nets = {"g": mlp(1, 8, 2, 2), "d": mlp(2, 64, 2, act=nn.ReLU)}
    rules = [Rule("*", optimizer="Adam", lr=1e-5), Rule("d/*", label="critic", lr=3e-3)]
    optimizer = GroupedOptimizer(nets, Plan(rules))
    bce = nn.functional.binary_cross_entropy_with_logits

    def losses() -> dict[str, torch.Tensor]:
        real, fake = torch.randn(64, 2) + 5.0, nets["g"](torch.randn(64, 2))
        one, zero = torch.ones(64, 1), torch.zeros(64, 1)
        d = bce(nets["d"](real), one) + bce(nets["d"](fake.detach()), zero)
        frozen = copy.deepcopy(nets["d"]).requires_grad_(False)
        return {"d": d, "g": bce(frozen(fake), one)}

    return train(optimizer, losses, 200)


@sick(r"'critic' did not move. No gradient ever reached them.* \(?\d+ parameters")
def critic_that_no_loss_reaches() -> Path:
    net = Policy()
    optimizer = AdamW(named(net, "critic")(3e-3))
    return train(optimizer, lambda: net.losses()["actor"], 80)


@sick(r"\d+ % of the units of '0' are dead")
def rectifiers_that_died_at_the_start() -> Path:
    net = mlp(2, 32, outputs=4, act=nn.ReLU)
    with torch.no_grad():
        net[0].bias[:28] = -30.0  # type: ignore[index, operator]
    return train(AdamW(net.parameters(), lr=1e-3), classes(net), 80, by="layer", model=net, activations=True)
