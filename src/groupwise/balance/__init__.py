"""Several task losses, one update: `Balancer(method).backward({"seg": loss, "depth": loss})`."""

from __future__ import annotations

from groupwise import _pickling, _renamed
from groupwise.balance import methods
from groupwise.balance.balancer import Balancer
from groupwise.balance.comparing import Comparison, Job, compare
from groupwise.balance.memory import Memory
from groupwise.balance.method import (
    GramianMethod,
    JacobianMethod,
    LossMethod,
    Method,
    MethodContext,
)
from groupwise.balance.methods import *  # noqa: F403  methods are listed there alone
from groupwise.balance.properties import Property
from groupwise.balance.result import BalanceResult

__all__ = [
    "BalanceResult",
    "Balancer",
    "Comparison",
    "GramianMethod",
    "JacobianMethod",
    "Job",
    "LossMethod",
    "Memory",
    "Method",
    "MethodContext",
    "Property",
    "compare",
]
__all__ += methods.__all__

_pickling.by_name(__name__, __all__)
_renamed.renamed_in(__name__, {"Claim": "Property", "Seen": "MethodContext"})
