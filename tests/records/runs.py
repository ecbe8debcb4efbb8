"""Runs to read, and programs that are killed while they write one."""

from pathlib import Path

from groupwise.records import Group, Header, Step, Writer

GROUPS = (Group("backbone", "AdamW", 3, 100), Group("head", "SGD", 2, 10))


def step(number: int, loss: float = 0.0) -> Step:
    """A small step whose numbers can be told from its number."""
    norms = {group.name: {"grad_norm": number + i / 10} for i, group in enumerate(GROUPS)}
    return Step(number, number / 100, {"backbone": {"lr": 1e-3}}, norms, {"loss": loss or float(number)})


def write(folder: Path, numbers: range, part_bytes: int = 10**6) -> None:
    """A run of these steps, or more of one."""
    with Writer(folder, Header(groups=GROUPS), part_bytes) as writer:
        for number in numbers:
            writer.write(step(number))


def parts(folder: Path) -> list[Path]:
    """The files of a run."""
    return sorted(folder.glob("part-*.jsonl"))
