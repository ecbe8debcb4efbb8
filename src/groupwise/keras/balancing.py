"""Methods that weigh losses, as functions of the losses, a memory and the step: what a compiled step can run.

They are those of `groupwise.balance` that look at losses alone, with the same definitions and constants. Each gives
weights [t] for losses [t]; the weights are constants to the gradient. What a method remembers are variables of the
model, so it is saved, restored and compiled with it. Inside a compiled step nothing can be raised: a loss that a
formula cannot take (zero under a logarithm) shows as nan, in the loss and in everything after it.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, final

import keras

from groupwise.errors import BalanceError, listed, unknown
from groupwise.keras.program import Lengths
from groupwise.keras.table import Table
from groupwise.plan import ScalarSetting
from groupwise.schedules import Schedule, decode, encode, is_table

ops = keras.ops


class Seen(NamedTuple):
    """What a method is given besides the losses: its memory, and the number of this training step."""

    memory: Mapping[str, Any]
    step: Any


class Method(ABC):
    """Weighs losses."""

    @abstractmethod
    def remembers(self, tasks: int) -> Mapping[str, Sequence[float]]:
        """The variables [t] that it keeps, by name, as they are at first."""

    @abstractmethod
    def weights(self, losses: Any, seen: Seen) -> Any:
        """The weights [t] for `losses` [t] at this training step; may assign to `seen.memory`."""

    def prepared(self, tasks: Sequence[str], lengths: Lengths) -> Method:
        """The method for these tasks. Raises `BalanceError` where it does not fit them."""
        return self

    @abstractmethod
    def table(self) -> dict[str, Any]:
        """The method as the `[balance]` table of a plan file."""


@final
@dataclass(frozen=True)
class Static(Method):
    """sum_i w_i L_i. A weight is a number or a schedule of `groupwise.schedules`, over training steps."""

    task_weights: Mapping[str, float | Schedule]
    _rows: Table | None = field(default=None, compare=False, repr=False)

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """Nothing."""
        return {}

    def prepared(self, tasks: Sequence[str], lengths: Lengths) -> Static:
        """The weights in the tasks' order, as a table."""
        strange = [task for task in self.task_weights if task not in tasks]
        if strange:
            raise BalanceError(unknown("task", strange[0], tasks))
        missing = [task for task in tasks if task not in self.task_weights]
        if missing:
            raise BalanceError(f"no weight for {listed(missing)}: Static takes one for every output")
        settings = [ScalarSetting(value) for value in (self.task_weights[task] for task in tasks)]
        scheduled = any(setting.schedules for setting in settings)
        if scheduled and lengths.total_steps is None:
            raise BalanceError("a weight that is scheduled needs BalancedModel(…, total_steps=…)")
        last = lengths.total_steps if scheduled and lengths.total_steps is not None else 0
        return Static(self.task_weights, Table(settings, last, lengths.steps_per_epoch))

    def weights(self, losses: Any, seen: Seen) -> Any:
        """[t] the stated weights at this step."""
        if self._rows is None:
            raise BalanceError("Static does not know its tasks yet: it serves in a BalancedModel")
        return ops.stack(self._rows.at(seen.step))

    def table(self) -> dict[str, Any]:
        """`{method = "Static", weights = {…}}`."""
        spoken = {task: encode(w) if isinstance(w, Schedule) else w for task, w in self.task_weights.items()}
        return {"method": "Static", "weights": spoken}


@final
@dataclass(frozen=True)
class GeometricMean(Method):
    """(prod_i L_i)^(1/K): weights GLS / (K L_i) (Chennupati et al. 2019). Losses must be positive."""

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """Nothing."""
        return {}

    def weights(self, losses: Any, seen: Seen) -> Any:
        """[t] of exp(mean(log L) - log L_i) / K."""
        logs = ops.log(losses)
        return ops.exp(ops.mean(logs) - logs) / losses.shape[0]

    def table(self) -> dict[str, Any]:
        """`{method = "GeometricMean"}`."""
        return {"method": "GeometricMean"}


@final
@dataclass(frozen=True)
class Uncertainty(Method):
    """sum_i e^(-s_i) L_i / 2 + s_i / 2 (Kendall, Gal, Cipolla 2018): weights e^(-s_i) / 2, s_i learnt from 0.

    s is learnt by an Adam of its own with rate `lr`, without weight decay, so no rule of the plan has to cover it.
    """

    lr: float = 0.025

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """The log-variances and the moments of their Adam."""
        return dict.fromkeys(("log_variance", "first_moment", "second_moment"), [0.0] * tasks)

    def weights(self, losses: Any, seen: Seen) -> Any:
        """[t] of e^(-s_i) / 2; then one step on s."""
        s, m, v = (seen.memory[name] for name in self.remembers(0))
        precision = ops.exp(-ops.convert_to_tensor(s))
        gradient = 0.5 * (1.0 - precision * losses)
        t = ops.cast(seen.step, "float32") + 1.0
        m.assign(0.9 * m + 0.1 * gradient)
        v.assign(0.999 * v + 0.001 * ops.square(gradient))
        corrected = ops.sqrt(v / (1.0 - ops.power(0.999, t))) + 1e-8
        s.assign(s - self.lr * (m / (1.0 - ops.power(0.9, t))) / corrected)
        return 0.5 * precision

    def table(self) -> dict[str, Any]:
        """`{method = "Uncertainty", lr = …}`."""
        return {"method": "Uncertainty", "lr": self.lr}


