"""What a plan has to say about the values of a checkpoint, or of the groups that a regroup replaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from groupwise.errors import StateError, unknown

Prefer: TypeAlias = Literal["unchanged", "checkpoint", "plan"]
"""Which values stand: the checkpoint's but for what the plan schedules or has edited, all of its, or the plan's."""

Driver: TypeAlias = Literal["plan", "other", "none"]
"""Who writes learning rates now: a `PlanScheduler`, a scheduler of torch's alone, or nobody (yet)."""


@dataclass(frozen=True)
class PlanValues:
    """What a plan has to say about values: `scheduled`, by group name the hyperparameters that it schedules;
    `arguments`, by algorithm the hyperparameters that its constructor takes; `peaks`, by group name the learning rate
    that a group holds at its build; which values are to `prefer`, and the `driver` of the learning rates.
    """

    scheduled: Mapping[str, Iterable[str]]
    arguments: Mapping[str, Iterable[str]]
    prefer: Prefer = "unchanged"
    peaks: Mapping[str, Any] = field(default_factory=dict)
    driver: Driver = "none"

    def __post_init__(self) -> None:
        if self.prefer not in get_args(Prefer):
            raise StateError(unknown("choice for prefer", str(self.prefer), get_args(Prefer)))

    def of(self, group: Mapping[str, Any], before: Mapping[str, Any]) -> set[str]:
        """The keys that are the plan's in a live group whose parameters were `declared` as in `before`."""
        if self.prefer == "checkpoint":
            return set()
        declared = group.get("declared", {})
        own = {key for key in {*declared, *before} if declared.get(key) != before.get(key)}
        own |= set(self.scheduled.get(group["name"], ()))
        if self.prefer == "plan":
            own = set(self.arguments.get(group["algorithm"], ())) | set(declared)
        return own | {"initial_lr"} if "lr" in own else own

    def schedules_rate(self, group: Mapping[str, Any]) -> bool:
        """Whether the plan schedules the learning rate of a live group."""
        return "lr" in self.scheduled.get(group["name"], ())
