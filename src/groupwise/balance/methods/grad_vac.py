"""Gradient vaccine: bring each pair of gradients to the cosine that it has on average.

If the cosine phi of the current g_i with g_j is below its target p, the multiple of g_j that brings it to p is

    |g_i| (p sqrt(1 - phi^2) - phi sqrt(1 - p^2)) / (|g_j| sqrt(1 - p^2)).

With the target at 0 this is PCGrad. In words: g_i has a part along g_j and a rest r across it, and the part along is
raised to |r| p / sqrt(1 - p^2) if it is below. All is counted in units of the original gradients' lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, nan, sqrt
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Drawing, Fraction, source
from groupwise.balance.directions import lengths
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.methods.pcgrad import random_orders
from groupwise.balance.properties import Property

_TARGET = "target cosine"
_GONE = 2.0**-46  # of a gradient's square: what is left of it is rounding, and has no direction


@final
@dataclass(frozen=True)
class GradVac(GramianMethod):
    """For each i, over j != i in a random order: raise the cosine of g_i with g_j to its moving average; add up
    (Wang et al. 2021, ICLR).

    The average of each ordered pair starts at 0 and is kept by the names of the tasks; a zero gradient (also one that
    the others have used up) leaves it alone.

    Scale: a sum, as PCGrad's.

    Args:
        beta: how much of the current cosine enters the average.
        variant: "paper", where the average takes in every cosine; or "corrected", only those that were raised.
        generator: what to draw from instead of the memory's generator; torch's, on the CPU. Its state is then yours to
            save (`Balancer.state_dict` has only the memory's), and files cannot hold it.
    """

    beta: Fraction = 0.5
    variant: Literal["paper", "corrected"] = "paper"
    generator: Drawing | None = field(default=None, compare=False, repr=False)

    class_properties = frozenset({Property.HOMOGENEOUS, Property.SINGLE})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] weights; then the averages are kept."""
        pairs = memory.of_pairs(_TARGET, context.tasks, 0.0).T
        two = len(gramian) == 2
        orders = torch.tensor([[1, 0]]) if two else random_orders(len(gramian), source(self.generator, memory))
        targets = pairs.gather(0, orders)
        added, cosines, raised = (vaccine_of_two if two else vaccine)(gramian, orders, targets)
        taken_in = raised if self.variant == "corrected" else ~cosines.isnan()
        pairs = pairs.scatter(0, orders, targets.lerp(cosines, self.beta).where(taken_in, targets))
        memory.keep_pairs(_TARGET, context.tasks, pairs.T)
        return 1.0 + added


def vaccine_of_two(gramian: Tensor, orders: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `vaccine` returns for two tasks, which have one order."""
    (first, product), (_, second) = gramian.tolist()
    n = sqrt(first), sqrt(second)
    cosine = max(-1.0, min(1.0, product / n[0] / n[1])) if first and second else nan
    levels = [t * sqrt((1 - cosine**2) / (1 - t**2)) if abs(t) < 1 else -inf for t in targets[0].tolist()]
    raised = [level > cosine for level in levels]
    added = [(levels[i] - cosine) * n[i] / n[1 - i] if raised[i] else 0.0 for i in (1, 0)]
    return torch.tensor(added, dtype=torch.float64), torch.full_like(targets, cosine), torch.tensor([raised])


def vaccine(gramian: Tensor, orders: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the gradients get on top of their sum; column i of `orders` [t - 1, t] is the order of gradient i.

    Returns:
        added [t]; and, in that order, the cosines [t - 1, t] that were met (nan with a zero gradient) and which of them
        were raised.
    """
    length = lengths(gramian)
    present = length > 0
    size = length.where(present, 1.0)
    shares = gramian / size.outer(size)
    slopes = (targets / (1 - targets**2).sqrt()).where((targets < 1) & present[orders], -torch.inf)
    products, count = shares.clone(), len(orders)
    along, level = torch.empty(2, count, len(size), dtype=torch.float64)
    squares = torch.empty(count + 1, len(size), dtype=torch.float64)
    squares[0] = present
    columns = orders[:, :, None].unbind(), along[:, :, None].unbind(), level[:, :, None].unbind()
    steps = zip(orders.unbind(), slopes.unbind(), *columns, along.unbind(), level.unbind(), strict=True)
    square, *later = squares.unbind()
    root, change = torch.empty_like(size), torch.empty(len(size), 1, dtype=torch.float64)
    for (others, slope, index, before, after, b, a), following in zip(steps, later, strict=True):
        torch.gather(products, 1, index, out=before)
        torch.addcmul(square, b, b, value=-1, out=following).clamp_(min=0)
        torch.fmax(b, torch.sqrt(following, out=root).mul_(slope), out=a)
        products.addcmul_(shares.index_select(0, others), torch.sub(after, before, out=change))
        square = following.addcmul_(a, a)
    squares = squares[:-1]
    change = (level - along) * size / size[orders]
    added = torch.zeros_like(size).index_add_(0, orders.flatten(), change.flatten())
    met = present[orders] & (squares > _GONE)
    return added, (along / squares.sqrt()).clamp(-1, 1).where(met, torch.nan), level > along