@final
@dataclass(frozen=True)
class DWA(Method):
    """w_k = K softmax(r / T)_k, r_k the ratio of a task's last two mean losses (Liu, Johns, Davison 2019).

    The means are over `every` training steps each: the steps of an epoch, unless told otherwise. Until two of them are
    known, every weight is 1.
    """

    temperature: float = 2.0
    every: int | None = None

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """The running sum, and the last two means (0 until they are known)."""
        return dict.fromkeys(("sum", "newer", "older"), [0.0] * tasks)

    def prepared(self, tasks: Sequence[str], lengths: Lengths) -> DWA:
        """The method with its window."""
        every = self.every or lengths.steps_per_epoch
        if every is None:
            raise BalanceError("DWA compares epochs: BalancedModel(…, steps_per_epoch=…), or DWA(every=…) steps")
        return DWA(self.temperature, every)

    def weights(self, losses: Any, seen: Seen) -> Any:
        """[t] adding up to t."""
        total, newer, older = (seen.memory[name] for name in self.remembers(0))
        every = self.every or 1
        turn = ops.logical_and(ops.equal(seen.step % every, 0), ops.greater(seen.step, 0))
        older.assign(ops.where(turn, ops.convert_to_tensor(newer), ops.convert_to_tensor(older)))
        newer.assign(ops.where(turn, total / every, ops.convert_to_tensor(newer)))
        total.assign(ops.where(turn, 0.0, ops.convert_to_tensor(total)) + losses)
        known = ops.not_equal(ops.convert_to_tensor(older), 0.0)
        rates = ops.where(known, newer / ops.where(known, ops.convert_to_tensor(older), 1.0), 1.0)
        return losses.shape[0] * ops.softmax(rates / self.temperature)

    def table(self) -> dict[str, Any]:
        """`{method = "DWA", temperature = …, every = …}`."""
        return {"method": "DWA", "temperature": self.temperature, **({"every": self.every} if self.every else {})}


@final
@dataclass(frozen=True)
class RLW(Method):
    """w = softmax(z), z_i ~ N(0, 1), drawn anew at each training step (Lin et al. 2022).

    The draws are Wichmann and Hill's (AS 183, 1982) through Box and Muller's transform: its numbers are small enough to
    be exact in float32, so they are the same on every backend, and its state is saved with the model.
    """

    seed: int = 0

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """Two generators for each task, of three numbers each."""
        draw = random.Random(self.seed)
        return {
            f"{which}_{modulus}": [float(draw.randrange(1, modulus)) for _ in range(tasks)]
            for which in ("radius", "angle")
            for modulus in _WICHMANN_HILL
        }

    def weights(self, losses: Any, seen: Seen) -> Any:
        """[t] at least 0, adding up to 1."""
        radius, angle = (_uniform(seen.memory, which) for which in ("radius", "angle"))
        normal = ops.sqrt(-2.0 * ops.log(1.0 - radius)) * ops.cos(2.0 * math.pi * angle)
        return ops.softmax(normal)

    def table(self) -> dict[str, Any]:
        """`{method = "RLW", seed = …}`."""
        return {"method": "RLW", "seed": self.seed}


_WICHMANN_HILL: Mapping[int, int] = MappingProxyType({30269: 171, 30307: 172, 30323: 170})  # modulus: multiplier


def _uniform(memory: Mapping[str, Any], which: str) -> Any:
    """The next numbers [t] in [0, 1) of the generators called `which`."""
    total: Any = 0.0
    for modulus, multiplier in _WICHMANN_HILL.items():
        state = memory[f"{which}_{modulus}"]
        state.assign(ops.mod(ops.convert_to_tensor(state) * float(multiplier), float(modulus)))
        total = total + ops.convert_to_tensor(state) / modulus
    return ops.mod(total, 1.0)


METHODS: Mapping[str, type[Method]] = MappingProxyType(
    {cls.__name__: cls for cls in (Static, GeometricMean, Uncertainty, DWA, RLW)}
)


def method_of(table: Any) -> Method:
    """The method that a `[balance]` table names. Raises `BalanceError` for one that does not run in a compiled step."""
    if not isinstance(table, Mapping):
        cls = table if isinstance(table, type) else type(table)
        this = repr(table) if isinstance(table, str) else f"{cls.__module__}.{cls.__name__}"
        raise BalanceError(
            f"a method is an instance of one of groupwise.keras ({listed(METHODS)}), as Uncertainty(), "
            f"or the [balance] table of a plan; this is {this}"
        )
    arguments = dict(table)
    name = str(arguments.pop("method", "Static"))
    if name not in METHODS:
        raise BalanceError(f"{unknown('method', name, METHODS)}; the others need gradients by task, which fit has not")
    if name == "Static":
        weights = arguments.pop("weights", None) or {}
        arguments["task_weights"] = {task: decode(w) if is_table(w) else w for task, w in weights.items()}
    allowed = {"Static": ("task_weights",), "Uncertainty": ("lr",), "DWA": ("temperature", "every"), "RLW": ("seed",)}
    strange = [key for key in arguments if key not in allowed.get(name, ())]
    if strange:
        raise BalanceError(f"{name}: {unknown('argument', strange[0], allowed.get(name, ()))}")
    return METHODS[name](**arguments)
