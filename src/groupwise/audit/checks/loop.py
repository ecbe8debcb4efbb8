"""What only a running loop shows: the order of its calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from groupwise._spelling import counted
from groupwise.audit.checks.check import Check
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Program, names
from groupwise.audit.record import Event, Record
from groupwise.errors import listed


def _kept(program: Program) -> Iterator[Finding]:
    for owner in program.optimizers:
        used = program.loop.kept.get(owner.name, frozenset())
        infos = [info for info in program.parameters if id(info.parameter) in used]
        if infos:
            yield Finding(
                "kept-gradients", "error", names(infos),
                f"the gradients of {program.brief(infos)} are not cleared between the steps of {owner}: "
                "each step is made with the sum of all gradients so far",
                f"{owner.name}.zero_grad() once for each {owner.name}.step()",
            )  # fmt: skip


def _early_scheduler(program: Program) -> Iterator[Finding]:
    for driver in program.schedulers:
        calls = [
            e.kind
            for e in program.loop.events
            if e.who == driver.optimizer or (e.kind == "schedule" and e.who == driver.name)
        ]
        if driver.optimizer and calls and calls[0] == "schedule" and "step" in calls:
            yield Finding(
                "early-scheduler", "warning", (),
                f"{driver} steps before {driver.optimizer}: the first rate of the schedule is never used",
                f"{driver.optimizer}.step(), then {driver.name}.step()",
            )  # fmt: skip


def _early_clip(program: Program) -> Iterator[Finding]:
    misled = set(_clipped_before_backward(program.loop))
    for owner in program.optimizers:
        if owner.name in misled:
            infos = program.held_by(owner)
            yield Finding(
                "early-clip", "error", names(infos),
                f"gradients are clipped before backward, so that {owner} steps with unclipped ones",
                f"loss.backward(); clip_grad_norm_(…); {owner.name}.step()",
            )  # fmt: skip


def _clipped_before_backward(record: Record) -> Iterator[str]:
    """The optimizers with a step whose clip has a backward behind it, in the same thread."""
    for thread in {event.thread for event in record.events}:
        yield from _clipped_too_early([event for event in record.events if event.thread == thread])


def _clipped_too_early(events: Iterable[Event]) -> Iterator[str]:
    """A clip of nothing is the next step's."""
    fresh: list[Event] = []
    grown: list[Event] = []  # clips that a backward followed
    for event in events:
        if event.kind == "clip":
            fresh, grown = [*fresh, event], [old for old in grown if not _concerns(event, old.touched)]
        elif event.kind == "backward":
            behind = [clip for clip in fresh if _concerns(clip, event.touched)]
            fresh, grown = [clip for clip in fresh if clip not in behind], [*grown, *behind]
        elif event.kind == "step":
            if any(_concerns(old, event.touched) for old in grown):
                yield event.who
            fresh, grown = _left(fresh, event), _left(grown, event)


def _left(clips: Iterable[Event], step: Event) -> list[Event]:
    """What a step leaves for other optimizers' steps: the clipped tensors that it does not hold."""
    rest = [Event("clip", touched=clip.touched - step.touched) for clip in clips]
    return [clip for clip in rest if clip.touched]


def _concerns(clip: Event, touched: frozenset[int]) -> bool:
    return not clip.touched or not touched or bool(clip.touched & touched)


def _clipped_twice(program: Program) -> Iterator[Finding]:
    for owner in program.optimizers:
        twice = set(_clipped_besides(program.loop.events, owner.name, owner.clipped))
        infos = [info for info in program.parameters if id(info.parameter) in twice]
        if infos:
            yield Finding(
                "clipped-twice", "warning", names(infos),
                f"the loop clips {program.brief(infos)}, and {owner} clips them again in its step, as its plan says: "
                "the smaller bound wins, and the norms that it records are those of gradients clipped already",
                "let the plan clip: leave clip_grad_norm_ out of the loop (max_grad_norm=0, gradient_clip_val=None in "
                "a trainer), or clip= out of the plan",
            )  # fmt: skip


def _clipped_besides(events: Iterable[Event], optimizer: str, own: frozenset[int]) -> Iterator[int]:
    """The tensors that an optimizer clips in its step and that were clipped before it."""
    fresh: dict[int, set[int]] = {}
    for event in events:
        if event.kind == "clip":
            fresh.setdefault(event.thread, set()).update(event.touched & own)
        elif event.kind == "step" and event.who == optimizer:
            yield from fresh.pop(event.thread, ())


def _spent(program: Program) -> Iterator[Finding]:
    for owner in program.optimizers:
        drivers, spent = program.drivers(owner), program.loop.spent.get(owner.name, 0)
        if drivers and all(group.lr == 0 for group in owner.groups) and spent > 1:
            yield Finding(
                "spent-schedule", "warning", names(program.held_by(owner)),
                f"{drivers[0]} has brought every rate of {owner} to 0, and the loop goes on: in its last "
                f"{counted(spent, 'step')} nothing moved",
                "give the scheduler the length of the whole run, in what it is stepped by (updates, or epochs)",
            )  # fmt: skip


def _never(program: Program) -> Iterator[Finding]:
    steps = {owner.name: program.loop.steps(owner.name) for owner in program.optimizers}
    idle = [owner for owner in program.optimizers if not steps[owner.name]]
    if idle:
        held = {id(tensor) for owner in idle for tensor in owner.tensors}
        infos = [info for info in program.parameters if id(info.parameter) in held]
        others = listed(f"{name} stepped {counted(count, 'time')}" for name, count in steps.items() if count)
        yield Finding(
            "never-stepped", "error", names(infos),
            f"{listed(map(str, idle))} did not step in the watched loop" + (f"; {others}" if others else ""),
            f"{idle[0].name}.step(), or watch for longer",
        )  # fmt: skip


LOOP: Iterable[Check] = (
    Check(
        "kept-gradients", "error", ("loop",), "`zero_grad` that misses an optimizer, or is never called",
        "the sum of all gradients so far still points downhill, and grows",
        "`zero_grad()` on every optimizer, once for each of its steps", _kept,
    ),
    Check(
        "early-scheduler", "warning", ("loop",), "a scheduler that steps before its optimizer",
        "the schedule is shifted by one; torch warns once, at the very first step",
        "`optimizer.step()`, then `scheduler.step()`", _early_scheduler,
    ),
    Check(
        "early-clip", "error", ("loop",), "clipping before `backward`",
        "there is nothing to clip, or last step's gradients, and no error",
        "`backward`, clip, `step`", _early_clip,
    ),
    Check(
        "clipped-twice", "warning", ("loop",), "gradients that the loop clips and the optimizer's plan again",
        "two bounds look like one, and the smaller wins", "one of the two", _clipped_twice,
    ),
    Check(
        "spent-schedule", "warning", ("loop",), "a schedule that has come to 0 while the loop goes on",
        "steps are made, and nothing moves; the loss looks converged",
        "the length of the whole run", _spent,
    ),
    Check(
        "never-stepped", "error", ("loop",), "an optimizer that never steps",
        "its parameters keep their initial values", "`optimizer.step()`", _never,
    ),
)  # fmt: skip
