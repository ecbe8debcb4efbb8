"""The small problems of balancing:  python -m benchmarks --only solvers

One call of each method's weights, from a Gramian in float64 on the CPU, next to TorchJD's for the same method, in
turns. The gradients are random with a common part, so some of them conflict. No call is helped by the one before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping

import torch
import torchjd.aggregation as peer
from torch import Tensor

from benchmarks.measure import Scale, Table, Timing, Work, milliseconds, race, repeated
from groupwise.balance.methods import (
    IMTL_G,
    MGDA,
    PCD,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradVac,
    NashMTL,
    PCGrad,
    UPGrad,
)

SIZES = (2, 8, 32, 64)
TIMES = 5

Peer = Callable[[int], Callable[[Tensor], object]]
METHODS: Mapping[str, tuple[Callable[[Tensor], Tensor], Peer]] = {
    "MGDA": (MGDA(), lambda k: peer.MGDAWeighting()),
    "PCGrad": (PCGrad(), lambda k: peer.PCGradWeighting()),
    "GradVac": (GradVac(), lambda k: peer.GradVacWeighting()),
    "CAGrad": (CAGrad(), lambda k: peer.CAGradWeighting(c=0.5)),
    "IMTL-G": (IMTL_G(), lambda k: peer.IMTLGWeighting()),
    "Nash-MTL": (NashMTL(), lambda k: peer.NashMTL(k).weighting),
    "FairGrad": (FairGrad(), lambda k: peer.FairGradWeighting(1.0)),
    "Aligned-MTL": (AlignedMTL(), lambda k: peer.AlignedMTLWeighting()),
    "UPGrad": (UPGrad(), lambda k: peer.UPGradWeighting()),
    "DualProj": (DualProj(), lambda k: peer.DualProjWeighting()),
    "ConFIG": (ConFIG(), lambda k: peer.ConFIG()),
    "PCD": (PCD(), lambda k: peer.PCDWeighting()),
}
OF_ROWS = {"Nash-MTL", "ConFIG"}  # TorchJD takes the Jacobian there; it gets one as small as a Gramian can stand for


def gradients(k: int) -> Tensor:
    """[k, 2k + 2], some in conflict."""
    generator = torch.Generator().manual_seed(k)
    rows = torch.randn(k, 2 * k + 2, generator=generator, dtype=torch.float64)
    return rows + 0.5 * torch.randn(1, 2 * k + 2, generator=generator, dtype=torch.float64)


def contest(name: str, k: int, seconds: float) -> dict[str, Timing]:
    """Ours and TorchJD's, on the same gradients."""
    ours, theirs = METHODS[name][0], METHODS[name][1](k)
    rows = gradients(k)
    gramian = rows @ rows.T
    theirs_on = rows if name in OF_ROWS else gramian
    works: dict[str, Work] = {
        "groupwise": repeated(lambda: ours(gramian), TIMES),
        "TorchJD": repeated(lambda: theirs(theirs_on), TIMES),
    }
    return race(works, "TorchJD", seconds)


def tables(scale: Scale) -> Iterator[Table]:
    """One table, a row a method."""
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchJD's solvers say where they stop early
        for name in METHODS:
            cells = []
            for k in SIZES[:1] if scale.quick else SIZES:
                timings = contest(name, k, scale.seconds(0.4))
                ours = timings["groupwise"]
                cells.append(f"{milliseconds(ours.seconds / TIMES)}, {ours.ratio:.2f} ± {ours.spread:.2f}")
            rows.append([name, *cells])
    sizes = SIZES[:1] if scale.quick else SIZES
    yield Table("Weights from a Gramian: time, ratio to TorchJD's", ["method", *(f"{k} tasks" for k in sizes)], rows)
