"""One method a file; here they are all, by the names that Python and plan files use, imported when they are used."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from groupwise import _lazy

if TYPE_CHECKING:
    from groupwise.balance.method import Method
    from groupwise.balance.methods.aligned_mtl import AlignedMTL
    from groupwise.balance.methods.auto_lambda import AutoLambda
    from groupwise.balance.methods.bounded import Bounded
    from groupwise.balance.methods.cagrad import CAGrad
    from groupwise.balance.methods.config import ConFIG
    from groupwise.balance.methods.cov import CoV
    from groupwise.balance.methods.db_mtl import DBMTL
    from groupwise.balance.methods.dual_proj import DualProj
    from groupwise.balance.methods.dwa import DWA
    from groupwise.balance.methods.equal import Equal
    from groupwise.balance.methods.excess_mtl import ExcessMTL
    from groupwise.balance.methods.fair_grad import FairGrad
    from groupwise.balance.methods.famo import FAMO
    from groupwise.balance.methods.fixed import Fixed
    from groupwise.balance.methods.from_callable import FromGramian, FromJacobian, FromLosses
    from groupwise.balance.methods.gcs import GCS
    from groupwise.balance.methods.geometric_mean import GeometricMean
    from groupwise.balance.methods.grad_drop import GradDrop
    from groupwise.balance.methods.grad_norm import GradNorm
    from groupwise.balance.methods.grad_vac import GradVac
    from groupwise.balance.methods.gradient_norm_scaling import GradientNormScaling
    from groupwise.balance.methods.imtl import IMTL
    from groupwise.balance.methods.imtl_g import IMTL_G
    from groupwise.balance.methods.imtl_l import IMTL_L
    from groupwise.balance.methods.log_sum import LogSum
    from groupwise.balance.methods.meta_balance import MetaBalance
    from groupwise.balance.methods.mgda import MGDA
    from groupwise.balance.methods.moco import MoCo
    from groupwise.balance.methods.nash_mtl import NashMTL
    from groupwise.balance.methods.normalized import Normalized
    from groupwise.balance.methods.pcd import PCD
    from groupwise.balance.methods.pcgrad import PCGrad
    from groupwise.balance.methods.periodic import Periodic
    from groupwise.balance.methods.random_weights import RandomWeights
    from groupwise.balance.methods.revised_uncertainty import RevisedUncertainty
    from groupwise.balance.methods.rlw import RLW
    from groupwise.balance.methods.smoothed import Smoothed
    from groupwise.balance.methods.static import Static
    from groupwise.balance.methods.stch import STCH
    from groupwise.balance.methods.times import Times
    from groupwise.balance.methods.uncertainty import Uncertainty
    from groupwise.balance.methods.upgrad import UPGrad

__all__ = [
    "DBMTL",
    "DWA",
    "FAMO",
    "GCS",
    "IMTL",
    "IMTL_G",
    "IMTL_L",
    "MGDA",
    "PCD",
    "RLW",
    "STCH",
    "AlignedMTL",
    "AutoLambda",
    "Bounded",
    "CAGrad",
    "CoV",
    "ConFIG",
    "DualProj",
    "Equal",
    "ExcessMTL",
    "FairGrad",
    "Fixed",
    "FromGramian",
    "FromJacobian",
    "FromLosses",
    "GeometricMean",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientNormScaling",
    "LogSum",
    "MetaBalance",
    "MoCo",
    "NashMTL",
    "Normalized",
    "PCGrad",
    "Periodic",
    "RandomWeights",
    "RevisedUncertainty",
    "Smoothed",
    "Static",
    "Times",
    "UPGrad",
    "Uncertainty",
]

_LAZY = {
    "DBMTL": "db_mtl",
    "DWA": "dwa",
    "FAMO": "famo",
    "GCS": "gcs",
    "IMTL": "imtl",
    "IMTL_G": "imtl_g",
    "IMTL_L": "imtl_l",
    "MGDA": "mgda",
    "PCD": "pcd",
    "RLW": "rlw",
    "STCH": "stch",
    "AlignedMTL": "aligned_mtl",
    "AutoLambda": "auto_lambda",
    "Bounded": "bounded",
    "CAGrad": "cagrad",
    "CoV": "cov",
    "ConFIG": "config",
    "DualProj": "dual_proj",
    "Equal": "equal",
    "ExcessMTL": "excess_mtl",
    "FairGrad": "fair_grad",
    "Fixed": "fixed",
    "FromGramian": "from_callable",
    "FromJacobian": "from_callable",
    "FromLosses": "from_callable",
    "GeometricMean": "geometric_mean",
    "GradDrop": "grad_drop",
    "GradNorm": "grad_norm",
    "GradVac": "grad_vac",
    "GradientNormScaling": "gradient_norm_scaling",
    "LogSum": "log_sum",
    "MetaBalance": "meta_balance",
    "MoCo": "moco",
    "NashMTL": "nash_mtl",
    "Normalized": "normalized",
    "PCGrad": "pcgrad",
    "Periodic": "periodic",
    "RandomWeights": "random_weights",
    "RevisedUncertainty": "revised_uncertainty",
    "Smoothed": "smoothed",
    "Static": "static",
    "Times": "times",
    "UPGrad": "upgrad",
    "Uncertainty": "uncertainty",
}
__getattr__ = _lazy.on_first_use(__name__, _LAZY)


def __dir__() -> list[str]:
    return __all__


class _Methods(Mapping[str, "type[Method]"]):
    """Classes by name, in an order; what is looked up is imported."""

    def __init__(self, names: str) -> None:
        self._names = dict.fromkeys(names.split())

    def __getitem__(self, name: str) -> "type[Method]":
        if name not in self._names:
            raise KeyError(name)
        return cast("type[Method]", __getattr__(name))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


METHODS: Mapping[str, "type[Method]"] = _Methods(
    """
    Equal Static LogSum GeometricMean Uncertainty RevisedUncertainty IMTL_L DWA
    RLW CoV STCH FAMO
    GradNorm GradientNormScaling MGDA PCGrad GradVac CAGrad IMTL_G NashMTL
    FairGrad AlignedMTL UPGrad DualProj ConFIG PCD GCS RandomWeights
    GradDrop MetaBalance ExcessMTL MoCo DBMTL AutoLambda IMTL
    Times Smoothed Periodic Normalized Fixed Bounded
    """
)
"""Every method that a plan file can name; those of the last line are around another one."""
