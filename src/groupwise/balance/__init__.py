"""Several task losses, one update: `Balancer(method).backward({"seg": loss, "depth": loss})`."""

from typing import TYPE_CHECKING

from groupwise import _lazy, _renamed
from groupwise.balance import methods

if TYPE_CHECKING:
    from groupwise.balance.balancer import Balancer
    from groupwise.balance.comparing import Comparison, Job, compare
    from groupwise.balance.memory import Memory
    from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
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

_LAZY = {
    "BalanceResult": "result",
    "Balancer": "balancer",
    "Comparison": "comparing",
    "GramianMethod": "method",
    "JacobianMethod": "method",
    "Job": "comparing",
    "LossMethod": "method",
    "Memory": "memory",
    "Method": "method",
    "MethodContext": "method",
    "Property": "properties",
    "compare": "comparing",
    **dict.fromkeys(methods.__all__, "methods"),
}
_OLD = {"Claim": "Property", "Seen": "MethodContext"}
__getattr__ = _renamed.renamed_in(__name__, _OLD, _lazy.on_first_use(__name__, _LAZY))


def __dir__() -> list[str]:
    return __all__
