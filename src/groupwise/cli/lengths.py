"""The lengths of a run, as the person who asks knows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from groupwise.errors import GroupwiseError

FLAGS = {"total_steps": "--steps", "steps_per_epoch": "--epoch-steps"}
LONGEST = 2**53
"""Steps beyond which a float no longer counts single ones."""


@dataclass(frozen=True)
class Lengths:
    """Updates in the run and in an epoch, None where unknown. Raises `GroupwiseError` for what is no length."""

    total_steps: int | None = None
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        for name, flag in FLAGS.items():
            n = getattr(self, name)
            if n is not None and not 1 <= n <= LONGEST:
                raise GroupwiseError(f"{flag} {n}: a number of steps lies between 1 and {LONGEST:,}")

    def know(self, needs: Iterable[str]) -> bool:
        """Whether everything in `needs` was given."""
        return all(getattr(self, name) is not None for name in needs)
