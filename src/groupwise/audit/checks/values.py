"""What a group's numbers do: a rate of zero, and a decay where hardly anybody means one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from groupwise._spelling import number
from groupwise.audit.checks.check import Check
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Group, Program, names
from groupwise.select import ParameterInfo

SETTERS = {"OneCycleLR", "CyclicLR"}
"""Schedulers that bring their own rates and never look at the group's."""

MULTIPLIERS = {
    "LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "PolynomialLR",
    "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ReduceLROnPlateau", "SequentialLR", "ChainedScheduler",
}  # fmt: skip
"""Schedulers of torch that multiply the rate that they find."""


def _zero(program: Program) -> Iterator[Finding]:
    for owner in program.optimizers:
        kinds = [set(driver.kinds) for driver in program.drivers(owner)]
        raised = any(not kind & MULTIPLIERS for kind in kinds)  # a scheduler that sets the rate itself
        groups = [g for g in owner.groups if _stays_zero(g) and not raised]
        idle = [i for group in groups for i in program.held(group) if i.requires_grad]
        if idle:
            times = "; the scheduler multiplies it, and it stays 0" if kinds else ""
            yield Finding(
                "zero-lr", "warning", names(idle),
                f"{owner}: lr is 0 for {program.brief(idle)}{times}",
                f'{owner.name}.param_groups[{groups[0].index}]["lr"] = …, before a scheduler is built; '
                "to freeze them, requires_grad_(False)",
            )  # fmt: skip


def _stays_zero(group: Group) -> bool:
    """Whether its rate is 0 and was so when a scheduler looked first (a warm-up from 0 starts higher)."""
    return group.lr == 0 and group.number("initial_lr") == 0


def _decayed(program: Program) -> Iterator[Finding]:
    for owner in program.optimizers:
        found = [(i, group) for group in owner.groups for i in program.held(group) if _is_decayed(i, group)]
        if found:
            infos = [info for info, _ in found]
            decays = sorted({group.number("weight_decay") for _, group in found})
            said = " and ".join(number(decay) for decay in decays)
            yield Finding(
                "decayed-norm", "note", names(infos),
                f"{owner}: weight decay {said} pulls norms and biases towards 0: {program.brief(infos)}",
                'a group of their own: {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}',
            )  # fmt: skip


def _is_decayed(info: ParameterInfo, group: Group) -> bool:
    decays = group.number("weight_decay") > 0 and group.lr != 0
    return decays and info.requires_grad and bool(info.roles & {"norm", "bias"})


VALUES: Iterable[Check] = (
    Check(
        "zero-lr", "warning", (), "groups whose lr is 0 and stays 0",
        "most schedulers multiply the rate that they find, and 0 stays 0",
        "set the rate before the scheduler is built; freeze with `requires_grad_(False)`", _zero,
    ),
    Check(
        "decayed-norm", "note", (), "norms and biases under weight decay",
        "AdamW decays everything by 0.01 unless it is set otherwise, and the loss goes down all the same",
        "a group of their own with `weight_decay=0.0`", _decayed,
    ),
)  # fmt: skip
