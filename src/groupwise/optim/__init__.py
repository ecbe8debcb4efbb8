"""Running a plan in PyTorch: one optimizer, one scheduler."""

from groupwise import _pickling
from groupwise.look import parameters_of
from groupwise.optim.grouped_optimizer import GroupedOptimizer
from groupwise.optim.load_report import LoadReport
from groupwise.optim.measured import Measured
from groupwise.optim.only import NetworkView
from groupwise.optim.plan_scheduler import PlanScheduler
from groupwise.optim.resolve import resolve

__all__ = ["GroupedOptimizer", "LoadReport", "Measured", "NetworkView", "PlanScheduler", "parameters_of", "resolve"]

_pickling.by_name(__name__, __all__)
