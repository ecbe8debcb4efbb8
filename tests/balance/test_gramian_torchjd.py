"""The real TorchJD, method by method: equal where it is right, and a list of where it is not."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
import torchjd.aggregation as peer
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.methods import (
    IMTL_G,
    MGDA,
    PCD,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    FromGramian,
    FromJacobian,
    GradVac,
    NashMTL,
    PCGrad,
    Smoothed,
    UPGrad,
)
from tests.balance.departures import DEPARTURES, Departure


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What its solvers warn of is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sampled(sizes: tuple[int, ...] = (1, 2, 3, 5, 8)) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(4)
    for k in sizes:
        for _ in range(4):
            yield torch.randn(k, 3 * k + 2, generator=generator, dtype=torch.float64) + 0.2


def of(method: GramianMethod, jacobian: Tensor, memory: Memory | None = None) -> Tensor:
    losses = torch.ones(len(jacobian), dtype=torch.float64)
    told = MethodContext(tuple("abcdefghij"[: len(jacobian)]), losses)
    return jacobian.T @ method.weights(jacobian @ jacobian.T, told, memory or Memory())


EQUAL: dict[str, tuple[GramianMethod, Callable[[], Callable[[Tensor], Tensor]], float]] = {
    "MGDA, to where Frank-Wolfe gets": (MGDA(), lambda: peer.MGDA(epsilon=1e-12, max_iters=1_000), 5e-2),
    "CAGrad, to where its solver stops": (CAGrad(), lambda: peer.CAGrad(c=0.5), 1e-4),
    "CAGrad, wide": (CAGrad(1.2), lambda: peer.CAGrad(c=1.2), 1e-4),
    "IMTL-G": (IMTL_G(), peer.IMTLG, 1e-9),
    "Aligned-MTL": (AlignedMTL(), peer.AlignedMTL, 1e-9),
    "UPGrad, to its bias": (UPGrad(), peer.UPGrad, 5e-3),
    "DualProj, to its bias": (DualProj(), peer.DualProj, 5e-3),
    "ConFIG": (ConFIG(), peer.ConFIG, 1e-9),
    "FairGrad": (FairGrad(1.0), lambda: peer.FairGrad(1.0), 1e-3),
    "FairGrad, fairer": (FairGrad(2.0), lambda: peer.FairGrad(2.0), 1e-3),
    "PCD": (PCD(eps=1e-8), peer.PCD, 1e-9),
    "PCD, demanding": (PCD(0.5, eps=1e-8), lambda: peer.PCD(tau=0.5), 1e-9),
}


@pytest.mark.parametrize("name", EQUAL)
def test_the_update_is_that_of_torchjd(name: str) -> None:
    ours, theirs, within = EQUAL[name]
    for jacobian in sampled((2, 4) if "CAGrad" in name else (1, 2, 3, 5, 8)):
        found, expected = of(ours, jacobian), theirs()(jacobian)
        assert float((found - expected).norm()) <= within * float(expected.norm())


def test_nash_mtl_is_that_of_torchjd_where_its_iteration_converges() -> None:
    agreed = 0
    for jacobian in sampled((2, 3)):
        expected = peer.NashMTL(len(jacobian), max_norm=1.0)(jacobian)
        agreed += float((of(NashMTL(), jacobian) - expected).norm()) <= 1e-2
    assert agreed >= 7


def test_surgery_and_vaccine_on_two_tasks_are_those_of_torchjd() -> None:
    theirs, memory = peer.GradVac(), Memory()
    for jacobian in sampled((2,)):
        torch.testing.assert_close(of(PCGrad(), jacobian), peer.PCGrad()(jacobian))
        torch.testing.assert_close(of(GradVac(), jacobian, memory), theirs(jacobian), rtol=1e-6, atol=1e-6)


def test_surgery_on_many_tasks_has_the_same_mean_over_orders() -> None:
    jacobian = next(sampled((5,)))
    jacobian = jacobian - 1.5 * jacobian.mean(0)
    memory, times = Memory(), 400
    ours = torch.stack([of(PCGrad(), jacobian, memory) for _ in range(times)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.stack([peer.PCGrad()(jacobian) for _ in range(times)])
    error = (ours.var(0) / times + theirs.var(0) / times).sqrt()
    assert bool(((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error + 1e-12).all())


def test_pcd_and_smoothing_follow_a_run_as_torchjd_does() -> None:
    primary, smooth, first, second = peer.PCD(), peer.CRMOGMWeighting(peer.IMTLGWeighting()), Memory(), Memory()
    for jacobian in sampled((3, 3)):
        torch.testing.assert_close(of(PCD(eps=1e-8), jacobian, first), primary(jacobian))
        weights = smooth(jacobian @ jacobian.T)
        torch.testing.assert_close(of(Smoothed(IMTL_G()), jacobian, second), jacobian.T @ weights)


def test_its_weightings_and_aggregators_are_methods() -> None:
    jacobian = next(sampled((5,)))
    torch.testing.assert_close(of(FromGramian(peer.UPGradWeighting()), jacobian), peer.UPGrad()(jacobian))
    for aggregator in (peer.Mean(), peer.Sum(), peer.TrimmedMean(1), peer.Krum(1), peer.GradDrop()):
        assert FromJacobian(aggregator)(jacobian).shape == jacobian[0].shape
    torch.testing.assert_close(FromJacobian(peer.Mean())(jacobian), jacobian.mean(0))


@pytest.mark.parametrize("departure", DEPARTURES, ids=str)
def test_torchjd_departs_from_the_definition_and_we_do_not(departure: Departure) -> None:
    theirs, ours = departure.theirs()(departure.jacobian), of(departure.ours, departure.jacobian)
    assert departure.shows(departure.jacobian, theirs), "TorchJD does this no longer: take it off the list"
    assert not departure.shows(departure.jacobian, ours)


def test_torchjd_cannot_bargain_alone() -> None:
    alone = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="Scalar operands"):
        peer.NashMTL(1)(alone)
    torch.testing.assert_close(of(NashMTL(), alone), alone[0] / 5)
