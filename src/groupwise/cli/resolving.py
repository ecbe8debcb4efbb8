"""What every command does first: read the plan, then build the model, then put the two together.

In this order, so that a mistake in the plan is told before torch is imported, and before a large model is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from groupwise.errors import within
from groupwise.plan import Plan

if TYPE_CHECKING:
    from groupwise.plan import Resolution


def resolved(plan: Path, model: str, allow: Sequence[str], example: str | None = None) -> Resolution:
    """The plan file on the model that the factory `model` makes, looked at on an example if one is named.

    Raises `GroupwiseError` for whatever does not fit.
    """
    read = Plan.load(plan, allow)
    from groupwise.cli.factory import current_directory_first, load_example, load_model
    from groupwise.optim import resolve

    with current_directory_first():
        made = load_model(model)
        found = None if example is None else load_example(example)
        with within(str(plan)):
            return resolve(made, read, found)
