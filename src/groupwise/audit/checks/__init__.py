"""The checks, each a pure function of a described program, in the order in which their findings are listed."""

from __future__ import annotations

from typing import Final

from groupwise.audit.checks.check import Check
from groupwise.audit.checks.depth import LAYERS
from groupwise.audit.checks.loop import LOOP
from groupwise.audit.checks.ownership import OWNERSHIP
from groupwise.audit.checks.reach import REACH
from groupwise.audit.checks.running_statistics import STATISTICS
from groupwise.audit.checks.schedulers import SCHEDULERS
from groupwise.audit.checks.shared import SHARED
from groupwise.audit.checks.stale import STALE
from groupwise.audit.checks.values import VALUES
from groupwise.audit.checks.weights import WEIGHTS

CHECKS: Final[tuple[Check, ...]] = (
    *OWNERSHIP, *STALE, *SHARED, *REACH, *VALUES, *LAYERS, *SCHEDULERS, *WEIGHTS, *STATISTICS, *LOOP,
)  # fmt: skip
"""Every check there is."""

__all__ = ["CHECKS", "Check"]
