"""Norms that are frozen and whose running statistics move all the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from groupwise._spelling import counted
from groupwise.audit.checks.check import Check
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Program, names
from groupwise.errors import listed


def _drifting(program: Program) -> Iterator[Finding]:
    if not program.drifting:
        return
    watched = program.record is not None
    inside = {info.name: info for info in program.parameters for path in program.drifting if _is_in(info.name, path)}
    where = "in the watched loop" if watched else "when the losses were computed, in the mode that the model is in"
    yield Finding(
        "frozen-norm", "warning" if watched else "note", names(inside.values()),
        f"the running statistics of {counted(len(program.drifting), 'frozen norm')} moved {where} "
        f"({listed(program.drifting, 4)}): requires_grad stops gradients, and training mode goes on averaging",
        f"model.get_submodule({program.drifting[0]!r}).eval(), for each frozen norm and after every model.train()",
    )  # fmt: skip


def _is_in(name: str, path: str) -> bool:
    return name.startswith(f"{path}.")


STATISTICS: Iterable[Check] = (
    Check(
        "frozen-norm", "warning", ("losses", "loop"), "running statistics that move in norms that are frozen",
        "nothing is trained there, and still another function is evaluated than was loaded",
        "`eval()` on the frozen norms after every `model.train()`", _drifting,
    ),
)  # fmt: skip
