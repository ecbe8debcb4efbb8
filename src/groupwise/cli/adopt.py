"""`groupwise adopt`: the plan of a training program that a factory builds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from groupwise.adopt import adopt as adopted
from groupwise.cli.factory import current_directory_first, load, load_example
from groupwise.cli.handing_out import hand_out
from groupwise.cli.program import parts_of
from groupwise.errors import within

if TYPE_CHECKING:
    from groupwise.adopt.curves import Unit


def adopt(spec: str, out: Path | None, schedulers_step: Unit, console: Console, example: str | None = None) -> None:
    """Write the plan of the program that `spec` names. Raises `GroupwiseError` for what no plan can say."""
    with current_directory_first():
        parts: dict[str, Any] = parts_of(spec, load(spec, spec))
        shown = load_example(example) if example is not None else parts.get("example")
        with within(spec):
            found = adopted(
                parts["model"], parts["optimizers"], parts.get("schedulers", ()),
                schedulers_step=schedulers_step, example=shown,
            )  # fmt: skip
            text = found.text(spec)
    hand_out(text, out, console)
