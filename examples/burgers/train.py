"""Burgers' equation by a network: three losses in conflict, balanced.    python -m examples.burgers.train

u_t + u u_x = ν u_xx on -1 < x < 1, 0 < t < 1, with u(0, x) = -sin πx and u(t, ±1) = 0: a wave that steepens to a front.
A physics-informed network (Raissi et al. 2019) is trained on the equation's residual, the initial values and the
boundary values; no value inside is known to it. It is judged by the exact solution, which the transformation of Cole
and Hopf gives as a quotient of two integrals (Basdevant et al. 1986), computed by quadrature.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples.program import options, tell
from groupwise import Balancer, GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
VISCOSITY = 0.03 / math.pi
STEPS, POINTS, WIDTH, LAYERS = 600, 128, 32, 3


def exact(time: np.ndarray, place: np.ndarray) -> np.ndarray:
    """u at times t > 0 and places x, which have one shape: Cole and Hopf, by Gauss and Hermite with 200 nodes."""
    nodes, weights = np.polynomial.hermite.hermgauss(200)
    shifted = place[..., None] - 2 * np.sqrt(VISCOSITY * time)[..., None] * nodes
    exponent = -np.cos(np.pi * shifted) / (2 * np.pi * VISCOSITY)
    density = weights * np.exp(exponent - exponent.max(-1, keepdims=True))
    return -(np.sin(np.pi * shifted) * density).sum(-1) / density.sum(-1)


@cache
def load(validation: bool = False) -> tuple[Tensor, Tensor]:
    """Points (t, x) [n, 2] and u [n, 1] there; those of the search lie between those of the test in time."""
    times = np.linspace(0.075, 0.975, 19) if validation else np.linspace(0.1, 1.0, 19)
    grid = np.stack(np.meshgrid(times, np.linspace(-1, 1, 101), indexing="ij"), -1).reshape(-1, 2)
    values = exact(grid[:, 0], grid[:, 1])[:, None]
    return torch.tensor(grid, dtype=torch.float32), torch.tensor(values, dtype=torch.float32)


def networks(seed: int) -> nn.ModuleDict:
    """(t, x) [n, 2] to u [n, 1]: three hidden layers of tanh, 2,241 parameters."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs in (2, *[WIDTH] * (LAYERS - 1)):
        layers += [nn.Linear(inputs, WIDTH), nn.Tanh()]
    return nn.ModuleDict({"u": nn.Sequential(*layers, nn.Linear(WIDTH, 1))})


def losses_of(model: nn.ModuleDict, generator: torch.Generator) -> dict[str, Tensor]:
    """Mean squares, at new random points: of the equation's residual, and of what is wrong at t = 0 and at x = ±1."""
    inside = torch.rand(POINTS, 2, generator=generator) * torch.tensor([1.0, 2.0]) - torch.tensor([0.0, 1.0])
    inside.requires_grad_()
    u = model["u"](inside)
    (slopes,) = torch.autograd.grad(u.sum(), inside, create_graph=True)
    (bends,) = torch.autograd.grad(slopes[:, 1].sum(), inside, create_graph=True)
    residual = slopes[:, 0] + u[:, 0] * slopes[:, 1] - VISCOSITY * bends[:, 1]

    start, edge = torch.rand(2, POINTS // 2, generator=generator)
    places, sides = 2 * start - 1, torch.tensor([-1.0, 1.0]).repeat(POINTS // 4)
    begun = model["u"](torch.stack([torch.zeros_like(places), places], 1))[:, 0]
    return {
        "equation": residual.square().mean(),
        "start": (begun + torch.sin(math.pi * places)).square().mean(),
        "edge": model["u"](torch.stack([edge, sides], 1)).square().mean(),
    }


def train(
    model: nn.ModuleDict, optimizer: Optimizer, scheduler: LRScheduler, balance: Balancer | Mapping[str, float],
    steps: int, seed: int, observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop, with static weights by hand; or `balancer.backward(losses)` in their place."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        losses = losses_of(model, generator)
        optimizer.zero_grad()
        if isinstance(balance, Balancer):
            result = balance.backward(losses)
            if observer is not None:
                observer.log(balance=result)
        else:
            if observer is not None:
                observer.tasks(losses, weights=balance)
            torch.stack([balance[task] * loss for task, loss in losses.items()]).sum().backward()
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.ModuleDict, points: Tensor, values: Tensor) -> dict[str, float]:
    """The norm of the error over that of the solution, in per cent; infinite for a network that diverged."""
    error = 100 * float((model["u"](points) - values).norm() / values.norm())
    return {"error": error if math.isfinite(error) else math.inf}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("burgers", STEPS, argv)
    torch.set_num_threads(1)

    model = networks(seed=0)
    optimizer = GroupedOptimizer(dict(model.items()), Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    balancer = Balancer.load(PLAN)
    sys.stdout.write(f"{optimizer.resolution}\n{balancer.method}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, balancer, given.steps, seed=0, observer=observer)
    tell(f"error {score(model, *load())['error']:.1f} %", observer.path)


if __name__ == "__main__":
    main()
