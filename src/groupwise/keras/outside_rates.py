"""What a rate that comes from outside means: a factor on every group's rate, or the rate itself.

Callbacks, schedules of Keras and people set `optimizer.learning_rate`. Over a plan, whose groups have rates of their
own, it is a factor, 1.0 at first; the customary callback, which returns absolute rates, then trains at 1e-2 × 1e-2.
With `learning_rate_as="rate"` it is the rate of the first rule that declares one, and every other rate keeps its
proportion to that:

    factor = learning_rate / reference,   reference = the peak of that rule's rate

A number that looks like the other reading is said once, with what either comes to.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from typing import Any, Literal, final

import keras

from groupwise._warning import warn
from groupwise.errors import OptimizerError
from groupwise.plan import Plan
from groupwise.plan.declarations import Exact
from groupwise.schedules import Schedule

Reading = Literal["factor", "rate"]

_SMALL = 0.05
_JUMP = 1 / 20
_STANDSTILL = 1e-3
_GEOMETRIC = 0.55
_PROBED = (0, 1, 10, 100, 1_000, 10_000)


@final
class OutsideRate:
    """Reads `optimizer.learning_rate` in one of two ways, and says what looks like the other.

    Args:
        plan: whose declared rates numbers are compared with.
        reading: "factor" or "rate".

    Raises:
        OptimizerError: another reading, or "rate" for a plan that declares no rate.
    """

    def __init__(self, plan: Plan, reading: Reading) -> None:
        if reading not in ("factor", "rate"):
            raise OptimizerError(f'learning_rate_as is "factor" or "rate", not {reading!r}')
        self.reading: Reading = reading
        self._declared = tuple(_declared(plan))
        if reading == "rate" and not self._declared:
            raise OptimizerError('learning_rate_as="rate" needs a rule that declares a learning rate')
        self.reference = self._declared[0] if reading == "rate" else 1.0
        self._last: float = self.reference
        self._warned = False

    def started(self, given: Any) -> Any:
        """What the optimizer's learning rate is at first. Raises for a number that is none; may warn."""
        if given is None:
            return self.reference
        value = number(given)
        if value is None:
            self._warn(*self._of_schedule(given))
            return given
        self._refuse(value)
        if self.reading == "factor" and (0 < value < _SMALL or self._is_declared(value)):
            self._warn(value)
        self._last = value
        return value

    def assigned(self, given: Any, updates: int) -> None:
        """Look at what `optimizer.learning_rate` is set to, after `updates` updates. Raises `OptimizerError`."""
        value = number(given)
        if value is None:
            self._warn(*self._of_schedule(given))
            return
        self._refuse(value)
        if self.reading == "factor" and self._looks_absolute(value, updates):
            self._warn(value)
        self._last = value

    def factor(self, current: Any) -> Any:
        """What multiplies every group's rate, for the optimizer's learning rate as it is now."""
        return current if self.reading == "factor" else keras.ops.divide(current, self.reference)

    def _looks_absolute(self, value: float, updates: int) -> bool:
        if value <= 0 or value == self._last:
            return False
        if updates == 0 and self._is_declared(value):
            return True
        ratio = value / self._last if self._last > 0 else 1.0
        jumps, stands_still = ratio < _JUMP, value <= _STANDSTILL * (1 + 1e-6) and ratio < _GEOMETRIC
        return value < _SMALL and (jumps or stands_still)

    def _is_declared(self, value: float) -> bool:
        return value != 1 and any(math.isclose(value, rate, rel_tol=1e-6) for rate in self._declared)

    def _of_schedule(self, given: Any) -> tuple[float | None, str]:
        """The highest value of a schedule of Keras that looks like a rate, and its name; None if it does not."""
        if self.reading == "rate" or not isinstance(given, keras.optimizers.schedules.LearningRateSchedule):
            return None, ""
        values = [value for step in _PROBED if (value := number(given(step))) is not None]
        looks = bool(values) and 0 < max(values) < _SMALL
        return (max(values) if looks else None), type(given).__name__

    def _refuse(self, value: float) -> None:
        if not math.isfinite(value) or value < 0:
            what = "a factor on every group's rate" if self.reading == "factor" else "a rate"
            raise OptimizerError(f"optimizer.learning_rate is {what}: a finite number from 0, not {value:g}")

    def _warn(self, value: float | None, source: str = "") -> None:
        if value is None or self._warned or not self._declared:
            return
        self._warned = True
        rate = self._declared[0]
        given = f"{source}, which reaches {value:g}" if source else f"{value:g}"
        warn(
            f"optimizer.learning_rate is a factor on every group's rate, and {given} looks like a rate: as a factor, "
            f"what the plan declares as {rate:g} trains at {rate * value:g}; as a rate it would train at {value:g}. "
            'If the rate is meant: GroupedOptimizer(plan, …, learning_rate_as="rate")'
        )


def number(given: Any) -> float | None:
    """`given` as a number; None for a schedule, a function, and a tensor that is only being traced."""
    if isinstance(given, numbers.Real):
        return float(given)
    if callable(given):
        return None
    try:
        return float(keras.ops.convert_to_numpy(given))
    except (TypeError, ValueError, NotImplementedError, RuntimeError):
        return None


def _declared(plan: Plan) -> Iterator[float]:
    """The rates that rules declare, in their order; of a schedule, its peak."""
    for rule in plan.rules:
        for name in ("lr", "learning_rate"):
            value = rule.hyperparameters.get(name)
            value = value.value if isinstance(value, Exact) else value
            value = value.highest if isinstance(value, Schedule) else value
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                yield float(value)
