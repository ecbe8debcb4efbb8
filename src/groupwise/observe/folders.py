"""Which folder a run is written into.

A run that says that it is finished is not gone on with by an optimizer that has made no update: that is the same script
once more, another training, and gets a folder beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from weakref import WeakSet

import torch

from groupwise._paths import path_of
from groupwise._warning import warn
from groupwise.errors import RecordError
from groupwise.records import finished_after

SEEN_TO_STEP: Final[WeakSet[torch.optim.Optimizer]] = WeakSet()
"""Optimizers whose updates an observer of this process has recorded: a state is not the only trace of an update."""


def folder_of(path: str | os.PathLike[str] | None, optimizer: torch.optim.Optimizer, step: int | None) -> Path | None:
    """The folder for a run that is asked for at `path`: that, or a new one beside a finished run of something else.

    Args:
        path: where it is to be; None for nowhere.
        optimizer: what is going to be recorded.
        step: the number of the first update, if the caller gave one; the run goes on then.
    """
    if path is None:
        return None
    folder = path_of(path, RecordError, "the folder of a run")
    after = None if step is not None or not is_fresh(optimizer) else finished_after(folder)
    if after is None:
        return folder
    named = folder if folder.name not in ("", "..") else folder.resolve()
    beside = next(other for i in range(2, 10**6) if not (other := named.with_name(f"{named.name}-{i}")).exists())
    warn(
        f"{folder} holds a finished run of {after:,} updates, and this optimizer has made none: it is recorded in "
        f"{beside}. To go on with that run load the optimizer's state first, or give Observer(…, step={after})"
    )
    return beside


def is_fresh(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer shows no trace of an update: no state, or only what was allocated when it was made."""
    return optimizer not in SEEN_TO_STEP and all(map(_is_unused, optimizer.state.values()))


def _is_unused(state: object) -> bool:
    if not isinstance(state, Mapping) or not state:
        return not state
    return "step" in state and float(state["step"]) == 0
