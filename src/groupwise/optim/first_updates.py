"""Groups whose first update comes late: a warmup counts the plan's updates, not theirs, and is over by then.

A part that the plan itself freezes for a while (`after`, `unfreeze_down`) is read there; this is for one that the loop
leaves alone at first (a discriminator that joins later), or that a regroup brings in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from groupwise.errors import listed
from groupwise.optim.scheduled_values import Position
from groupwise.plan import Group
from groupwise.schedules.shape import warmup_steps


class FirstUpdates:
    """Which groups of the plan have not been updated yet."""

    def __init__(self) -> None:
        self._awaited: set[str] | None = None

    @property
    def awaits(self) -> bool:
        """Whether there is any such group."""
        return bool(self._awaited)

    def expect(self, position: Position) -> None:
        """Await every group of the plan, unless that is known already."""
        if self._awaited is None:
            self._awaited = set(position.scheduled_values.rates)

    def have(self, names: Collection[str]) -> None:
        """Note groups that were updated in an earlier run."""
        if self._awaited is not None:
            self._awaited -= set(names)

    def pass_over(self, position: Position) -> None:
        """Note that the run goes on at `position`: of a group whose warmup is over there nothing is known."""
        if self._awaited is not None:
            self._awaited = {name for name in self._awaited if position.update < _warmup(position, name)}

    def restart(self, fresh: Collection[str]) -> None:
        """Note that the groups are others now; those in `fresh` have new parameters alone."""
        self._awaited = set(fresh)

    def made(self, groups: Sequence[Mapping[str, Any]], position: Position | None, alone: bool) -> str:
        """A sentence on those of `groups`, which are about to be updated, that are late; "" if there is none.

        `alone` is whether nothing was updated before.
        """
        if not self._awaited or position is None:
            return ""
        first = [group for group in groups if group.get("name") in self._awaited and _is_updated(group)]
        self._awaited -= {str(group["name"]) for group in first}
        late = [group for group in first if 1 < _warmup(position, str(group["name"])) <= position.update]
        return "" if alone or not late else _sentence(late, position)


def _is_updated(group: Mapping[str, Any]) -> bool:
    return not group.get("frozen") and any(p.grad is not None for p in group["params"])


def _planned(position: Position, name: str) -> Group | None:
    return next((group for group in position.scheduled_values.resolution.groups if group.name == name), None)


def _warmup(position: Position, name: str) -> int:
    """The updates that the lr of a group warms up for; 0 for one that the plan itself freezes for a while."""
    planned = _planned(position, name)
    setting = planned.settings.get("lr") if planned is not None else None
    if planned is None or setting is None or (planned.timeline is not None and planned.timeline.moves):
        return 0
    lengths = position.scheduled_values.lengths
    return max((warmup_steps(schedule, *lengths) for schedule in setting.schedules), default=0)


def _sentence(late: Sequence[Mapping[str, Any]], position: Position) -> str:
    name = str(late[0]["name"])
    planned = _planned(position, name)
    schedule = next(iter(planned.settings["lr"].schedules)) if planned is not None else "…"
    rate = late[0].get("lr")
    at = f", at {rate:.3g}" if not isinstance(rate, torch.Tensor) else ""
    return (
        f"the first update of {listed((str(group['name']) for group in late), 3)} is made at update {position.update}"
        f"{at}: the warmup of its lr, {_warmup(position, name)} updates, is over. If it is to warm up from here, its "
        f"schedule has to begin here: lr=constant(0.0).then({schedule}, at='{position.update} steps')"
    )
