"""Values over time: immutable schedules, each a pure function of the step.

    from groupwise.schedules import cosine, constant, linear

    cosine(3e-4, warmup="5%")
    constant(0.1).then(linear(0.1), at="80%")
    linear(0.85, 0.95).clamped(high=0.94)

`at(step, total_steps, steps_per_epoch)` is the value for one update. A curve goes from `start` to `end`, or between
`low` and `high`, or starts at its `peak`. Lengths carry their unit: `steps(500)`,
`epochs(2)`, `percent(5)` or `"500 steps"`, `"2 epochs"`, `"5%"`.
"""

from typing import TYPE_CHECKING

from groupwise import _lazy, _pickling
from groupwise.schedules.lengths import Length, epochs, length, percent, steps
from groupwise.schedules.schedule import Clamped, Scaled, Schedule, Then

if TYPE_CHECKING:
    from groupwise.schedules.custom import Function as function
    from groupwise.schedules.custom import Piecewise as piecewise
    from groupwise.schedules.cycles import CosineRestarts as cosine_restarts
    from groupwise.schedules.cycles import Triangular as triangular
    from groupwise.schedules.decays import Constant as constant
    from groupwise.schedules.decays import Exponential as exponential
    from groupwise.schedules.decays import InverseSqrt as inverse_sqrt
    from groupwise.schedules.decays import MultiStep as multi_step
    from groupwise.schedules.decays import StepDecay as step_decay
    from groupwise.schedules.files import decode, encode, is_table
    from groupwise.schedules.finite_curves import Cosine as cosine
    from groupwise.schedules.finite_curves import Linear as linear
    from groupwise.schedules.finite_curves import Polynomial as polynomial
    from groupwise.schedules.finite_curves import WarmupStableDecay as warmup_stable_decay
    from groupwise.schedules.one_cycles import OneCycle as one_cycle
    from groupwise.schedules.reductions import Plateau as plateau
    from groupwise.schedules.reductions import PlateauState, plateaus, reduced

__all__ = [
    "Clamped",
    "Length",
    "PlateauState",
    "Scaled",
    "Schedule",
    "Then",
    "constant",
    "cosine",
    "cosine_restarts",
    "decode",
    "encode",
    "epochs",
    "exponential",
    "function",
    "inverse_sqrt",
    "is_table",
    "length",
    "linear",
    "multi_step",
    "one_cycle",
    "percent",
    "piecewise",
    "plateau",
    "plateaus",
    "polynomial",
    "reduced",
    "step_decay",
    "steps",
    "triangular",
    "warmup_stable_decay",
]

_LAZY = {
    "PlateauState": "reductions",
    "constant": "decays:Constant",
    "cosine": "finite_curves:Cosine",
    "cosine_restarts": "cycles:CosineRestarts",
    "decode": "files",
    "encode": "files",
    "exponential": "decays:Exponential",
    "function": "custom:Function",
    "inverse_sqrt": "decays:InverseSqrt",
    "is_table": "files",
    "linear": "finite_curves:Linear",
    "multi_step": "decays:MultiStep",
    "one_cycle": "one_cycles:OneCycle",
    "piecewise": "custom:Piecewise",
    "plateau": "reductions:Plateau",
    "plateaus": "reductions",
    "polynomial": "finite_curves:Polynomial",
    "reduced": "reductions",
    "step_decay": "decays:StepDecay",
    "triangular": "cycles:Triangular",
    "warmup_stable_decay": "finite_curves:WarmupStableDecay",
}
__getattr__ = _lazy.on_first_use(__name__, _LAZY)


def __dir__() -> list[str]:
    return __all__


_pickling.by_name(__name__, [name for name in __all__ if name not in _LAZY])
