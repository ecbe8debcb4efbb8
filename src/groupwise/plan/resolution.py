"""What a plan means for one model: its groups, and who decided what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groupwise.errors import ResolutionError, listed, unknown
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import Treatment
from groupwise.plan.explanation import Explanation, explain
from groupwise.plan.group import Group
from groupwise.plan.table import table
from groupwise.plan.words import title
from groupwise.select import ParameterInfo

if TYPE_CHECKING:
    from groupwise.plan.plan import Plan


@dataclass(frozen=True, eq=False)
class Resolution:
    """The groups of a plan on a model, every parameter in exactly one of them, with the provenance of each decision.

    `str(resolution)` is the table. `algorithms` are those that the groups use.
    """

    plan: Plan
    groups: tuple[Group, ...]
    algorithms: Mapping[str, Algorithm]
    treatments: Mapping[str, Treatment]

    @property
    def parameters(self) -> tuple[ParameterInfo, ...]:
        """Every parameter, group by group."""
        return tuple(info for group in self.groups for info in group.parameters)

    @property
    def scheduled(self) -> bool:
        """Whether a scheduler has anything to do: a schedule or a freeze timeline in any group, or a named value."""
        settings = (setting for group in self.groups for setting in group.settings.values())
        moving = any(group.timeline is not None and group.timeline.moves for group in self.groups)
        return moving or bool(self.plan.values) or any(setting.schedules for setting in settings)

    def explain(self, name: str) -> Explanation:
        """Property by property, which rule had the last word about `name` and which spoke before it.

        Raises `ResolutionError` for a name that no parameter has.
        """
        for group in self.groups:
            for info in group.parameters:
                if name in info.names:
                    return explain(self.plan.rules, group, info, self.treatments[info.name], self.algorithms)
        raise ResolutionError(unknown("parameter", name, (n for info in self.parameters for n in info.names)))

    def speakers(self, group: Group, property: str) -> str:
        """The rules that are heard about one property of a group, as errors name them."""
        words = self.treatments[group.parameters[0].name].words
        said = [
            word for name, told in words.items() if name.partition("[")[0] == property for word in told if word.heard
        ]
        return listed(dict.fromkeys(title(self.plan.rules, word.rule) for word in said)) or f"group {group.name!r}"

    def torch_groups(self) -> list[dict[str, Any]]:
        """Plain parameter group dicts for any `torch.optim` class: params, name, algorithm and what the plan declares.

        Schedules stand at their peak, so a torch scheduler can multiply them; factors are already multiplied in. For
        those who want the cascade alone, or want to leave. Frozen groups without an algorithm are left out.
        """
        return [
            {
                "params": [info.parameter for info in group.parameters],
                "name": group.name,
                "algorithm": group.algorithm,
                **{name: setting.peak for name, setting in group.settings.items()},
            }
            for group in self.groups
            if group.algorithm is not None
        ]

    def __str__(self) -> str:
        return table(self)
