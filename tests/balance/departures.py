"""Where TorchJD 0.18 departs from a method's definition, each with gradients that show it.

Whoever documents the differences takes them from this list; the tests hold every entry to both sides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchjd.aggregation as peer
from torch import Tensor

from groupwise.balance.method import GramianMethod
from groupwise.balance.methods import IMTL_G, MGDA, PCD, CAGrad, DualProj, GradVac, NashMTL, UPGrad

J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
HALTED = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.2, 0.5]], dtype=torch.float64)


def _imbalanced() -> Tensor:
    rows = torch.randn(10, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows * torch.logspace(0, 3, 10, dtype=torch.float64)[:, None]


def _uneven() -> Tensor:
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return rows * torch.logspace(-2, 2, 4, dtype=torch.float64)[:, None]


def _conflicts(jacobian: Tensor, d: Tensor) -> bool:
    return bool((jacobian @ d < -1e-4 * jacobian.norm(dim=1) * d.norm()).any())


def _halts(jacobian: Tensor, d: Tensor) -> bool:
    return not bool(d.any())


def _is_the_mean(jacobian: Tensor, d: Tensor) -> bool:
    return torch.allclose(d, jacobian.mean(0), rtol=1e-3)


def _is_longer_than_a_tenth_more(jacobian: Tensor, d: Tensor) -> bool:
    w = MGDA()(jacobian @ jacobian.T)
    return float(d.norm()) > 1.1 * float((jacobian.T @ w).norm())


def _is_not_that_of_larger_gradients(method: GramianMethod) -> Callable[[Tensor, Tensor], bool]:
    def differs(jacobian: Tensor, d: Tensor) -> bool:
        large = jacobian * 2.0**40
        expected = large.T @ method(large @ large.T) / 2.0**40
        return float((d - expected).norm()) > 1e-3 * float(expected.norm())

    return differs


def _is_biased(jacobian: Tensor, d: Tensor) -> bool:
    """The exact update is orthogonal to a gradient that limits it; this one has a product with it."""
    exact = jacobian.T @ UPGrad()(jacobian @ jacobian.T)
    return float((d - exact).norm()) > 1e-4 * float(exact.norm())


def _is_no_bargain(jacobian: Tensor, d: Tensor) -> bool:
    exact = jacobian.T @ NashMTL(None)(jacobian @ jacobian.T)
    return float((d - exact).norm()) > 1e-2 * float(exact.norm())


@dataclass(frozen=True, eq=False)
class Departure:
    """What TorchJD does on `jacobian`, in words, and a predicate that is true of its update and false of ours."""

    words: str
    theirs: Callable[[], Callable[[Tensor], Tensor]]
    ours: GramianMethod
    jacobian: Tensor
    shows: Callable[[Tensor, Tensor], bool]

    def __str__(self) -> str:
        return self.words


DEPARTURES = (
    Departure("UPGrad becomes the mean for small gradients", peer.UPGrad, UPGrad(), 1e-3 * J, _is_the_mean),
    Departure("DualProj becomes the mean for small gradients", peer.DualProj, DualProj(), 1e-3 * J, _is_the_mean),
    Departure("CAGrad stands still for small gradients", lambda: peer.CAGrad(0.5), CAGrad(), 1e-3 * J, _halts),
    Departure(
        "CAGrad stands still once two tasks are opposed, whatever a third wants",
        lambda: peer.CAGrad(0.5),
        CAGrad(),
        HALTED,
        _halts,
    ),
    Departure("UPGrad is biased in the fourth digit by its reg_eps", peer.UPGrad, UPGrad(), J, _is_biased),
    Departure(
        "MGDA's vector is more than a tenth too long when lengths differ",
        peer.MGDA,
        MGDA(),
        _imbalanced(),
        _is_longer_than_a_tenth_more,
    ),
    Departure(
        "GradVac's epsilon shows in small gradients",
        peer.GradVac,
        GradVac(),
        1e-5 * J,
        _is_not_that_of_larger_gradients(GradVac()),
    ),
    Departure(
        "PCD's epsilon shows in small gradients",
        peer.PCD,
        PCD(),
        1e-5 * J,
        _is_not_that_of_larger_gradients(PCD()),
    ),
    Departure("IMTL-G stands still for large gradients", peer.IMTLG, IMTL_G(), 1e13 * J, _halts),
    Departure(
        "IMTL-G follows rounding where two gradients are opposite",
        peer.IMTLG,
        IMTL_G(),
        torch.stack([J[0], -3 * J[0]]),
        lambda jacobian, d: bool(d.any()),
    ),
    Departure(
        "Nash-MTL's iteration ends elsewhere when lengths differ",
        lambda: peer.NashMTL(4, max_norm=0.0),
        NashMTL(None),
        _uneven(),
        _is_no_bargain,
    ),
)
