"""A small run of plain parts, for what does not depend on the plan."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.checkpoint import save
from groupwise.schedules import cosine

PLAN = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2))])


def net(seed: int = 0, width: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


class Balancer:
    """What `balancer=` asks for; `broken` refuses after having changed."""

    def __init__(self, weight: float = 1.0, broken: bool = False) -> None:
        self.weight = weight
        self.broken = broken

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        broken, self.broken = self.broken, False
        self.weight = state["weight"]
        if broken:
            raise RuntimeError("I would rather not")


class Parts:
    """One of everything, after a few updates."""

    def __init__(self, seed: int = 0, steps: int = 3, width: int = 4) -> None:
        self.model = net(seed, width)
        self.optimizer = GroupedOptimizer(self.model, PLAN)
        self.scheduler = PlanScheduler(self.optimizer, total_steps=10)
        self.balancer = Balancer(float(seed))
        self.generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            self.model(torch.randn(5, 3, generator=self.generator)).sum().backward()
            self.optimizer.step()
            self.scheduler.step()
        torch.manual_seed(seed)

    def given(self) -> dict[str, Any]:
        """The arguments of `save` and `load`."""
        names = ("model", "optimizer", "scheduler", "balancer", "generator")
        return {name: getattr(self, name) for name in names}

    def written(self, path: Path, **more: Any) -> Path:
        save(path, **self.given(), **more)
        return path

    def held(self) -> dict[str, Any]:
        """A copy of all that a load could change."""
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        fields = {k: v for k, v in vars(self.scheduler).items() if isinstance(v, int | list | dict)}
        return copy.deepcopy(
            {
                "model": dict(self.model.state_dict()),
                "gradients": [p.grad for p in self.model.parameters()],
                "moments": [self.optimizer.state.get(p) for p in self.model.parameters()],
                "groups": groups,
                "report": self.optimizer.load_report,
                "scheduler": fields,
                "balancer": self.balancer.weight,
                "generator": self.generator.get_state(),
                "random": torch.get_rng_state(),
            }
        )


def same(a: object, b: object) -> bool:
    """Equality that reaches into containers and compares tensors by their bits."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b
