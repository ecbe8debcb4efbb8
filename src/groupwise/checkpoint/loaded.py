"""What a load found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from groupwise.optim import LoadReport


@dataclass(frozen=True)
class Loaded:
    """What a load found.

    `restored`: the parts that were asked for, and "rng", the global random state, unless the file is another rank's.
    `unused`: parts of the file that nobody asked for. `report`: what became of the state of a `GroupedOptimizer`.
    `extra`: what was given to `save` as `extra`.
    """

    restored: tuple[str, ...]
    unused: tuple[str, ...]
    report: LoadReport | None
    extra: Any

    def __str__(self) -> str:
        sentences = [f"restored {', '.join(self.restored)}"]
        if self.unused:
            sentences.append(f"left {', '.join(self.unused)} in the file")
        if self.report is not None:
            sentences.append(str(self.report))
        return "; ".join(sentences)
