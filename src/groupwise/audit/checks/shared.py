"""Parameters that several tasks share and no task's optimizer updates.

With one optimizer per head, every head learns on the features of a trunk that stays as it was initialised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from groupwise.audit.checks.check import Check
from groupwise.audit.checks.stale import pairs
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Program, names
from groupwise.errors import listed
from groupwise.select import ParameterInfo


def shared(program: Program) -> list[ParameterInfo]:
    """Unowned trainable parameters that the losses of two tasks or more reach."""
    reach = program.reach
    if reach is None or program.reached is None:
        return []
    stale = {id(info) for info, _ in pairs(program)}
    return [i for i in program.unowned if len(reach.tasks_of(id(i.parameter))) > 1 and id(i) not in stale]


def _shared(program: Program) -> Iterator[Finding]:
    lost = shared(program)
    if lost and program.reach is not None:
        tasks = {task for info in lost for task in program.reach.tasks_of(id(info.parameter))}
        said = listed([task for task in program.reach.tasks if task in tasks], limit=4)
        held = listed((str(owner) for owner in program.optimizers), limit=4)
        yield Finding(
            "shared-unowned", "error", names(lost),
            f"{program.brief(lost)} are shared by the tasks {said} and owned by no optimizer ({held}): every task "
            "sends them gradients, none updates them",
            "give the shared part to exactly one optimizer, which steps once after all losses' backward",
        )  # fmt: skip


SHARED: Iterable[Check] = (
    Check(
        "shared-unowned", "error", ("losses",), "shared parameters that no task's optimizer updates",
        "every head still learns, on features that never do",
        "one optimizer for the shared part, one step after all losses' backward", _shared,
    ),
)  # fmt: skip
