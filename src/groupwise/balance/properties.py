"""Properties of a method's update, each with a law that tests every method that has it.

With A(J) the update from the Jacobian J [t, n] (for losses: the weights times the gradients), s > 0 a number and S a
diagonal of such numbers. A property that a method lacks is not a defect: averaging is not meant to avoid conflict,
and Nash-MTL is not meant to follow the scale of the losses.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import final


@final
@unique
class Property(Enum):
    """One law; the value is its sentence."""

    EQUIVARIANT = "naming the tasks in another order changes nothing"
    HOMOGENEOUS = "A(sJ) = s A(J)"
    SCALE_FREE = "A(sJ) = A(J)"
    TASK_SCALE_FREE = "A(SJ) = A(J): the scale of one task makes no difference"
    NON_CONFLICTING = "J A(J) >= 0: to first order the update raises no task's loss"
    DUPLICABLE = "a task that is given twice counts once"
    SINGLE = "the update of one task is its gradient"
    STRONGLY_STATIONARY = "A(J) = 0 only where some positive weights make the gradients cancel"
    MEMORYLESS = "the update depends on no earlier one"
    DETERMINISTIC = "nothing is drawn"
    SEPARATE = "a task's weight depends on its own past alone, not on the losses of the moment or on other tasks"


PLAIN = frozenset({Property.EQUIVARIANT, Property.SINGLE, Property.MEMORYLESS, Property.DETERMINISTIC})
"""What most methods have in common: no order, no past, no chance, and one task is left alone."""
