"""A small run of many parts, and random plans for it: what a checkpoint has to bring back bit for bit."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import nn

from groupwise import (
    GroupedOptimizer,
    Plan,
    PlanScheduler,
    Rule,
    after,
    clip_adaptive,
    clip_norm,
    clip_value,
    layer_decay,
    scale,
    unfreeze_down,
    until,
)
from groupwise.checkpoint import Loaded, load, save
from groupwise.schedules import cosine, exponential, linear, plateau

STEPS = 8
torch.sparse.check_sparse_tensor_invariants.disable()  # said aloud, or torch warns once


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(torch.tanh(self.linear(x))))


class Net(nn.Module):
    """A word table (its gradient sparse or dense), two blocks that draw random numbers and keep buffers, a head."""

    def __init__(self, sparse: bool, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(11, 6, sparse=sparse)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(6, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embed(words).mean(1)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@dataclasses.dataclass
class Run:
    """Everything that a training script holds, in the state in which the script makes it."""

    plan: Plan
    sparse: bool = False
    twice: bool = False
    amp: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        names = ("left", "right") if self.twice else ("",)
        self.nets = {name: Net(self.sparse, self.seed + i) for i, name in enumerate(names)}
        self.model = self.nets if self.twice else self.nets[""]
        self.optimizer = GroupedOptimizer(self.model, self.plan)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2) if self.amp else None
        self.scheduler = PlanScheduler(
            self.optimizer, total_steps=STEPS, steps_per_epoch=4, scaler=self.scaler if not self.twice else None
        )
        self.noise = torch.Generator().manual_seed(self.seed + 7)

    def train(self, steps: Iterable[int]) -> None:
        for t in steps:
            losses = [self._update(name, net, t) for name, net in self.nets.items()]
            if self.scaler is not None:
                self.scaler.update()
            self.scheduler.step()
            if self.scheduler.state_dict()["plateaus"]:
                self.scheduler.observe(sum(losses))

    def _update(self, name: str, net: Net, t: int) -> float:
        draw = torch.Generator().manual_seed(100 + t)
        words = torch.randint(0, 11, (6, 3), generator=draw)
        classes = torch.randint(0, 3, (6,), generator=draw)
        jitter = torch.rand((), generator=self.noise)
        loss = nn.functional.cross_entropy(net(words), classes) * (1 + jitter)
        if self.amp and t == 3:
            loss = loss * float("inf")
        step = self.optimizer.only(name) if self.twice else self.optimizer
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if self.scaler is None:
            step.step()
        else:
            self.scaler.step(step)
        step.zero_grad()
        return float(loss.detach())

    def save(self, path: Path) -> None:
        save(
            path,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            scaler=self.scaler,
            generator=self.noise,
        )

    def load(self, path: Path) -> Loaded:
        return load(
            path,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            scaler=self.scaler,
            generator=self.noise,
        )

    def everything(self) -> dict[str, object]:
        """Each weight, buffer, moment, value and counter, by a name that tells where it is."""
        found: dict[str, object] = {}
        for network, net in self.nets.items():
            found |= {f"{network}:{name}": value.clone() for name, value in net.state_dict().items()}
            found |= {f"{network}:{name} trains": p.requires_grad for name, p in net.named_parameters()}
        for group in self.optimizer.param_groups:
            for name, p in zip(group["param_names"], group["params"], strict=True):
                found |= {f"{name}/{key}": value for key, value in self.optimizer.state.get(p, {}).items()}
            found |= {f"{group['name']}.{key}": value for key, value in group.items() if key != "params"}
        found |= {f"scheduler.{key}": value for key, value in self.scheduler.state_dict().items()}
        found["random"] = torch.get_rng_state()
        return found | {"noise": self.noise.get_state()}


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """The names under which two runs do not hold the same bits."""
    return [name for name in {**one, **other} if not _same(one.get(name), other.get(name))]


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


RATES: list[Callable[[float], object]] = [
    lambda peak: peak,
    lambda peak: cosine(peak, warmup="25%"),
    lambda peak: linear(peak, peak / 10),
    lambda peak: exponential(peak, 0.8, every="1 epochs"),
    lambda peak: plateau(peak, factor=0.5, patience=1),
    lambda peak: linear(0.0, peak, over="3 steps").then(plateau(peak, factor=0.3, patience=0), at="3 steps"),
]
CLIPS = [clip_norm(0.5), clip_norm(0.2, per="module"), clip_norm(0.3, per="network"), clip_value(0.01)]
TIMES = [after("3 steps"), until("4 steps"), unfreeze_down("2 steps"), after("50%")]
UNITS = [None, clip_adaptive(0.05)]
HEAVY = {"optimizer": "SGD", "momentum": 0.9, "nesterov": True, "weight_decay": 0.0}
SPARSE = [
    {"optimizer": "SparseAdam", "betas": (0.9, 0.99)},
    {"optimizer": "Adagrad", "lr_decay": 0.1},
    {"optimizer": "SGD", "momentum": 0.0},
]
DENSE = [
    {"optimizer": "Adagrad"},
    {"optimizer": "RMSprop", "momentum": 0.5, "centered": True},
    {"optimizer": "NAdam", "betas": (0.9, 0.99)},
    {"optimizer": "AdamW"},
]


@st.composite
def runs(draw: st.DrawFn) -> Callable[[int], Run]:
    """A maker of runs: the same plan each time, the weights by seed."""
    sparse = draw(st.booleans())

    def rate(peak: float) -> object:
        return draw(st.sampled_from(RATES))(peak)

    def some(*choices: dict[str, object]) -> dict[str, object]:
        return draw(st.sampled_from([{}, *choices]))

    own = some({"betas": (linear(0.8, 0.95), 0.99)}, {"amsgrad": True})
    decay = some({"weight_decay": linear(0.0, 0.1)}) or {"weight_decay": 0.0}
    clip = draw(st.sampled_from([None, *CLIPS]))
    rules = [Rule("*", optimizer="AdamW", lr=rate(1e-2), clip=clip, **own, **decay)]
    heavy = some(
        {"optimizer": "Muon", "lr": rate(0.02), "momentum": 0.9, "weight_decay": 0.01}, HEAVY | {"lr": rate(0.1)}
    )
    if heavy:
        rules.append(Rule("*linear.weight", label="heavy", optional=True, clip=draw(st.sampled_from(UNITS)), **heavy))
    table = draw(st.sampled_from(SPARSE if sparse else DENSE))
    rules.append(Rule("*embed.*", label="table", optional=True, lr=rate(0.05), weight_decay=0.0, **table))
    if draw(st.booleans()):
        rules.append(Rule("*blocks.*", label="blocks", trainable=draw(st.sampled_from(TIMES))))
    rules.append(Rule("*blocks.*", label="down", lr=draw(st.sampled_from([layer_decay(0.5), scale(3.0)]))))
    plan = Plan(rules, clip=draw(st.sampled_from([None, clip_norm(2.0)])), values={"teacher": cosine(0.9, end=1.0)})
    twice, amp = draw(st.booleans()), draw(st.booleans())
    return lambda seed: Run(plan, sparse, twice, amp, seed)
