"""Which optimizer a scheduler drives, and whether the rates that it writes are the ones that were meant.

LambdaLR, OneCycleLR, CyclicLR and CosineAnnealingWarmRestarts compute each rate anew from what they knew when they were
built; the others multiply what they find. Whatever else writes the rate of a group beside one of the former is lost at
its next step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from groupwise._spelling import number
from groupwise.audit.checks.check import Check
from groupwise.audit.checks.depth import levelled
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Driver, Owner, Program, alike, names
from groupwise.errors import listed

ABSOLUTE = {"LambdaLR", "OneCycleLR", "CyclicLR", "CosineAnnealingWarmRestarts"}
"""Schedulers that compute rates anew, whatever the groups hold."""


def _foreign(program: Program) -> Iterator[Finding]:
    for driver in program.schedulers:
        if not driver.optimizer:
            ours = {id(t) for t in driver.tensors} & (set(program.by_tensor) | set(program.owners))
            known = listed((str(owner) for owner in program.optimizers), limit=4)
            yield Finding(
                "foreign-scheduler", "error" if ours else "warning", (),
                f"{driver} drives another optimizer, {'an earlier one over the same parameters' if ours else 'not one'}"
                f"{'' if ours else ' of those given'}: the rates of {known} never change",
                f"build it anew whenever the optimizer is: {driver.name} = {driver.kinds[0]}("
                f"{program.optimizers[0].name}, …)",
            )  # fmt: skip


def _overwritten(program: Program) -> Iterator[Finding]:
    for owner in program.optimizers:
        drivers = program.drivers(owner)
        absolute = next((driver for driver in drivers if ABSOLUTE & set(driver.kinds)), None)
        if setter := levelled(program, owner):
            yield _finding(
                program, owner,
                f"{setter} brought one rate, {number(owner.groups[0].lr)}, to all {len(owner.groups)} groups of "
                f"{owner}: whatever rates they had are gone, and nothing distinguishes them any more",
                'give it one rate for each group: max_lr=[g["lr"] for g in optimizer.param_groups]',
            )  # fmt: skip
        elif absolute is not None and len(drivers) > 1:
            others = listed(str(driver) for driver in drivers if driver is not absolute)
            yield _finding(
                program, owner,
                f"{absolute} computes the rates of {owner} anew at each step, so what {others} writes is lost",
                "chain them: SequentialLR(optimizer, [warmup, rest], milestones=[…])",
            )  # fmt: skip
        elif absolute is not None and absolute.name in program.loop.strayed:
            yield _finding(
                program, owner,
                f"{owner} stepped with other rates than {absolute} wrote, which writes its own at its next step",
                "set rates first, then build the scheduler; or leave the scheduler out",
            )  # fmt: skip
        elif absolute is not None and (edited := _edited(absolute, owner)):
            yield _finding(
                program, owner,
                f"{edited} was set after {absolute} was built, which writes its own rate at its next step",
                "set the rates first, then build the scheduler",
            )  # fmt: skip


def _edited(driver: Driver, owner: Owner) -> str:
    """The groups whose rate is not what the scheduler last wrote: `lr 0.01 of group 1 of optimizer (SGD)`."""
    if len(driver.last) != len(owner.groups):
        return ""
    differing = [g for g, lr in zip(owner.groups, driver.last, strict=True) if not alike(g.lr, lr)]
    return listed((f"lr {number(group.lr)} of {group.label} of {owner}" for group in differing), limit=3)


def _uneven(program: Program) -> Iterator[Finding]:
    for owner in program.optimizers:
        for driver in program.drivers(owner):
            pairs = zip(owner.groups, driver.bases, strict=False)
            shares = {group.label: group.lr / base for group, base in pairs if driver.own and base > 0}
            least, most = (
                min(shares, key=shares.__getitem__, default=""),
                max(shares, key=shares.__getitem__, default=""),
            )
            if shares and not alike(shares[least], shares[most]):
                yield Finding(
                    "uneven-schedule", "warning", names(program.held_by(owner)),
                    f"{driver} has brought {least} of {owner} to {number(shares[least], 3)} of the rate that it began "
                    f"from, and {most} to {number(shares[most], 3)}: the groups do not keep the ratio of their rates",
                    f"let it multiply each group's own base: [base * factor for base in {driver.name}.base_lrs]",
                )  # fmt: skip


def _finding(program: Program, owner: Owner, message: str, remedy: str) -> Finding:
    return Finding("overwritten-lr", "warning", names(program.held_by(owner)), message, remedy)


SCHEDULERS: Iterable[Check] = (
    Check(
        "foreign-scheduler", "error", ("schedulers",), "a scheduler bound to another optimizer than the one that steps",
        "it steps, logs its own rates, and writes them where nobody reads",
        "build the scheduler anew whenever the optimizer is", _foreign,
    ),
    Check(
        "overwritten-lr", "warning", ("schedulers",), "a group's lr that a scheduler overwrites: set after it was "
        "built, levelled by one `max_lr`, or written by a second scheduler",
        "the group holds the intended rate until the scheduler's next step",
        "set rates first; one scheduler for each optimizer, `max_lr=[…]` by group", _overwritten,
    ),
    Check(
        "uneven-schedule", "warning", ("schedulers",), "a scheduler of one's own that moves the first group alone, or "
        "writes one rate into all",
        "the rate that is logged, the first group's, is as it was meant",
        "multiply each group's own base", _uneven,
    ),
)  # fmt: skip
