"""One method a file; here they are all, by the names that Python and plan files use."""

from collections.abc import Mapping

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

METHODS: Mapping[str, type[Method]] = {
    cls.__name__: cls
    for cls in (
        Equal, Static, LogSum, GeometricMean, Uncertainty, RevisedUncertainty, IMTL_L, DWA,
        RLW, CoV, STCH, FAMO,
        GradNorm, GradientNormScaling, MGDA, PCGrad, GradVac, CAGrad, IMTL_G, NashMTL,
        FairGrad, AlignedMTL, UPGrad, DualProj, ConFIG, PCD, GCS, RandomWeights,
        GradDrop, MetaBalance, ExcessMTL, MoCo, DBMTL, AutoLambda, IMTL,
        Times, Smoothed, Periodic, Normalized, Fixed, Bounded,  # around another method
    )
}  # fmt: skip
"""Every method that a plan file can name."""

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
