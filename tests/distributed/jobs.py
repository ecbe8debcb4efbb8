"""One model, its plans and one training loop, for one process on a joint batch and for ranks on their parts of it.

Numbers are in float64: what sums in another order differs in the last bits only, so equality can be asked for tightly,
through Muon's iterations in bfloat16 as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from groupwise import (
    GroupedOptimizer,
    Plan,
    PlanScheduler,
    Rule,
    _ranks,
    clip_adaptive,
    clip_norm,
    clip_value,
    layer_decay,
)
from groupwise.schedules import cosine, linear

ROUNDING = 1e-10
STEPS = 6


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Inside, a rank looks for the notes of others for so long."""
    before, _ranks.PATIENCE = _ranks.PATIENCE, seconds
    try:
        yield
    finally:
        _ranks.PATIENCE = before


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.norm(torch.tanh(self.linear(x)))
        return out


class Net(nn.Module):
    """A word table, three numbered blocks, a temperature of one element (an empty part for most ranks) and a head."""

    def __init__(self, sparse: bool = False, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(9, 6, sparse=sparse)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.temperature = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(6, 3)
        self.to(dtype)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embed(words).mean(1)
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(x) * self.temperature
        return out


BASE = Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="2 steps"), weight_decay=0.1)
EMBED = Rule("embed.*", optimizer="SGD", lr=linear(0.2, 0.0), momentum=0.9, weight_decay=0.0)
MUON = Rule("blocks.*.linear.weight", optimizer="Muon", lr=cosine(0.02), momentum=0.9, weight_decay=0.01)
PLANS: Mapping[str, Plan] = {
    "adamw": Plan([BASE, Rule("*", lr=layer_decay(0.75))]),
    "adamw and sgd, clipped by rule and as a whole": Plan(
        [BASE, Rule("*", clip=clip_norm(0.1)), EMBED, Rule("embed.*", clip=clip_norm(0.05))], clip=clip_norm(0.08)
    ),
    "with muon, clipped by module": Plan([BASE, EMBED, MUON, Rule("*", clip=clip_norm(0.02, per="module"))]),
    "with adafactor": Plan([BASE, Rule("blocks.*", optimizer="Adafactor", lr=1e-2, weight_decay=0.0)]),
    "clipped by unit": Plan([BASE, EMBED, Rule("*", clip=clip_adaptive(0.01))]),
    "clipped by value": Plan([BASE, EMBED], clip=clip_value(0.01)),
}


def joint(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words of shape [16, 3], classes of shape [16]."""
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, 9, (16, 3), generator=generator), torch.randint(0, 3, (16,), generator=generator)


def part(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's part of the joint batch."""
    words, classes = joint(step)
    rank, count = dist.get_rank(), dist.get_world_size()
    return words.chunk(count)[rank], classes.chunk(count)[rank]


def backward(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
    loss.backward()
    return loss


class Run:
    """A model, its optimizer and its scheduler; `steps` trains, on the joint batch or on this rank's part."""

    def __init__(self, net: nn.Module, plan: Plan, model: nn.Module | None = None, alone: bool = False) -> None:
        self.net = net
        self.model = net if model is None else model
        self.alone = alone
        self.optimizer = GroupedOptimizer(net, plan)
        self.scheduler = PlanScheduler(self.optimizer, total_steps=20)

    def steps(self, steps: Iterable[int]) -> "Run":
        for step in steps:
            self.optimizer.zero_grad()
            backward(self.model, joint(step) if self.alone else part(step))
            self.optimizer.step()
            self.scheduler.step()
        return self

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Every parameter, whole."""
        return {name: whole(p).clone() for name, p in self.net.named_parameters()}

    @property
    def measured(self) -> dict[str, torch.Tensor]:
        """What clipping found in the last step, norms and factors."""
        return {scope: torch.stack([whole(x) for x in found]) for scope, found in self.optimizer.measured.items()}


def alone(plan: Plan, **options: Any) -> Run:
    """One process on the joint batch."""
    return Run(Net(**options), plan, alone=True)


def ddp(plan: Plan, **options: Any) -> Run:
    """Ranks under DistributedDataParallel; the optimizer is built first."""
    run = Run(Net(**options), plan)
    run.model = DistributedDataParallel(run.net)
    return run


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def sharded(net: Net, over: DeviceMesh | None = None) -> Net:
    """The model under FSDP2: every block by itself, then the rest."""
    over = over or mesh()
    for block in net.blocks:
        fully_shard(block, mesh=over)
    fully_shard(net, mesh=over)
    return net


def fsdp(plan: Plan, over: DeviceMesh | None = None) -> Run:
    """Ranks under FSDP2."""
    return Run(sharded(Net(), over), plan)


def whole(t: torch.Tensor) -> torch.Tensor:
    t = t.detach()
    return t.full_tensor() if isinstance(t, DTensor) else t


def apart(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> float:
    """The largest difference; infinite if they do not hold the same things."""
    if ours.keys() != theirs.keys():
        return float("inf")
    return max((float((ours[name] - theirs[name]).abs().max()) for name in ours), default=0.0)


def same(weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether every rank holds the same bits."""
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, {name: w.tolist() for name, w in weights.items()})
    return all(other == gathered[0] for other in gathered)
