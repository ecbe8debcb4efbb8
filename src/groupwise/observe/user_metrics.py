"""What the loop gives: losses, the result of a balancer, numbers by name.

A number may be a tensor on a device; it stays there and travels with the record (a CPU's is read at once). What is told
belongs to the update that comes next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeGuard, final

import torch

from groupwise._spelling import shown
from groupwise.errors import RecordError, listed

Number: TypeAlias = float | torch.Tensor
Path: TypeAlias = tuple[str, ...]

LOSS: Final[Path] = ("scalars", "loss")


class Balanced(Protocol):
    """What `log` reads of a balancer's result: t tasks, by name; `cosines` by pair; `conflicting` are the tasks whose
    loss the update raises; `skipped` those that were left out, and why; `shares` [t, p] is the norm of each task's
    gradient of each of the p `shared` parameters, where the balancer has it.
    """

    @property
    def tasks(self) -> Sequence[str]: ...
    @property
    def loss(self) -> float: ...
    @property
    def losses(self) -> Mapping[str, float]: ...
    @property
    def weights(self) -> Mapping[str, float]: ...
    @property
    def norms(self) -> Mapping[str, float]: ...
    @property
    def cosines(self) -> Mapping[tuple[str, str], float]: ...
    @property
    def conflicting(self) -> Sequence[str]: ...
    @property
    def skipped(self) -> Mapping[str, str]: ...
    @property
    def shared(self) -> Sequence[torch.Tensor]: ...
    @property
    def shares(self) -> torch.Tensor | None: ...


@final
class UserMetrics:
    """What was given since the last update; the numbers `single`, as tensors had them, are yet to be rounded."""

    def __init__(self) -> None:
        self.numbers: dict[Path, Number] = {}
        self.single: tuple[Path, ...] = ()
        self.conflicting: tuple[str, ...] = ()

    def copy(self) -> UserMetrics:
        """The same numbers; what is given to the copy is not given here."""
        other = UserMetrics()
        other.take(self)
        return other

    def take(self, other: UserMetrics) -> None:
        """Have the numbers of `other` in place of these."""
        self.numbers, self.single, self.conflicting = dict(other.numbers), other.single, other.conflicting

    def loss(self, value: float) -> None:
        """The loss, as a tensor had it."""
        self.numbers[LOSS], self.single = value, (LOSS,)

    def scalar(self, name: str, value: Any) -> None:
        """A number by name."""
        self._put(("scalars", name), value)

    def task(self, task: str, name: str, value: Any) -> None:
        """A number of a task."""
        self._put(("tasks", task, name), value)

    def losses(self, losses: Mapping[str, Number]) -> None:
        """The losses of tasks."""
        if not isinstance(losses, Mapping):
            raise RecordError(f"losses is a mapping of task to loss, not a {type(losses).__name__}; one loss is loss=…")
        for task, value in losses.items():
            self.task(task, "loss", value)

    def weights(self, losses: Mapping[str, Number], weights: Mapping[str, Number] | None) -> None:
        """The weights of the tasks that these losses are of, if there are any."""
        if weights is None:
            return
        if not isinstance(weights, Mapping) or set(weights) != set(losses):
            named = listed(map(repr, weights)) if isinstance(weights, Mapping) else f"a {type(weights).__name__}"
            raise RecordError(f"weights is a number for each of {listed(map(repr, losses))}, not {named}")
        for task, value in weights.items():
            self.task(task, "weight", value)

    def cosine(self, a: str, b: str, value: Any) -> None:
        """The cosine between two tasks' gradients."""
        self._put(("cosines", a, b), value)

    def balance(self, result: Balanced) -> None:
        """The result of a balancer, but for its shares."""
        if getattr(result, "skipped", None) is None:
            raise RecordError(
                f"balance is what a balancer's backward returned, not a {type(result).__name__}; "
                "losses go in as losses=…, other numbers as scalars=…"
            )
        if LOSS not in self.numbers:
            self.scalar("loss", result.loss)
        for name, values in (("loss", result.losses), ("weight", result.weights), ("norm", result.norms)):
            for task, value in values.items():
                self.task(task, name, value)
        for (a, b), value in result.cosines.items():
            self.cosine(a, b, value)
        self.conflicting = tuple(result.conflicting)

    def shares(self, tasks: Sequence[str], names: Sequence[str], norms: torch.Tensor) -> None:
        """Each task's share in the groups that any task reaches, from norms [t, g]."""
        shares, reached = norms / norms.sum(0), (norms.sum(0) > 0).tolist()
        for task, row in zip(tasks, shares, strict=True):
            for name, share, known in zip(names, row, reached, strict=True):
                if known:
                    self._put(("shares", task, name), share)

    @property
    def has_shares(self) -> bool:
        """Whether the tasks' shares were given."""
        return any(path[0] == "shares" for path in self.numbers)

    def _put(self, path: Path, value: Any) -> None:
        self.numbers[path] = _number(value, " ".join(path[1:]))
        if path in self.single:
            self.single = ()


def nested(numbers: Iterable[tuple[Path, float]]) -> dict[str, Any]:
    """Numbers by path as the sections of a step."""
    sections: dict[str, Any] = {"scalars": {}, "tasks": {}, "shares": {}, "cosines": []}
    for (section, *rest), value in numbers:
        if section == "scalars":
            sections[section][rest[0]] = value
        elif section == "cosines":
            sections[section].append((rest[0], rest[1], value))
        else:
            sections[section].setdefault(rest[0], {})[rest[1]] = value
    return sections


def _number(value: Any, what: str) -> Number:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex():
            raise RecordError(f"{what!r} is a tensor of shape {list(value.shape)}: log one real number")
        return rounded(_on_host(value)) if value.device.type == "cpu" else value.detach().reshape(())
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        balanced = isinstance(getattr(value, "conflicting", None), tuple)
        way_out = "say balance= for what a balancer returned" if balanced else "log one number"
        raise RecordError(f"{what!r} is {shown(value)}: {way_out}") from None


def is_at_hand(value: object) -> TypeGuard[torch.Tensor]:
    """Whether a value is a real tensor of no dimension on the CPU."""
    return type(value) is torch.Tensor and value.is_cpu and value.ndim == 0 and not value.is_complex()


def _on_host(one: torch.Tensor) -> float:
    number: Any = (one if one.ndim == 0 else one.reshape(())).tolist()
    return float(number)


def rounded(value: float) -> float:
    """Nine digits, which hold a single precision number exactly."""
    return float(f"{value:.9g}") if math.isfinite(value) else value
