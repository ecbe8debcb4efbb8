"""What a check is: a name, what it must be given, the sentences that the documentation shows, and a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from groupwise.audit.finding import Finding, Severity
from groupwise.audit.inspected import Program

Need: TypeAlias = Literal["schedulers", "losses", "loop", "example"]

WANTED: Final[dict[Need, str]] = {
    "schedulers": "schedulers=",
    "losses": "losses=",
    "loop": "a loop under audit.watch",
    "example": "example=",
}
"""How each thing that a check may need is given."""


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One kind of silent mistake.

    Args:
        name: what its findings are called.
        severity: the worst that it reports; milder cases of the same are reported as less.
        needs: what it must be given besides a model and optimizers; any one of them will do.
        what: what it looks for.
        why: why the mistake goes unnoticed.
        remedy: the way out.
        find: from a described program to what is wrong in it.
    """

    name: str
    severity: Severity
    needs: tuple[Need, ...]
    what: str
    why: str
    remedy: str
    find: Callable[[Program], Iterable[Finding]]

    def missing(self, program: Program) -> str:
        """What a program would have to come with for the check to run; empty if it can run."""
        given = {
            "schedulers": bool(program.schedulers),
            "losses": program.reached is not None,
            "loop": program.record is not None,
            "example": program.used is not None,
        }
        if not self.needs or any(given[need] for need in self.needs):
            return ""
        if "losses" in self.needs and program.reach is not None and program.reach.opaque:
            return f"losses whose graph shows all parameters: {program.reach.opaque}"
        *several, last = (WANTED[need] for need in self.needs)
        return f"{', '.join(several)} or {last}" if several else last
