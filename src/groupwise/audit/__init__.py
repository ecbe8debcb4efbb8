"""The silent mistakes of training programs, found before they cost a run.

A parameter that no optimizer owns, a scheduler bound to yesterday's optimizer, a trunk that no task updates: none of
these raises, and the loss still goes down. `audit` reads them off a model, its optimizers, schedulers and losses,
whatever library they come from; `watch` finds those that only a running loop shows. Each finding says what is wrong,
with which parameters, and the way out; nothing in the program is changed.
"""

from groupwise import _pickling
from groupwise._finding import Inspection
from groupwise.audit.api import audit, inspect, watch
from groupwise.audit.checks import CHECKS, Check
from groupwise.audit.finding import SEVERITIES, Finding, Severity

__all__ = ["CHECKS", "SEVERITIES", "Check", "Finding", "Inspection", "Severity", "audit", "inspect", "watch"]

_pickling.by_name(__name__, __all__)
