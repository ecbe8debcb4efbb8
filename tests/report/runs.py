"""Runs that tests make: written by the real writer, read by the real reader."""

from collections.abc import Iterable
from pathlib import Path

from groupwise.records import Event, Group, Header, Run, Step, Writer, read
from groupwise.report.document import Sentence
from groupwise.report.reading import Reading
from groupwise.report.verdict import verdict

HOSTILE = (
    "<script>pwned()</script>", "</script><img src=x onerror=pwned()>", '" onmouseover="pwned()', "<b>bold</b>",
    "a|b`c`\n# d", "%{x} $\\alpha$", "\x1b[2J\x07", "\u202eevil", "\ud800", "&lt;", "名前", "", " ",
)  # fmt: skip


def run_of(folder: Path, steps: Iterable[Step | Event], header: Header | None = None) -> Run:
    """The lines as a run."""
    with Writer(folder / "run", header or Header()) as writer:
        for step in steps:
            writer.write(step)
    return read(folder / "run")


def said(run: Run, rule: str) -> list[Sentence]:
    """What one rule of the verdict says of a run."""
    return [sentence for sentence in verdict(Reading(run)) if sentence.rule == rule]


def hostile(folder: Path) -> Path:
    """A run all of whose names are traps."""
    names = HOSTILE
    values = {name: {"lr": 1e-3, name: 0.1 * i} for i, name in enumerate(names)}
    numbers = {name: {"grad_norm": 1.0 + i, "update_ratio": 1e-3, "contribution": 0.1} for i, name in enumerate(names)}
    tasks = names[:4]
    steps = [
        Step(
            step, 0.1 * step, values, numbers, {"loss": 1 / (1 + step), names[0]: float("nan")},
            tasks={task: {"loss": 1.0, "weight": 1.0} for task in tasks},
            cosines=[(tasks[0], tasks[1], -0.5)], shares={task: dict.fromkeys(names, 0.25) for task in tasks},
            conflicting=tasks[:1],
        )
        for step in range(60)
    ]  # fmt: skip
    groups = tuple(Group(name, names[0], 1, 10) for name in names)
    header = Header(groups=groups, tasks=tasks, writer=names[1], table="\n".join(names), total_steps=100)
    run_of(folder, [*steps, Event(5, names[0], names[1])], header)
    return folder / "run"
