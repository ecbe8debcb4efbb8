"""Weights & Biases, and whatever has its interface (trackio): a module or a run with `log(dict, step=)`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, final

from groupwise.errors import RecordError


@final
class Wandb:
    """Logs to a run that the caller has begun (`wandb.init(…)`, `trackio.init(…)`).

    Args:
        to: the module, the run that `init` returned, or the name of the module.

    Raises:
        RecordError: the package is not installed, or cannot log.
    """

    def __init__(self, to: ModuleType | str | Any = "wandb") -> None:
        if isinstance(to, str):
            try:
                to = importlib.import_module(to)
            except ImportError:
                raise RecordError(f"this sink needs the package {to}: pip install {to}") from None
        if not callable(getattr(to, "log", None)):
            raise RecordError(f"{to!r} has no log(dict, step=): give the module or the run that its init returned")
        self._to = to

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the numbers of a step."""
        self._to.log(dict(values), step=step)
