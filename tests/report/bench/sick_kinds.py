"""Runs with one thing wrong each, of kinds that the rules were not written for at first."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from groupwise import Rule
from tests.report.bench.families import Convolutional, Recurrent, Transformer, means, named, tokens
from tests.report.bench.jobs import classes, mlp, train
from tests.report.bench.sick import planned, sick

Adam, AdamW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD


def rectifiers() -> nn.Sequential:
    """A network whose units can die."""
    return mlp(3, 64, outputs=4, act=nn.ReLU)


@sick(r"gradient of 'group 0' died \(\S+ % zeros\)|(weights a step: too far|ran away)")
def adam_with_the_rate_of_sgd() -> Path:
    net = rectifiers()
    return train(Adam(net.parameters(), lr=1.0), classes(net), 150)


@sick(r"steps are too small \(update ratio \S+\).*%")
def sgd_with_the_rate_of_adam() -> Path:
    net = Convolutional()
    return train(SGD(net.parameters(), lr=3e-6), classes(net), 150)


@sick(r"Weight decay outweighs the gradient of 'base' \(\d+ % a step\)")
def decay_that_outweighs_the_gradient() -> Path:
    net = Transformer()
    return train(planned(net, Rule("*", optimizer="AdamW", lr=3e-3, weight_decay=100.0)), tokens(net), 150)


@sick(r"betas of 'group 0' look exchanged \(0.999, 0.9\)")
def betas_the_wrong_way_round() -> Path:
    net = Convolutional()
    return train(AdamW(net.parameters(), lr=3e-3, betas=(0.999, 0.9)), classes(net), 150)


@sick(r"gradient of 'group 0' is below eps \(\S+\)")
def eps_far_above_the_gradient() -> Path:
    net = Recurrent()
    return train(Adam(net.parameters(), lr=1e-3, eps=1.0), means(net), 150)


@sick(r"gradients were clipped to 1e-4 at every step")
def clipped_by_the_loop_to_next_to_nothing() -> Path:
    net = Convolutional()

    def clip(step: int) -> None:
        nn.utils.clip_grad_norm_(net.parameters(), 1e-4)

    return train(SGD(net.parameters(), lr=0.05), classes(net), 150, before=clip)


@sick(r"look at the data, the labels and the loss.*moved by \S+ of its weights")
def labels_that_say_nothing() -> Path:
    net = Convolutional()
    nn.init.zeros_(net.head.weight)

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(net(torch.randn(32, 8)), torch.randint(4, (32,)))

    return train(AdamW(net.parameters(), lr=1e-3, weight_decay=0.0), loss, 300)


@sick(r"next to 0 from step \d+ on.*|fell below 1 % of its peak by step \d+ of 150. .*falls")
def two_schedulers_on_one_optimizer() -> Path:
    net = Convolutional()
    optimizer = AdamW(net.parameters(), lr=3e-3)
    outer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    inner = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return train(optimizer, classes(net), 150, scheduler=outer, after=lambda step: inner.step())


@sick(r"learning rate of 'group 0' was still rising at the end. It went from \S+ to \S+")
def warmup_of_twice_the_run() -> Path:
    net = Transformer()
    optimizer = AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=300)
    return train(optimizer, tokens(net), 150, scheduler=schedule)


@sick(r"'embed' did not move. No gradient ever reached them.* \(?\d+ parameters")
def embedding_behind_a_detach() -> Path:
    net = Transformer()
    net.embed.register_forward_hook(lambda module, given, out: out.detach())
    return train(AdamW(named(net, "embed")(3e-3)), tokens(net), 150)


@sick(r"(ran away \(\S+ ×\)|too far|loss rose from)")
def gradients_that_are_never_cleared() -> Path:
    net = Convolutional()
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    optimizer.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]
    return train(optimizer, classes(net), 150)


@sick(r"'disc' outran 'gen': \S+ to \S+")
def discriminator_without_named_networks() -> Path:
    nets = nn.ModuleDict({"gen": mlp(2, 16, 4, 2), "disc": mlp(2, 64, 2)})
    groups = [
        {"params": [*nets[name].parameters()], "name": name, "lr": lr} for name, lr in (("gen", 1e-5), ("disc", 1e-2))
    ]
    judge = nn.functional.binary_cross_entropy_with_logits
    one, none = torch.ones(64, 1), torch.zeros(64, 1)

    def losses() -> dict[str, torch.Tensor]:
        real, fake = torch.randn(64, 2) * 0.3 + 3, nets["gen"](torch.randn(64, 4))
        frozen = copy.deepcopy(nets["disc"]).requires_grad_(False)
        return {
            "disc": judge(nets["disc"](real), one) + judge(nets["disc"](fake.detach()), none),
            "gen": judge(frozen(fake), one),
        }

    return train(Adam(groups), losses, 250)
