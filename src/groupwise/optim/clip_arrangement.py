"""Which gradients share which joint norms: clip scopes as places in a list of gradients, apart from the arithmetic.

Gradients that share every joint norm are a cell: one rule's scope (or none) and one of the plan's own sets. A joint
norm is that of some cells. What is here depends on names alone and holds no tensor of the model, so that it serves as
long as the same groups are clipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from groupwise.plan import Clip, ClipScope

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """Gradients that share every joint norm, by their places."""

    scope: ClipScope | None
    scope_key: str
    whole_key: str
    places: list[int]


@dataclass(frozen=True)
class Level:
    """Clips that bound disjoint joint norms: those of the rules, or the plan's own. `sets` are cells, by place."""

    keys: list[str]
    clips: list[Clip]
    bounds: list[float]
    sets: list[list[int]]
    of_cell: list[int]
    """For each cell, the place of its set, and one behind them for cells in none."""


def level(cells: Sequence[Cell], named: Iterable[tuple[int, str, Clip]]) -> Level | None:
    """The level of these (place of a cell, key of its set, clip); None if there are none."""
    sets: dict[str, list[int]] = {}
    clips: dict[str, Clip] = {}
    for i, key, clip in named:
        sets.setdefault(key, []).append(i)
        clips.setdefault(key, clip)
    if not sets:
        return None
    place = {i: at for at, own in enumerate(sets.values()) for i in own}
    of_cell = [place.get(i, len(sets)) for i in range(len(cells))]
    bounds = [float(clip.bound) for clip in clips.values()]
    return Level([*sets], [*clips.values()], bounds, [*sets.values()], of_cell)


class Arrangement:
    """The cells of a step, the levels over those that have norms, and where the gradients of each stand."""

    def __init__(self, cells: Sequence[Cell], whole: Clip | None) -> None:
        joint = whole is not None and whole.kind == "norm"
        self.clipped_by_entry = _clipped_by_entry(cells)
        self.normed = [cell for cell in cells if joint or (cell.scope is not None and cell.scope.clip.kind == "norm")]
        self.places = [i for cell in self.normed for i in cell.places]
        self._are_all = self.places == [*range(sum(len(cell.places) for cell in cells))]
        ends = [0]
        for cell in self.normed:
            ends.append(ends[-1] + len(cell.places))
        self.spans = [range(a, b) for a, b in itertools.pairwise(ends)]
        scopes = ((i, cell.scope_key, cell.scope.clip) for i, cell in enumerate(self.normed) if cell.scope is not None)
        self.rules = level(self.normed, (each for each in scopes if each[2].kind == "norm"))
        own = [(i, cell.whole_key, whole) for i, cell in enumerate(self.normed) if whole is not None and joint]
        self.plan = level(self.normed, own)

    def of_normed(self, column: Sequence[T]) -> Sequence[T]:
        """Of what there is one of for each gradient, those of the gradients that have norms, as `spans` has them."""
        return column if self._are_all else [column[i] for i in self.places]

    def levels(self) -> list[Level]:
        """The levels that there are, the rules' first."""
        return [each for each in (self.rules, self.plan) if each is not None]


def _clipped_by_entry(cells: Sequence[Cell]) -> list[tuple[str, Clip, list[int]]]:
    """The scopes that clip gradients entry by entry: key, clip and places."""
    places: dict[str, list[int]] = {}
    clips: dict[str, Clip] = {}
    for cell in cells:
        if cell.scope is not None and cell.scope.clip.kind != "norm":
            places.setdefault(cell.scope_key, []).extend(cell.places)
            clips[cell.scope_key] = cell.scope.clip
    return [(key, clips[key], own) for key, own in places.items()]
