"""TensorBoard: a scalar for each number, folded by group."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, final

from groupwise.errors import RecordError


@final
class TensorBoard:
    """Writes scalars with torch's `SummaryWriter`, given one or the folder for a new one.

    Raises:
        RecordError: the package `tensorboard` is not installed.
    """

    def __init__(self, writer: str | os.PathLike[str] | Any) -> None:
        if isinstance(writer, str | os.PathLike):
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise RecordError("this sink needs the package tensorboard: pip install tensorboard") from None
            writer = SummaryWriter(os.fspath(writer))
        self._writer = writer

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add the scalars of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is pending, and close the writer."""
        self._writer.close()
