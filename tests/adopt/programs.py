"""Training programs as people write them: models, ways to make groups, classes, schedulers, at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

Groups = list[dict[str, Any]]
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Block(nn.Module):
    """Attention's and a feed-forward's matrices, without attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two residual branches."""
        x = x + self.attn(self.ln_1(x))
        out: torch.Tensor = x + self.mlp(self.ln_2(x))
        return out


class Net(nn.Module):
    """An embedding, some blocks, a norm, and one or two heads; the decoder's table may be the embedding's."""

    def __init__(self, blocks: int, tied: bool, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList(Block(6) for _ in range(blocks))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 11, bias=not tied)
        if tied:
            self.head.weight = self.embed.weight
        self.extra = nn.Linear(6, 3) if heads > 1 else None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """One number, to be made small."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        loss = self.head(x).logsumexp(-1).mean() + self.head(x).square().mean()
        out: torch.Tensor = loss if self.extra is None else loss + self.extra(x).square().mean()
        return out


class Signs(torch.optim.Optimizer):
    """A class of somebody's own."""

    def __init__(self, params: Any, lr: float = 0.01, floor: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "floor": floor, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no loss is returned
        """A step along the signs of the gradient, as far as they are above a floor."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(group["lr"] * p.grad.sign() * (p.grad.abs() > group["floor"]))


rates = st.sampled_from([1e-4, 3e-4, 5e-4, 1e-3, 2e-3, 0.01, 0.0123456789])
decays = st.sampled_from([0.0, 0.01, 0.05, 0.1])
CLASSES: dict[type[torch.optim.Optimizer], dict[str, st.SearchStrategy[Any]]] = {
    torch.optim.SGD: {"momentum": st.sampled_from([0.0, 0.9]), "weight_decay": decays, "foreach": st.just(False)},
    torch.optim.Adam: {"betas": st.sampled_from([(0.9, 0.999), (0.8, 0.95)]), "foreach": st.just(False)},
    torch.optim.AdamW: {
        "betas": st.sampled_from([(0.9, 0.999), (0.9, 0.95)]), "eps": st.sampled_from([1e-8, 1e-6]),
        "weight_decay": decays, "amsgrad": st.booleans(), "foreach": st.just(False),
    },
    torch.optim.Adafactor: {"weight_decay": decays, "d": st.sampled_from([1.0, 2.0])},
    torch.optim.RMSprop: {"alpha": st.sampled_from([0.99, 0.9]), "foreach": st.just(False)},
    torch.optim.NAdam: {"momentum_decay": st.sampled_from([4e-3, 1e-2]), "foreach": st.just(False)},
    Signs: {"floor": st.sampled_from([0.0, 1e-4]), "weight_decay": decays},
}  # fmt: skip
"""Classes, and what is drawn for each group; `foreach` is said, since a plan takes fused kernels where nothing is."""

_PER_GROUP = ("weight_decay", "betas", "eps", "momentum", "floor")


@st.composite
def models(draw: Draw) -> Net:
    """A model, some of it frozen."""
    torch.manual_seed(draw(st.integers(0, 5)))
    net = Net(draw(st.integers(1, 4)), draw(st.booleans()), draw(st.integers(1, 2)))
    for part in draw(st.sampled_from([[], ["embed"], ["embed", "blocks"], ["blocks.0"], ["norm"]])):
        net.get_submodule(part).requires_grad_(False)
    return net


def _trained(net: Net) -> dict[str, nn.Parameter]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def whole(draw: Draw, net: Net) -> Groups:
    """All parameters in one group, frozen ones as well."""
    return [{"params": list(net.parameters())}]


def no_decay(draw: Draw, net: Net) -> Groups:
    """The list of names that everybody copies."""
    words = draw(st.sampled_from([["bias", "ln_1.weight", "ln_2.weight", "norm.weight"], ["bias"], ["bias", "embed"]]))
    named = _trained(net)
    without = [p for name, p in named.items() if any(word in name for word in words)]
    return [
        {"params": [p for name, p in named.items() if not any(word in name for word in words)], "weight_decay": 0.1},
        {"params": without, "weight_decay": 0.0},
    ]


def by_dimensions(draw: Draw, net: Net) -> Groups:
    """As nanoGPT has it."""
    named = _trained(net)
    return [
        {"params": [p for p in named.values() if p.ndim >= 2], "name": "decay", "weight_decay": 0.1},
        {"params": [p for p in named.values() if p.ndim < 2], "name": "no decay", "weight_decay": 0.0},
    ]


def ladder(draw: Draw, net: Net) -> Groups:
    """Layer-wise decay, with decay of matrices alone: a group for each level and kind."""
    base, factor, top = draw(rates), draw(st.sampled_from([0.75, 0.9, 0.65])), len(net.blocks) + 1
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, p in _trained(net).items():
        level = 0 if name.startswith("embed") else int(name.split(".")[1]) + 1 if name.startswith("blocks") else top
        groups.setdefault((level, p.ndim > 1), []).append(p)
    return [
        {"params": held, "lr": base * factor ** (top - level), "weight_decay": 0.05 if decays else 0.0}
        for (level, decays), held in groups.items()
    ]


def by_module(draw: Draw, net: Net) -> Groups:
    """A group for each module, with a rate of its own; some modules are forgotten."""
    parts = [part for part in net.children() if draw(st.booleans()) or part is net.head]
    known: set[int] = set()
    groups: Groups = []
    for part in parts:
        own = [p for p in part.parameters() if id(p) not in known]
        known |= {id(p) for p in own}
        groups.append({"params": own, "lr": draw(rates)})
    return groups


def scattered(draw: Draw, net: Net) -> Groups:
    """Without rhyme or reason."""
    chosen: dict[int, list[nn.Parameter]] = {}
    for p in net.parameters():
        chosen.setdefault(draw(st.integers(0, 3)), []).append(p)
    chosen.pop(3, None)
    return [{"params": held, "lr": draw(rates)} for held in chosen.values()]


WAYS = (whole, no_decay, by_dimensions, ladder, by_module, scattered)


@st.composite
def programs(draw: Draw) -> tuple[Net, list[torch.optim.Optimizer]]:
    """A model and one or two optimizers that share out its parameters."""
    net = draw(models())
    groups = [group for group in draw(st.sampled_from(WAYS))(draw, net) if group["params"]]
    cut = draw(st.sampled_from([0, 0, 1]))
    shares = [share for share in (groups[:cut], groups[cut:]) if share]
    return net, [_optimizer(draw, share) for share in shares]


def _optimizer(draw: Draw, groups: Groups) -> torch.optim.Optimizer:
    cls = draw(st.sampled_from(sorted(CLASSES, key=lambda each: each.__name__)))
    drawn = {name: draw(values) for name, values in CLASSES[cls].items()}
    own = [{k: v for k, v in g.items() if k in ("params", "lr", "name") or k in drawn} for g in groups]
    for group in own:
        if draw(st.integers(0, 4)) == 0:
            group |= {k: draw(values) for k, values in CLASSES[cls].items() if k in _PER_GROUP}
    build: Any = cls
    made: torch.optim.Optimizer = build(own, lr=draw(rates), **drawn)
    return made


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "multi step": lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 5], 0.3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.25, 4),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 6),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 9, 2.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "cosine to a floor": lambda o: lr_scheduler.CosineAnnealingLR(o, 20, 1e-5),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, 2),
    "warmup, then cosine": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 5), lr_scheduler.CosineAnnealingLR(o, 15)], [5]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)], o
    ),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, [3 * g["lr"] for g in o.param_groups], 20),
    "one cycle of rates alone": lambda o: lr_scheduler.OneCycleLR(o, 0.01, 20, cycle_momentum=False, three_phase=True),
    "cycles": lambda o: lr_scheduler.CyclicLR(o, 1e-4, 1e-2, 3, 4, mode="triangular2"),
}
