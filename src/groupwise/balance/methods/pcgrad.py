"""Gradient surgery: from each gradient, take out what points against the others.

In coefficients: gradient i after surgery is sum_k c_ik g_k. With its products with the others divided by their squares,
p_ij = g_i.g_j / |g_j|^2, taking out what points against g_j adds -p_ij to c_ij and -p_ij times g_j's own such products
to p_i: the Gramian is enough. The tasks i do not meet, and all take their next j at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Drawing, source
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import Property


@final
@dataclass(frozen=True)
class PCGrad(GramianMethod):
    """For each i, over j != i in a random order: where g_i.g_j < 0, take from g_i its part along the original g_j; add
    up (Yu et al. 2020, NeurIPS).

    Every i has an order of its own, drawn from the memory's generator. Two tasks need no order, and draw
    nothing.

    Scale: a sum; without any conflict, the plain one.

    Args:
        variant: "sum", the paper's; or "mean", 1/t of it, as in two published implementations.
        generator: what to draw from instead of the memory's generator; torch's, on the CPU. Its state is then yours to
            save (`Balancer.state_dict` has only the memory's), and files cannot hold it.
    """

    variant: Literal["sum", "mean"] = "sum"
    generator: Drawing | None = field(default=None, compare=False, repr=False)

    class_properties = frozenset({Property.HOMOGENEOUS, Property.SINGLE})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] at least 1 (1/t under "mean")."""
        if len(gramian) == 2:
            taken = surgery_of_two(gramian)
        else:
            taken = surgery(gramian, random_orders(len(gramian), source(self.generator, memory)))
        return 1.0 + taken if self.variant == "sum" else (1.0 + taken) / len(gramian)


def surgery_of_two(gramian: Tensor) -> Tensor:
    """What `surgery` adds for two tasks, which have one order."""
    (first, product), (_, second) = gramian.tolist()
    against = -product if product < 0 else 0.0
    return torch.tensor([against / first if first else 0.0, against / second if second else 0.0], dtype=torch.float64)


def surgery(gramian: Tensor, orders: Tensor) -> Tensor:
    """[t] what the gradients get on top of their sum; column i of `orders` [t - 1, t] is the order of gradient i."""
    square = gramian.diagonal()
    shares = gramian / square.where(square > 0, 1.0)
    products = shares.clone()
    taken = torch.empty(*orders.shape, 1, dtype=torch.float64)
    for against, others in zip(taken, orders, strict=True):
        torch.clamp(products.gather(1, others[:, None]), max=0, out=against)
        products.addcmul_(shares.index_select(0, others), against, value=-1)
    return torch.zeros_like(square).index_add_(0, orders.flatten(), taken.flatten(), alpha=-1)


def random_orders(t: int, generator: torch.Generator) -> Tensor:
    """[t - 1, t]: column i is a random order of the others."""
    drawn = torch.rand(t, t, generator=generator, dtype=torch.float64).fill_diagonal_(2.0)
    return drawn.argsort(dim=0)[:-1]
