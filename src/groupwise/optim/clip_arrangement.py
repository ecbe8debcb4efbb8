"""Which gradients share which joint norms: clip scopes as places in a list of gradients, apart from the arithmetic.

Gradients that share every joint norm are a cell: one rule's scope (or none) and one of the plan's own sets. A joint
norm is that of some cells. What is here depends on names alone and holds no tensor of the model, so that it serves as
long as the same groups are clipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from groupwise import _torch
from groupwise.plan import Clip, ClipScope


@dataclass(frozen=True)
class Cell:
    """Gradients that share every joint norm, by their places."""

    scope: ClipScope | None
    scope_key: str
    whole_key: str
    places: list[int]


class Taken:
    """Places of a vector of numbers, to be taken from it again and again."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = list(places)
        self._index = None if torch.compiler.is_compiling() else torch.tensor(self.places, dtype=torch.int64)

    def of(self, vector: torch.Tensor) -> torch.Tensor:
        """The numbers at the places, shape [places]. Elsewhere than on a CPU no index has to be sent there."""
        if self.places == [*range(len(vector))]:
            return vector
        if self._index is not None and vector.device.type == "cpu":
            return vector.index_select(0, self._index)
        return torch.stack([vector[i] for i in self.places])


class Joint:
    """How joint norms come from the norms of their parts: which parts, in runs, belong to which."""

    def __init__(self, members: Sequence[Sequence[int]]) -> None:
        self.sizes = [len(own) for own in members]
        self._parts = Taken([i for own in members for i in own])
        runs = [i for i, size in enumerate(self.sizes) for _ in range(size)]
        self._runs = None if torch.compiler.is_compiling() else torch.tensor(runs, dtype=torch.int64)

    def norms(self, parts: torch.Tensor) -> torch.Tensor:
        """The joint norms, shape [members], of norms of shape [parts].

        On a CPU squares are added up in float64, one by one. Elsewhere that would come out otherwise at each run.
        """
        own = self._parts.of(parts)
        if len(self.sizes) == 1:
            one: torch.Tensor = torch.linalg.vector_norm(own).reshape(1)
            return one
        if max(self.sizes) == 1:
            return own
        if self._runs is not None and own.device.type == "cpu":
            sums = torch.zeros(len(self.sizes), dtype=torch.float64)
            total: torch.Tensor = sums.index_add_(0, self._runs, own.double().square_()).sqrt_().to(own.dtype)
            return total
        return torch.stack([*_torch.norms(torch.split(own, self.sizes), None)])


@dataclass(frozen=True)
class Level:
    """Clips that bound disjoint joint norms: those of the rules, or the plan's own. `sets` are cells, by place."""

    keys: list[str]
    clips: list[Clip]
    bounds: float | list[float]
    sets: list[list[int]]
    joint: Joint
    of_cell: Taken
    """For each cell, the place of its factor among those of the sets, and a 1 behind them for cells in none."""

    def factors(self, norms: torch.Tensor) -> torch.Tensor:
        """What brings joint norms down to their bounds, shape [sets]."""
        if isinstance(self.bounds, float):
            return torch.clamp(self.bounds / (norms + 1e-6), max=1.0)
        if norms.device.type == "cpu":
            several: torch.Tensor = (norms + 1e-6).reciprocal() * norms.new_tensor(self.bounds)
            return torch.clamp(several, max=1.0)
        each = [bound / (norm + 1e-6) for bound, norm in zip(self.bounds, norms.unbind(), strict=True)]
        return torch.clamp(torch.stack(each), max=1.0)

    def spread(self, factors: torch.Tensor) -> torch.Tensor:
        """The factor of every cell, shape [cells]."""
        if self.of_cell.places == [*range(len(self.sets))]:
            return factors
        return self.of_cell.of(torch.cat([factors, factors.new_ones(1)]))


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
    of_cell = Taken([place.get(i, len(sets)) for i in range(len(cells))])
    bounds = [float(clip.bound) for clip in clips.values()]
    single = bounds[0] if len({*bounds}) == 1 else bounds
    return Level([*sets], [*clips.values()], single, [*sets.values()], Joint([*sets.values()]), of_cell)


class Arrangement:
    """The cells of a step, the levels over those that have norms, and where the gradients of each stand."""

    def __init__(self, cells: Sequence[Cell], whole: Clip | None) -> None:
        joint = whole is not None and whole.kind == "norm"
        self.cells = list(cells)
        self.scoped = {cell.scope_key: cell.scope.clip for cell in cells if cell.scope is not None}
        self.normed = [cell for cell in cells if joint or (cell.scope is not None and cell.scope.clip.kind == "norm")]
        self.places = [i for cell in self.normed for i in cell.places]
        ends = [0]
        for cell in self.normed:
            ends.append(ends[-1] + len(cell.places))
        self.spans = [range(a, b) for a, b in itertools.pairwise(ends)]
        self.cell_norms = Joint(self.spans)
        scopes = ((i, cell.scope_key, cell.scope.clip) for i, cell in enumerate(self.normed) if cell.scope is not None)
        self.rules = level(self.normed, (each for each in scopes if each[2].kind == "norm"))
        own = [(i, cell.whole_key, whole) for i, cell in enumerate(self.normed) if whole is not None and joint]
        self.plan = level(self.normed, own)

    def levels(self) -> list[Level]:
        """The levels that there are, the rules' first."""
        return [each for each in (self.rules, self.plan) if each is not None]

    def clipped_by_entry(self, key: str) -> list[int]:
        """The places of the gradients of a scope."""
        return [i for cell in self.cells if cell.scope_key == key for i in cell.places]
