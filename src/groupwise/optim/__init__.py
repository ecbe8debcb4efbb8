"""Running a plan in PyTorch: one optimizer, one scheduler."""

from typing import TYPE_CHECKING

from groupwise import _lazy

if TYPE_CHECKING:
    from groupwise.look import parameters_of
    from groupwise.optim.grouped_optimizer import GroupedOptimizer
    from groupwise.optim.load_report import LoadReport
    from groupwise.optim.measured import Measured
    from groupwise.optim.only import NetworkView
    from groupwise.optim.plan_scheduler import PlanScheduler
    from groupwise.optim.resolving import resolve

__all__ = ["GroupedOptimizer", "LoadReport", "Measured", "NetworkView", "PlanScheduler", "parameters_of", "resolve"]

_LAZY = {
    "GroupedOptimizer": "grouped_optimizer",
    "LoadReport": "load_report",
    "Measured": "measured",
    "NetworkView": "only",
    "PlanScheduler": "plan_scheduler",
    "parameters_of": ".look",
    "resolve": "resolving",
}
__getattr__ = _lazy.on_first_use(__name__, _LAZY)


def __dir__() -> list[str]:
    return __all__
