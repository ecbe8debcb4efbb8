"""A finding: one silent mistake, the parameters that it concerns, and the way out.

error     the program does not do what it says: something is never trained, or trained from a wrong gradient
warning   the program says something that has no effect, or that takes effect by accident
note      legal and often meant; worth knowing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

Severity: TypeAlias = Literal["error", "warning", "note"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
"""Worst first."""


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `str(finding)` is two lines: what is wrong, and what to do.

    Args:
        check: the name of the check, one of `CHECKS`.
        severity: "error", "warning" or "note".
        parameters: the dotted names of all the parameters that it concerns; empty where it concerns none in particular.
        message: what is wrong and what comes of it, on one line.
        remedy: the way out, on one line; code where one line of code is the way out.
    """

    check: str
    severity: Severity
    parameters: tuple[str, ...]
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity} {self.check}: {self.message}\n  fix: {self.remedy}"
