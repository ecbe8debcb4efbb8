"""Runs with one thing wrong each, and the words that have to stand among the first sentences, with a number."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.balance import Balancer, PCGrad, Static, Uncertainty
from groupwise.schedules import cosine
from groupwise.select import role
from tests.report.bench.jobs import classes, mlp, noted, regression, train

SICK: dict[str, tuple[Callable[[], Path], str]] = {}
AdamW, SGD = torch.optim.AdamW, torch.optim.SGD


def sick(words: str) -> Callable[[Callable[[], Path]], Callable[[], Path]]:
    """Enter a run under its name, with a pattern of what has to be said."""

    def enter(make: Callable[[], Path]) -> Callable[[], Path]:
        SICK[make.__name__] = make, words
        return make

    return enter


def planned(net: Any, *rules: Rule, clip: Any = None) -> GroupedOptimizer:
    return GroupedOptimizer(net, Plan(list(rules), clip=clip))


def two_parts() -> tuple[nn.ModuleDict, Callable[[float], Callable[[], torch.Tensor]]]:
    net = nn.ModuleDict({"calm": mlp(), "loud": nn.Linear(8, 4)})
    fit = regression(net["calm"])
    return net, lambda size: lambda: fit() + size * net["loud"](torch.randn(64, 8)).mean()  # type: ignore[operator]


@sick(r"'loud' starves 'calm' through the clip \(\d")
def joint_clip_starves_adam() -> Path:
    net, loss = two_parts()
    base = Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.0, label="loud")
    return train(planned(net, base, Rule("calm", label="calm", lr=scale(0.99)), clip=clip_norm(1.0)), loss(1e8))


@sick(r"'loud' starves 'calm' through the clip \(\d")
def joint_clip_starves_sgd() -> Path:
    net, loss = two_parts()
    base = Rule("*", optimizer="SGD", lr=1e-2, label="loud")
    return train(planned(net, base, Rule("calm", label="calm", lr=scale(0.99)), clip=clip_norm(1.0)), loss(1e6))


@sick(r"The clip \(\S+\) starves a part of 'base'")
def joint_clip_starves_a_part_of_a_group() -> Path:
    net, loss = two_parts()
    base = Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.0, label="base")
    return train(planned(net, base, clip=clip_norm(1.0)), loss(1e8))


@sick(r"learning rate of 'base' was not the plan's. The plan has .*3e-3.* up to 0.03")
def second_scheduler_overwrites() -> Path:
    net = mlp()
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=cosine(3e-3), label="base"))
    PlanScheduler(optimizer, total_steps=120)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=121)
        return train(optimizer, regression(net), scheduler=other)


@sick(r"learning rate of 'base' never moved. It was 3e-3")
def scheduler_never_stepped() -> Path:
    net = mlp()
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=cosine(3e-3), label="base"))
    PlanScheduler(optimizer, total_steps=120)
    where = Path(tempfile.mkdtemp()) / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(optimizer, regression(net), folder=where)
    return with_header(where, total_steps=120)


def with_header(where: Path, **fields: Any) -> Path:
    """The run, as an observer that is told more would have written it."""
    import json

    part = where / "part-000001.jsonl"
    first, rest = part.read_text().split("\n", 1)
    part.write_text(json.dumps({**json.loads(first), **fields}) + "\n" + rest)
    return where


@sick(r"Only the learning rate of 'group 0' was scheduled. It went from 0.01 to .*'group 1'")
def only_group_0_scheduled() -> Path:
    net = mlp()
    optimizer = AdamW(
        [{"params": net[0].parameters()}, {"params": [*net[2].parameters(), *net[4].parameters()]}], lr=1e-2
    )

    def after(step: int) -> None:
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - (step + 1) / 121)

    return train(optimizer, regression(net), after=after)


@sick(r"'pooler' did not move. No gradient ever reached them.* \(?\d+ parameters")
def dead_part() -> Path:
    net = nn.ModuleDict({"body": mlp(), "pooler": nn.Linear(8, 8)})
    rules = [
        Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.0, label="body"),
        Rule("pooler", label="pooler", lr=2e-2),
    ]
    return train(planned(net, *rules), regression(net["body"]), 30)


@sick(r"'layer0' and 'layer2' did not move. Their gradient was exactly 0")
def dead_units() -> Path:
    net = mlp(2, act=nn.ReLU)
    nn.init.constant_(net[2].bias, -100.0)
    return train(by_layer(net, "Adam", 1e-3), regression(net))


def by_layer(net: nn.Sequential, name: str, lr: float, **more: Any) -> GroupedOptimizer:
    layers = [i for i, layer in enumerate(net) if isinstance(layer, nn.Linear)]
    rules = [Rule(f"{i}.*", label=f"layer{i}", lr=scale(1 + 1e-6 * (i + 1))) for i in layers]
    return planned(net, Rule("*", optimizer=name, lr=lr, **more), *rules)


@sick(r"Gradients shrink by a factor of \S+ a level from 'layer16' to 'layer0'")
def vanishing_over_depth() -> Path:
    net = mlp(8, 8, act=nn.Sigmoid)
    return train(by_layer(net, "Adam", 1e-3), regression(net))


@sick(r"(loss rose from \S+ to \S+|not finite from step \d+)")
def diverging() -> Path:
    net = nn.Linear(8, 1)
    return train(SGD(net.parameters(), lr=1.0), regression(net, size=8), 150)


class TwoTasks(nn.Module):
    """A trunk and two heads, one of whose targets is a hundred times as large."""

    def __init__(self, factor: float = 100.0) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.small, self.large = nn.Linear(16, 1), nn.Linear(16, 1)
        self.factor = factor

    def losses(self) -> dict[str, torch.Tensor]:
        x = torch.randn(32, 8)
        z = self.trunk(x)
        small = (self.small(z) - torch.sin(3 * x[:, :1])).square().mean()
        large = (self.large(z) - self.factor * x[:, 1:2] * x[:, 2:3]).square().mean()
        return {"small": small, "large": large}


def heads(net: nn.Module, lr: float = 3e-3) -> GroupedOptimizer:
    rules = [
        Rule("*", optimizer="AdamW", lr=lr, weight_decay=0.0, label="trunk"),
        Rule(["small", "large"], label="heads", lr=scale(1.01)),
    ]
    return planned(net, *rules)


@sick(r"Task 'large' owns 'trunk'.* \((>99|\d+) %\)")
def raw_sum() -> Path:
    net = TwoTasks()
    return train(heads(net), net.losses, task_shares=True)


@sick(r"Task 'large' drowns 'small'.*%")
def raw_sum_without_shares() -> Path:
    net = TwoTasks(100.0)
    return train(heads(net, 1e-2), net.losses, 200)


@sick(r"Task 'large' owns 'trunk'.* \((>99|\d+) %\)")
def static_weights_the_wrong_way() -> Path:
    net = TwoTasks(1.0)

    def losses() -> dict[str, torch.Tensor]:
        return net.losses()

    where = Path(tempfile.mkdtemp()) / "run"
    balancer = Balancer(Static({"small": 0.002, "large": 5.0}))
    optimizer = heads(net)
    from groupwise.observe import Observer

    with Observer(optimizer, where, every={"tasks": 5, "updates": 5}) as observer:
        for _ in range(100):
            optimizer.zero_grad()
            found = losses()
            observer.tasks(found)
            observer.log(balance=balancer.backward(found))
            optimizer.step()
    return where


@sick(r"Task 'large' (owns 'trunk'|drowns 'small').*%")
def uncertainty_from_a_loud_start() -> Path:
    net = TwoTasks()
    balancer = Balancer(Uncertainty())
    optimizer = heads(net)
    where = Path(tempfile.mkdtemp()) / "run"
    from groupwise.observe import Observer

    with Observer(optimizer, where, every={"tasks": 5, "updates": 5}) as observer:
        for _ in range(60):
            optimizer.zero_grad()
            found = net.losses()
            observer.tasks(found)
            observer.log(balance=balancer.backward(found))
            optimizer.step()
    return where


@sick(r"Task 'large' owns 'trunk'.* \((>99|\d+) %\)")
def gradient_method_under_a_loud_task() -> Path:
    net = TwoTasks()
    return train(heads(net), net.losses, balancer=Balancer(PCGrad()))


@sick(r"(a|b) × (a|b) conflicted often. .*negative cosine in \d+ %|>99 %")
def tasks_that_conflict() -> Path:
    net = nn.ModuleDict({"trunk": nn.Linear(8, 8), "a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})
    net["b"].weight.data.copy_(net["a"].weight.data)  # type: ignore[union-attr]

    def losses() -> dict[str, torch.Tensor]:
        x = torch.randn(32, 8)
        z, y = net["trunk"](x), x[:, :1]
        return {"a": (net["a"](z) - y).square().mean(), "b": (net["b"](z) + y).square().mean()}

    for head in ("a", "b"):
        net[head].requires_grad_(False)
    optimizer = SGD(net["trunk"].parameters(), lr=0.01)
    return train(optimizer, losses, task_shares=True)


@sick(r"The router 'router' is under Muon.*update ratio is \S+")
def router_under_muon() -> Path:
    net = nn.ModuleDict({"router": nn.Linear(8, 4, bias=False), "experts": nn.Linear(8, 4, bias=False)})

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8)
        mixed = (net["router"](x).softmax(1) * net["experts"](x)).sum(1)
        return (mixed - x[:, 0]).square().mean()

    rule = Rule("*", optimizer="Muon", lr=0.02, momentum=0.95, weight_decay=0.0, label="hidden")
    return train(planned(net, rule, Rule("router", label="router", lr=scale(1.01))), loss)


@sick(r"Weight decay acts on 'norms'.*shrinks 'norms' by \d+ %")
def decay_on_norms() -> Path:
    net = nn.ModuleDict({"body": mlp(), "norm": nn.LayerNorm(8)})
    optimizer = planned(
        net,
        Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.3, label="body"),
        Rule("norm", label="norms", lr=scale(1.01)),
    )
    fit = regression(nn.Sequential(net["norm"], net["body"]))
    return train(optimizer, fit)


@sick(r"'head' did not move. .*head.* \(?\d+ parameters")
def frozen_head() -> Path:
    net = nn.ModuleDict({"body": nn.Sequential(nn.Linear(8, 8), nn.Tanh()), "head": nn.Linear(8, 4)})
    nn.init.zeros_(net["head"].weight)  # type: ignore[arg-type]
    rules = [Rule("*", optimizer="AdamW", lr=1e-3, label="body"), Rule("head", label="head", trainable=False)]
    return train(planned(net, *rules), classes(nn.Sequential(net["body"], net["head"])))


@sick(r"running statistics of a frozen batch norm move.*64 tensors")
def frozen_norm_whose_statistics_move() -> Path:
    net = mlp()
    where = train(AdamW(net.parameters(), lr=1e-2), regression(net))
    return noted(
        where, 10, "The running statistics of a frozen batch norm move. 64 tensors of 'backbone', in train mode."
    )


def resumed(spoil: Callable[[nn.Module, Any], Any], rate: Callable[[int], float] = lambda step: 1e-2) -> Path:
    """A run of two parts with something wrong between them."""
    net = mlp()
    optimizer: Any = AdamW(net.parameters(), lr=rate(0))

    def after(step: int) -> None:
        optimizer.param_groups[0]["lr"] = rate(step + 1)

    where = train(optimizer, regression(net), 150, after=after, finished=False)
    net, optimizer = spoil(net, optimizer)

    def then(step: int) -> None:
        optimizer.param_groups[0]["lr"] = rate(step + 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(optimizer, regression(net), 50, folder=where, after=then)


@sick(r"loss jumped from \S+ to \S+ at the resume \(step 150\)")
def weights_swapped_at_resume() -> Path:
    def swap(net: nn.Module, optimizer: Any) -> Any:
        with torch.no_grad():
            for layer in net:  # type: ignore[attr-defined]
                if isinstance(layer, nn.Linear):
                    layer.weight.copy_(layer.weight.flip(0).flip(1))
        return net, optimizer

    return resumed(swap)


@sick(r"state of 'group 0' was lost at the resume \(step 150\). .*was 0\.\d+ of the learning rate before and \S+")
def state_lost_at_resume() -> Path:
    return resumed(lambda net, optimizer: (net, AdamW(net.parameters(), lr=1e-2)))


@sick(r"learning rate of 'group 0' jumped at the resume \(step 150\). .*from \S+ to \S+")
def schedule_begins_again_at_resume() -> Path:
    return resumed(lambda net, optimizer: (net, optimizer), lambda step: 1e-2 * (1 - step / 160))


@sick(r"learning rate of 'base' is 0 from step 80 on. The last 40 of 120 steps")
def run_outlives_its_schedule() -> Path:
    net = mlp()
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=cosine(1e-2), label="base"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(optimizer, regression(net), scheduler=PlanScheduler(optimizer, total_steps=80))


@sick(r"learning rate of 'group 0' was still rising at the end. It went from \S+ to \S+")
def warmup_never_finished() -> Path:
    net = mlp()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    return train(
        optimizer, regression(net), scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: (s + 1) / 1000)
    )


@sick(r"Clipping normalised scope '\S+' \(median factor \S+\)")
def clip_that_normalises_every_step() -> Path:
    net = mlp()
    optimizer = planned(net, Rule("*", optimizer="SGD", lr=1e-2, label="base"), clip=clip_norm(0.01))
    return train(optimizer, regression(net))


@sick(r"(weights a step: too far|ran away|turns back and forth)")
def adam_far_too_large() -> Path:
    net = mlp()
    return train(AdamW(net.parameters(), lr=3.0), classes_of(net))


def classes_of(net: nn.Sequential) -> Any:
    """Four classes for a network of one output: a regression on a sign."""

    def loss() -> torch.Tensor:
        x = torch.randn(32, 8)
        return nn.functional.binary_cross_entropy_with_logits(net(x), (x[:, :1] * x[:, 1:2] > 0).float())

    return loss


@sick(r"steps are too small \(update ratio \S+\).*%")
def adam_far_too_small() -> Path:
    net = mlp()
    return train(AdamW(net.parameters(), lr=1e-8), regression(net))


@sick(r"(weights a step: too far|loss rose from|turns back and forth|ran away|not finite from step \d+)")
def accumulation_not_divided() -> Path:
    net = mlp()
    fit = regression(net)
    return train(
        SGD(net.parameters(), lr=0.1, momentum=0.9),
        lambda: fit() + fit() + fit() + fit() + fit() + fit() + fit() + fit(),
    )  # type: ignore[operator]


@sick(r"(weights a step: too far|turns back and forth|ran away)")
def muon_far_too_large() -> Path:
    net = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 1, bias=False))
    rule = Rule("*", optimizer="Muon", lr=3.0, momentum=0.95, weight_decay=0.0, label="hidden")
    return train(planned(net, rule), regression(net))


@sick(r"(weights a step: too far|turns back and forth|ran away)")
def sgd_far_too_large() -> Path:
    net = mlp(act=nn.ReLU)
    return train(SGD(net.parameters(), lr=1.3), regression(net))


@sick(r"gradient of 'group 0' is below eps \(\S+\)")
def gradient_below_eps() -> Path:
    net = mlp()
    return train(AdamW(net.parameters(), lr=1e-3), regression(net, factor=1e-9))


@sick(r"gradient of 'group 0' underflows \(\d+ % zeros\)")
def half_precision_underflow() -> Path:
    net = mlp()

    def before(step: int) -> None:
        for p in net.parameters():
            p.grad = p.grad.half().float()  # type: ignore[union-attr]

    return train(AdamW(net.parameters(), lr=1e-3, eps=1e-12), regression(net, factor=3e-7), before=before)


@sick(r"Updates of 'group 0' are lost in rounding")
def half_precision_weights() -> Path:
    net = mlp()
    for p in net.parameters():
        p.data = p.data.add(1.0)  # around 1 a bfloat16 has steps of 1/128

    def after(step: int) -> None:
        for p in net.parameters():
            p.data = p.data.bfloat16().float()

    after(0)
    optimizer = AdamW(net.parameters(), lr=1e-4, weight_decay=0.0)
    where = Path(tempfile.mkdtemp()) / "run"
    from groupwise.observe import Observer

    optimizer.register_step_post_hook(lambda *_: after(0))
    with Observer(optimizer, where, every={"updates": 5}) as observer:
        fit = regression(net)
        for _ in range(120):
            optimizer.zero_grad()
            loss = fit()
            loss.backward()  # type: ignore[union-attr]
            observer.log(loss=loss.detach())  # type: ignore[union-attr]
            optimizer.step()
    return where


@sick(r"fell below 1 % of its peak by step \d+ of 200. .*jumps")
def plateau_that_fired_at_once() -> Path:
    net = mlp()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.1, threshold=0.5)
    fit = regression(net)
    return train(optimizer, fit, 200, after=lambda step: plateau.step(1.0))


@sick(r"'d' outran 'g': \S+ to \S+")
def discriminator_outruns() -> Path:
    nets = {"g": nn.Linear(2, 2), "d": mlp(2, 32, 2)}
    optimizer = GroupedOptimizer(
        nets, Plan([Rule("*", optimizer="Adam", lr=1e-4), Rule("d/*", label="critic", lr=1e-2)])
    )
    bce = nn.functional.binary_cross_entropy_with_logits

    def losses() -> dict[str, torch.Tensor]:
        real, fake = torch.randn(32, 2) + 4.0, nets["g"](torch.randn(32, 2))
        one, zero = torch.ones(32, 1), torch.zeros(32, 1)
        d = bce(nets["d"](real), one) + bce(nets["d"](fake.detach()), zero)
        frozen = copy.deepcopy(nets["d"]).requires_grad_(False)
        return {"d": d, "g": bce(frozen(fake), one)}

    return train(optimizer, losses, 200)


@sick(r"loss did not clearly change. It went from \S+ to \S+, which is within its noise")
def noise_only() -> Path:
    net = mlp()

    def loss() -> torch.Tensor:
        return (net(torch.randn(32, 8)) - 3 * torch.randn(32, 1)).square().mean()

    return train(AdamW(net.parameters(), lr=1e-4), loss)


@sick(r"'head' did not move. Their learning rate was 0 .* \(?\d+ parameters")
def a_rate_of_0() -> Path:
    net = nn.ModuleDict({"body": mlp(1), "head": nn.Linear(1, 1)})
    optimizer = planned(net, Rule("*", optimizer="AdamW", lr=1e-2, label="body"), Rule("head", label="head", lr=0.0))
    return train(optimizer, regression(nn.Sequential(net["body"], net["head"])))


@sick(r"not finite from step 60 on")
def a_nan_on_the_way() -> Path:
    net = mlp()
    fit = regression(net)
    count = iter(range(1000))
    return train(AdamW(net.parameters(), lr=1e-2), lambda: fit() * (float("nan") if next(count) >= 60 else 1.0))  # type: ignore[operator]


@sick(r"The gradient of 'group 0' spiked \(\S+ ×\)")
def one_bad_batch() -> Path:
    net = mlp()
    fit = regression(net)
    count = iter(range(1000))
    return train(AdamW(net.parameters(), lr=1e-3), lambda: fit() * (1e5 if next(count) == 60 else 1.0))  # type: ignore[operator]


@sick(r"loss turned and rose again. Its lowest level was \S+; it ended at \S+|ran away \(\S+ ×\)")
def learns_and_then_unlearns() -> Path:
    net = mlp()
    optimizer = AdamW(net.parameters(), lr=1e-2)

    def after(step: int) -> None:
        if step == 80:
            optimizer.param_groups[0]["lr"] = 1.0

    return train(optimizer, regression(net), 160, after=after)


__all__ = ["SICK", "role"]
