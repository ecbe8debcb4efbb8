"""A hyperparameter as it finally stands in a group: a value and the factors that multiply it.

    setting.at(step) = base(step) × f1(step) × f2(step) × …

where base and factors are numbers or schedules; the factors that are numbers are multiplied with one another first, in
the order of the rules. A tuple (`betas`) is a tuple of settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TypeGuard

from groupwise import _pickling
from groupwise._spelling import number
from groupwise.plan.declarations import Factor, Multiplier
from groupwise.schedules import Schedule


class Setting(ABC):
    """What one hyperparameter of one group is, now and over time."""

    @property
    @abstractmethod
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules in it; none if it is constant."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[str, ...]:
        """What its factors of shape are made of, as "fan_in 512"."""

    @property
    @abstractmethod
    def measured(self) -> tuple[Factor, ...]:
        """Its factors that are evaluated in the step, and are 1 in everything below."""

    @property
    @abstractmethod
    def peak(self) -> object:
        """The value a group holds until a scheduler is attached: the constant, or each schedule's peak."""

    @property
    @abstractmethod
    def key_values(self) -> tuple[object, ...]:
        """Values it is known to take whatever the lengths: start, peak, end."""

    @property
    @abstractmethod
    def unscaled(self) -> Setting:
        """The same without its constant factors."""

    @abstractmethod
    def at(self, step: int, total_steps: int | None = None, steps_per_epoch: int | None = None) -> object:
        """The value at update `step`. `LengthError` if a schedule needs a length that was not given."""


def _moves(x: object) -> TypeGuard[Schedule]:
    return not isinstance(x, float) and isinstance(x, Schedule)  # which an abstract class is slow to answer


@_pickling.public("groupwise.plan:ScalarSetting")
@dataclass(frozen=True)
class ScalarSetting(Setting):
    """One value, possibly scheduled, times its factors."""

    base: object
    factors: tuple[Multiplier, ...] = ()

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The base if it is one, and every factor that is one."""
        return tuple([x for x in (self.base, *[f.by for f in self.factors]) if _moves(x)])

    @property
    def sizes(self) -> tuple[str, ...]:
        """Of every factor that has one."""
        return tuple([f.of for f in self.factors if f.of])

    @property
    def measured(self) -> tuple[Factor, ...]:
        """Of every factor that is."""
        return tuple([f.measured for f in self.factors if f.measured is not None])

    @property
    def constant_factor(self) -> float:
        """The product of the factors that are numbers."""
        return prod([f.by for f in self.factors if isinstance(f.by, float) or not isinstance(f.by, Schedule)])

    @property
    def unscaled(self) -> ScalarSetting:
        """The base and the factors that are schedules; itself where it has no others."""
        scheduled = tuple([f for f in self.factors if _moves(f.by)])
        return self if len(scheduled) == len(self.factors) else ScalarSetting(self.base, scheduled)

    @property
    def peak(self) -> object:
        """Base and factors each at their peak."""
        return self._product([s.highest for s in self.schedules])

    @property
    def key_values(self) -> tuple[object, ...]:
        """Every combination of the key values of base and factors."""
        combinations = product(*(s.key_values for s in self.schedules))
        return tuple(dict.fromkeys(self._product(list(chosen)) for chosen in combinations))

    def at(self, step: int, total_steps: int | None = None, steps_per_epoch: int | None = None) -> object:
        """The product at update `step`."""
        return self._product([s.at(step, total_steps, steps_per_epoch) for s in self.schedules])

    def _product(self, scheduled: list[float]) -> object:
        constant = [] if isinstance(self.base, Schedule) else [self.base]
        value, *rest = constant + scheduled
        for factor in [*rest, self.constant_factor] if self.factors else rest:
            value *= factor  # type: ignore[operator]  # the cascade lets factors meet numbers only
        return value

    def __str__(self) -> str:
        base = number(self.base, 6) if isinstance(self.base, float) else str(self.base)
        return " × ".join([base, *(f.text for f in self.factors)])


@_pickling.public("groupwise.plan:TupleSetting")
@dataclass(frozen=True)
class TupleSetting(Setting):
    """A tuple of settings, as `betas` is."""

    elements: tuple[ScalarSetting, ...]

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """Those of every element."""
        return tuple(s for element in self.elements for s in element.schedules)

    @property
    def sizes(self) -> tuple[str, ...]:
        """Those of every element."""
        return tuple(size for element in self.elements for size in element.sizes)

    @property
    def measured(self) -> tuple[Factor, ...]:
        """Those of every element."""
        return tuple(factor for element in self.elements for factor in element.measured)

    @property
    def unscaled(self) -> TupleSetting:
        """Every element without its constant factors."""
        return TupleSetting(tuple(element.unscaled for element in self.elements))

    @property
    def peak(self) -> object:
        """The tuple of peaks."""
        return tuple(element.peak for element in self.elements)

    @property
    def key_values(self) -> tuple[object, ...]:
        """Tuples in which the elements stand at their first, second, … key value together."""
        longest = max(len(element.key_values) for element in self.elements)
        return tuple(tuple(e.key_values[min(i, len(e.key_values) - 1)] for e in self.elements) for i in range(longest))

    def at(self, step: int, total_steps: int | None = None, steps_per_epoch: int | None = None) -> object:
        """The tuple at update `step`."""
        return tuple(element.at(step, total_steps, steps_per_epoch) for element in self.elements)

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.elements))})"
