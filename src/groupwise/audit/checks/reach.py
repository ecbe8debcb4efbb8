"""What no loss reaches. An optimizer passes over parameters without a gradient, and says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from groupwise._spelling import counted
from groupwise.audit.checks.check import Check
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Program, names
from groupwise.errors import listed
from groupwise.select import ParameterInfo


def _fed(program: Program) -> tuple[frozenset[int], str] | None:
    """What got a gradient, and how that is known."""
    if program.reached is not None:
        return program.reached, "no loss reaches"
    if program.record is not None:
        steps = sum(program.record.steps(owner.name) for owner in program.optimizers)
        return (program.record.fed, f"in {counted(steps, 'step')} no gradient came to") if steps else None
    return None if program.used is None else (program.used, "in the example no operation uses")


def _unreached(program: Program) -> Iterator[Finding]:
    known = _fed(program)
    if known is None or program.reached == frozenset():  # nothing reached at all: that is `detached-loss`
        return
    fed, said = known
    idle = [i for i in program.parameters if i.requires_grad and id(i.parameter) not in fed and _may_train(program, i)]
    owned = [info for info in idle if id(info.parameter) in program.owners]
    if owned:
        yield Finding(
            "unreached", "warning", names(owned),
            f"{said} {program.brief(owned)}: their optimizer passes over them",
            "let the forward pass use them (look for .detach(), .data, .item() or no_grad on the way), or freeze them"
            + _of_checkpoints(program),
        )  # fmt: skip
    free = [info for info in idle if id(info.parameter) not in program.owners]
    if free and program.record is None:
        yield Finding(
            "unreached", "note", names(free),
            f"{said} {program.brief(free)}, and no optimizer owns them; they are trainable in name only",
            "say so: requires_grad_(False)",
        )  # fmt: skip


def _of_checkpoints(program: Program) -> str:
    """What to look for besides where something is frozen: the graph does not show a checkpoint that it cuts off."""
    frozen = [info for info in program.parameters if not info.requires_grad]
    if not frozen:
        return ""
    return (
        f"; if they are checkpointed with use_reentrant=True behind what is frozen ({program.brief(frozen)}), their "
        "input requires no gradient, and nothing inside gets one: use_reentrant=False, or have the input require a "
        "gradient (transformers: model.enable_input_require_grads())"
    )


def _may_train(program: Program, info: ParameterInfo) -> bool:
    """Whether its optimizer stepped at all, where a loop was watched; the rest is `never-stepped`."""
    if program.record is None:
        return True
    groups = program.owners.get(id(info.parameter), ())
    return not groups or any(program.record.steps(group.optimizer) for group in groups)


def _detached(program: Program) -> Iterator[Finding]:
    tasks = program.reach.tasks if program.reach is not None and program.reached is not None else {}
    for task, leaves in tasks.items():
        if not leaves:
            yield Finding(
                "detached-loss", "error", (),
                f"the loss {task!r} reaches no parameter at all: it trains nothing",
                "compute it from the model's output without .detach(), .item(), argmax or no_grad",
            )  # fmt: skip


def _unregistered(program: Program) -> Iterator[Finding]:
    shapes = program.reach.shapes if program.reach is not None else {}
    strange = [shape for leaf, shape in shapes.items() if leaf not in program.by_tensor and leaf not in program.owners]
    if strange:
        yield Finding(
            "unregistered", "error", (),
            f"the losses reach {counted(len(strange), 'parameter')} that neither the model nor an optimizer has: "
            f"{listed(map(str, strange), limit=3)}",
            "hold layers in nn.ModuleList or nn.ModuleDict, not in a list or a dict; give audit every network",
        )  # fmt: skip


REACH: Iterable[Check] = (
    Check(
        "unreached", "warning", ("losses", "example", "loop"), "trainable parameters that no loss reaches",
        "an optimizer passes over parameters without a gradient",
        "use them in the forward pass, or freeze them", _unreached,
    ),
    Check(
        "detached-loss", "error", ("losses",), "a loss that reaches no parameter",
        "in a sum of losses its value still shows in the log, and trains nothing",
        "compute it without `.detach()`, `.item()`, `argmax` or `no_grad`", _detached,
    ),
    Check(
        "unregistered", "error", ("losses",), "parameters that a loss reaches and the model does not have: layers in a "
        "list",
        "`model.parameters()` does not have them either, so no optimizer could miss them",
        "`nn.ModuleList` in place of a list", _unregistered,
    ),
)  # fmt: skip
