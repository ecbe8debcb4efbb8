"""Methods that weigh losses, as functions of the losses, a memory and the step: what a compiled step can run.

They are those of `groupwise.balance` that look at losses alone, with the same formulas (`groupwise._loss_weights`),
constants and words, so that one `[balance]` table is read, and refused, alike by both. Each gives
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
from typing import Any, ClassVar, Literal, NamedTuple, final

import keras

from groupwise import _loss_weights as formulas
from groupwise._spelling import number_from_text
from groupwise.errors import BalanceError, ScheduleError, listed, unknown, within
from groupwise.keras.program import Lengths
from groupwise.keras.schedule_table import Table
from groupwise.plan import ScalarSetting
from groupwise.schedules import Schedule, arguments, decode, encode, is_table
from groupwise.schedules.arguments import Count, Positive, Times

ops = keras.ops
_KERAS = formulas.Namespace(
    exp=ops.exp,
    log=ops.log,
    mean=ops.mean,
    sigmoid=ops.sigmoid,
    softmax=ops.softmax,
    softplus=ops.softplus,
    sqrt=ops.sqrt,
    where=ops.where,
)


class Context(NamedTuple):
    """What a method is given besides the losses: its memory, and the number of this training step."""

    memory: Mapping[str, Any]
    step: Any


class Method(ABC):
    """Weighs losses."""

    def __post_init__(self) -> None:
        """Read the arguments by their annotations. Raises `BalanceError` naming the method and the argument."""
        try:
            arguments.read(self, type(self).__name__)  # type: ignore[arg-type]  # every method is a dataclass
        except ScheduleError as error:
            raise BalanceError(str(error)) from error.__cause__

    @abstractmethod
    def remembers(self, tasks: int) -> Mapping[str, Sequence[Any]]:
        """The variables that it keeps, [t] or [n, t], by name, as they are at first."""

    @abstractmethod
    def weights(self, losses: Any, context: Context) -> Any:
        """The weights [t] for `losses` [t] at this training step; may assign to `context.memory`."""

    def prepared(self, tasks: Sequence[str], lengths: Lengths) -> Method:
        """The method for these tasks. Raises `BalanceError` where it does not fit them."""
        return self

    def table(self) -> dict[str, Any]:
        """The method as the `[balance]` table of a plan file, defaults left out."""
        given = arguments.given(self)  # type: ignore[arg-type]  # every method is a dataclass
        return {"method": type(self).__name__, **{k: value for k, value in given.items() if k not in self.beside()}}

    def beside(self) -> dict[str, Any]:
        """The arguments that no file holds."""
        return {}


@final
@dataclass(frozen=True)
class Equal(Method):
    """sum_i L_i, or with `reduction="mean"` the mean: weights 1, or 1 / K."""

    reduction: Literal["sum", "mean"] = "sum"

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """Nothing."""
        return {}

    def weights(self, losses: Any, context: Context) -> Any:
        """[t] all the same."""
        return ops.ones_like(losses) / (losses.shape[0] if self.reduction == "mean" else 1)


@final
@dataclass(frozen=True, init=False)
class Static(Method):
    """sum_i w_i L_i. A weight is a number or a schedule of `groupwise.schedules`, over training steps."""

    task_weights: Mapping[str, float | Schedule]
    _rows: Table | None = field(default=None, compare=False, repr=False)

    def __init__(self, weights: Mapping[str, float | Schedule], _rows: Table | None = None) -> None:
        for task, weight in weights.items():
            if not isinstance(weight, Schedule) and not _is_number(weight):
                raise BalanceError(f"Static: the weight of {task!r} is a number or a schedule, not {weight!r}")
        object.__setattr__(self, "task_weights", dict(weights))
        object.__setattr__(self, "_rows", _rows)

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

    def weights(self, losses: Any, context: Context) -> Any:
        """[t] the stated weights at this step."""
        if self._rows is None:
            raise BalanceError("Static does not know its tasks yet: it serves in a BalancedModel")
        return ops.stack(self._rows.at(context.step))

    def table(self) -> dict[str, Any]:
        """`{method = "Static", weights = {…}}`."""
        encoded = {task: encode(w) if isinstance(w, Schedule) else w for task, w in self.task_weights.items()}
        return {"method": "Static", "weights": encoded}


@final
@dataclass(frozen=True)
class GeometricMean(Method):
    """(prod_i L_i)^(1/K): weights GLS / (K L_i) (Chennupati et al. 2019). Losses must be positive."""

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """Nothing."""
        return {}

    def weights(self, losses: Any, context: Context) -> Any:
        """[t] of exp(mean(log L) - log L_i) / K."""
        return formulas.geometric_mean(_KERAS, losses)


@final
@dataclass(frozen=True)
class LogSum(Method):
    """sum_i log L_i (Navon et al. 2022): weights 1 / L_i. Losses must be positive."""

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """Nothing."""
        return {}

    def weights(self, losses: Any, context: Context) -> Any:
        """[t] of 1 / L_i."""
        return formulas.log_sum(losses)


@final
@dataclass(frozen=True)
class Uncertainty(Method):
    """sum_i e^(-s_i) L_i / 2 + s_i / 2 (Kendall, Gal, Cipolla 2018): weights e^(-s_i) / 2, s_i learnt from 0.

    s is learnt by an Adam of its own with rate `lr`, without weight decay, so no rule of the plan has to cover it. The
    variant "softplus" puts log(1 + e^L) in the place of L, and so takes a loss of any sign.
    """

    lr: Positive = 0.025
    variant: Literal["paper", "softplus"] = "paper"

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """The log-variances and the moments of their Adam."""
        return dict.fromkeys(("log_variance", "first_moment", "second_moment"), [0.0] * tasks)

    def weights(self, losses: Any, context: Context) -> Any:
        """[t] of e^(-s_i) / 2, times sigmoid(L_i) under "softplus"; then one step on s."""
        s, m, v = (context.memory[name] for name in self.remembers(0))
        value, first, second = map(ops.convert_to_tensor, (s, m, v))
        weights, gradient = formulas.uncertainty(_KERAS, losses, value, self.variant)
        steps = ops.cast(context.step, "float32") + 1.0
        move, first, second = formulas.adam(_KERAS, first, second, steps, gradient)
        for variable, new in ((m, first), (v, second), (s, value - self.lr * move)):
            variable.assign(new)
        return weights


@final
@dataclass(frozen=True)
class DWA(Method):
    """w_k = K softmax(r / T)_k, r_k the ratio of a task's last two mean losses (Liu, Johns, Davison 2019).

    The means are over epochs of `steps_per_epoch` training steps; with `window=n` over the last n steps, this one
    included, and the n before them. Until two of them are known, every weight is 1.
    """

    temperature: Positive = 2.0
    window: Times | None = None
    _epoch: ClassVar[int] = 0

    def remembers(self, tasks: int) -> dict[str, Sequence[Any]]:
        """The running sum and the last two means (0 until they are known), or the last 2n losses."""
        if self.window is not None:
            return {"last": [[0.0] * tasks for _ in range(2 * self.window)]}
        return dict.fromkeys(("sum", "newer", "older"), [0.0] * tasks)

    def prepared(self, tasks: Sequence[str], lengths: Lengths) -> DWA:
        """The method with the length of its epochs."""
        if self.window is None and lengths.steps_per_epoch is None:
            raise BalanceError("DWA compares epochs: BalancedModel(…, steps_per_epoch=…), or DWA(window=…) steps")
        method = DWA(self.temperature, self.window)
        object.__setattr__(method, "_epoch", lengths.steps_per_epoch or 0)
        return method

    def weights(self, losses: Any, context: Context) -> Any:
        """[t] adding up to t."""
        rates = self._of_epochs(losses, context) if self.window is None else self._of_window(losses, context)
        return formulas.dynamic_weight_average(_KERAS, rates, self.temperature)

    def _of_window(self, losses: Any, context: Context) -> Any:
        last, n = context.memory["last"], self.window or 1
        past = ops.concatenate([ops.convert_to_tensor(last)[1:], losses[None]], axis=0)
        last.assign(past)
        known = ops.greater_equal(context.step + 1, 2 * n)
        return _ratio(ops.mean(past[n:], axis=0), ops.mean(past[:n], axis=0), known)

    def _of_epochs(self, losses: Any, context: Context) -> Any:
        total, newer, older = (context.memory[name] for name in self.remembers(0))
        turn = ops.logical_and(ops.equal(context.step % self._epoch, 0), ops.greater(context.step, 0))
        older.assign(ops.where(turn, ops.convert_to_tensor(newer), ops.convert_to_tensor(older)))
        newer.assign(ops.where(turn, total / self._epoch, ops.convert_to_tensor(newer)))
        total.assign(ops.where(turn, 0.0, ops.convert_to_tensor(total)) + losses)
        return _ratio(ops.convert_to_tensor(newer), ops.convert_to_tensor(older), True)


def _ratio(newer: Any, older: Any, known: Any) -> Any:
    """newer / older, and 1 where it is not `known` or does not exist."""
    exists = ops.logical_and(ops.not_equal(older, 0.0), known)
    return ops.where(exists, newer / ops.where(exists, older, 1.0), 1.0)


@final
@dataclass(frozen=True)
class RLW(Method):
    """w = softmax(z), z_i ~ N(0, 1), drawn anew at each training step (Lin et al. 2022).

    The variant "dirichlet" draws uniformly on the simplex instead.

    The draws are Wichmann and Hill's (AS 183, 1982) through Box and Muller's transform: its numbers are small enough to
    be exact in float32, so they are the same on every backend, and its state is saved with the model.
    """

    variant: Literal["normal", "dirichlet"] = "normal"
    seed: Count = field(default=0, kw_only=True)

    def remembers(self, tasks: int) -> dict[str, Sequence[float]]:
        """Two generators for each task, of three numbers each."""
        draw = random.Random(self.seed)
        return {
            f"{which}_{modulus}": [float(draw.randrange(1, modulus)) for _ in range(tasks)]
            for which in ("radius", "angle")
            for modulus in _WICHMANN_HILL
        }

    def weights(self, losses: Any, context: Context) -> Any:
        """[t] at least 0, adding up to 1."""
        radius, angle = (_uniform(context.memory, which) for which in ("radius", "angle"))
        if self.variant == "dirichlet":
            draws = -ops.log(1.0 - radius)
            return draws / ops.sum(draws)
        normal = ops.sqrt(-2.0 * ops.log(1.0 - radius)) * ops.cos(2.0 * math.pi * angle)
        return ops.softmax(normal)

    def beside(self) -> dict[str, Any]:
        """The seed: where it is not given the draws of every run are the same."""
        return {"seed": self.seed}


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
    {cls.__name__: cls for cls in (Equal, Static, GeometricMean, LogSum, Uncertainty, DWA, RLW)}
)


def method_of(table: Any, beside: Mapping[str, Any] = MappingProxyType({})) -> Method:
    """The method that a `[balance]` table names; `beside` has the arguments that no file holds.

    Raises `BalanceError` for a method that does not run in a compiled step, and for arguments that it does not take.
    """
    if not isinstance(table, Mapping):
        cls = table if isinstance(table, type) else type(table)
        this = repr(table) if isinstance(table, str) else f"{cls.__module__}.{cls.__name__}"
        raise BalanceError(
            f"a method is an instance of one of groupwise.keras ({listed(METHODS)}), as Uncertainty(), "
            f"or the [balance] table of a plan; this is {this}"
        )
    if "heads" in table:
        raise BalanceError("heads is called task_only now")
    if table.get("task_only", "weighted") != "weighted":
        raise BalanceError(
            'a compiled step has one weighted sum of the losses, so task_only is "weighted" or left out, '
            f"not {table['task_only']!r}"
        )
    given = {key: value for key, value in table.items() if key not in ("method", "task_only")}
    name = table.get("method", "Static" if "weights" in table else None)
    if name is None:
        raise BalanceError('no method is named: write method = "Uncertainty", or weights by task')
    if name not in METHODS:
        raise BalanceError(
            f"{unknown('method', str(name), METHODS)}; the others need gradients by task, which fit has not"
        )
    return _static(given) if name == "Static" else _decoded(METHODS[name], given, beside)


def _static(given: Mapping[str, Any]) -> Static:
    strange = [key for key in given if key != "weights"]
    if strange:
        raise BalanceError(unknown("argument of Static", str(strange[0]), ["weights"]))
    if not isinstance(given.get("weights"), Mapping):
        raise BalanceError("Static: weights by task are not given: weights = { near = 1.0, far = 0.5 }")
    with within("Static: weights"):
        weights: Any = {task: decode(w) if is_table(w) else number_from_text(w) for task, w in given["weights"].items()}
    return Static(weights)


def _decoded(cls: type[Method], given: Mapping[str, Any], beside: Mapping[str, Any]) -> Method:
    python_only = set(cls().beside())
    kinds = {key: kind for key, kind in arguments.kinds(cls).items() if key not in python_only}
    for key in given:
        if key in python_only:
            raise BalanceError(f"{cls.__name__}: {key} is for Python alone: {cls.__name__}({key}=…)")
        if key not in kinds:
            raise BalanceError(unknown(f"argument of {cls.__name__}", str(key)[:40], kinds))
    return cls(**{key: kinds[key].plain(value) for key, value in given.items()}, **beside)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
