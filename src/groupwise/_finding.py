"""What an audit finds. A finding is one silent mistake, the parameters that it concerns, and the way out.

error     the program does not do what it says: something is never trained, or trained from a wrong gradient
warning   the program says something that has no effect, or that takes effect by accident
note      legal and often meant; worth knowing

It needs neither torch nor Keras: both sides of the library report in these words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, final

from groupwise import _html
from groupwise._spelling import counted

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

    def _repr_html_(self) -> str:
        return _html.table(_COLUMNS, [_row(self)])


@final
@dataclass(frozen=True, slots=True)
class Inspection:
    """What an audit found, and what it looked for.

    Args:
        findings: worst first.
        ran: the names of the checks that ran.
        skipped: those that did not, with what they would have needed.
        facts: what holds of the program, in sentences: of a Keras model, what trains and at which rates.
    """

    findings: list[Finding]
    ran: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[str, ...] = ()

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.findings), *self.facts, *self.summary()])

    def _repr_html_(self) -> str:
        return _html.table(_COLUMNS, map(_row, self.findings), below=[*self.facts, *self.summary()])

    def summary(self) -> Iterator[str]:
        """The counts, and what was not looked for and why."""
        counts = [counted(self.count(severity), severity) for severity in SEVERITIES if self.count(severity)]
        yield f"{', '.join(counts) or 'nothing found'}; {counted(len(self.ran), 'check')} ran"
        needs: dict[str, list[str]] = {}
        for name, need in self.skipped.items():
            needs.setdefault(need, []).append(name)
        for need, names in needs.items():
            yield f"not run without {need}: {', '.join(names)}"


_COLUMNS: Final = ("severity", "check", "what is wrong", "the way out")


def _row(finding: Finding) -> tuple[str, str, str, str]:
    return finding.severity, finding.check, finding.message, finding.remedy
