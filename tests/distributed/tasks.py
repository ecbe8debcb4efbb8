"""A model of three tasks, and its losses on the joint batch of several ranks."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from groupwise.balance import Balancer
from groupwise.errors import GroupwiseError

Has = Mapping[int, tuple[str, ...]]
"""The tasks that the batch of each rank has."""

BATCH = 8
EVERYWHERE: Has = {0: ("a", "b", "c"), 1: ("a", "b", "c")}


class Model(nn.Module):
    """A trunk, and a head for each task; `heads.a` has one row, so that one of two parts of it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in "abc"})

    def forward(self, x: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        z = self.trunk(x).tanh()
        return {task: (self.heads[task](z) - ord(task) + 97).square().mean() for task in tasks}


def model() -> Model:
    """The same on every rank, in float64."""
    torch.manual_seed(0)
    return Model().double()


def batches(steps: int) -> Tensor:
    """Samples by step and rank, for two ranks."""
    return torch.randn(steps, 2, BATCH, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def joint(net: Model, x: Tensor, has: Has) -> dict[str, Tensor]:
    """Each task's mean loss over the samples that have it."""
    names = sorted({task for chosen in has.values() for task in chosen})
    having = {task: [rank for rank, chosen in has.items() if task in chosen] for task in names}
    return {task: torch.stack([net(x[rank], (task,))[task] for rank in ranks]).mean() for task, ranks in having.items()}


def trained(net: Model, balancer: Balancer, losses: Callable[[int], Mapping[str, Tensor]], steps: int) -> None:
    """Some steps of Adam, which moves a parameter whose gradient is 0 and leaves one that has none."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05, weight_decay=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        balancer.backward(losses(step))
        optimizer.step()


def message(work: Callable[[], object]) -> str:
    """What it complains of."""
    try:
        work()
    except GroupwiseError as error:
        return str(error)
    return "nothing was said"
