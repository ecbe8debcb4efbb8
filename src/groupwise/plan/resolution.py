"""What a plan means for one model: its groups, and who decided what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from groupwise import _pickling
from groupwise.errors import ResolutionError, listed, unknown
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import ResolvedSettings
from groupwise.plan.clip import Clip
from groupwise.plan.explanation import Explanation, explain
from groupwise.plan.group import Group
from groupwise.plan.rule import Rule, title
from groupwise.plan.table import html_table, lines_of, table, totals
from groupwise.schedules import Schedule
from groupwise.select import ParameterInfo, looked_at


@_pickling.public("groupwise.plan:Resolution")
@dataclass(frozen=True, eq=False, repr=False)
class Resolution:
    """The groups of a plan on a model, every parameter in exactly one of them, with the provenance of each decision.

    `str(resolution)` is the table. `rules`, `clip` and `values` are the plan's; `algorithms` those that its rules name;
    `resolved` has the settings of every parameter, by its first name. `cautions` are what a plan may not mean,
    `readings`
    how it counted levels and where a rate comes from; both stand under the table.
    """

    rules: tuple[Rule, ...]
    clip: Clip | None
    values: Mapping[str, Schedule]
    groups: tuple[Group, ...]
    algorithms: Mapping[str, Algorithm]
    resolved: Mapping[str, ResolvedSettings]
    remarks: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    readings: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[ParameterInfo, ...]:
        """Every parameter, group by group."""
        return tuple(info for group in self.groups for info in group.parameters)

    @property
    def scheduled(self) -> bool:
        """Whether a scheduler has anything to do: a schedule or a freeze timeline in any group, or a named value."""
        settings = (setting for group in self.groups for setting in group.settings.values())
        moving = any(group.timeline is not None and group.timeline.moves for group in self.groups)
        return moving or bool(self.values) or any(setting.schedules for setting in settings)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the table should know besides.

        How levels were read; rules that match and change nothing; what was read of roles and depth, and what was
        guessed; the remarks, and what may not be meant.
        """
        parts = (part.settings for group in self.groups for own in group.parts.values() for part in own)
        distinct = {id(decided): decided for decided in (*self.resolved.values(), *parts)}.values()
        effective = {i for decided in distinct for i in decided.effective}
        visible = {i for decided in distinct for i in decided.visible}
        idle = (
            f"{title(self.rules, i)} changes nothing: its values are those that stand without it"
            for i in sorted(effective - visible)
        )
        looked = looked_at(self.parameters)
        return (*self.readings, *idle, *([looked] if looked else []), *self.remarks, *self.cautions)

    def explain(self, name: str) -> Explanation:
        """Property by property, which rule declared the value of `name`, and which declarations it overrode.

        `name` may be that of a part ("qkv.weight@q"); a parameter that is split is told as the part whose values are
        the group's, with its parts below.

        Raises `ResolutionError` for a name that no parameter has, or that several have (`layer.weight` under weight
        norm, which makes two of it).
        """
        members = [(group, _as_read(group, info)) for group in self.groups for info in group.parameters]
        found = [(group, info) for group, info in members if name in info.names]
        found = found or [(group, info) for group, info in members if name in info.aliases]
        found = found or [(group, info) for group in self.groups for info in group.pieces if name in info.names]
        if len(found) > 1:
            names = ", ".join(info.name for _, info in found)
            raise ResolutionError(f"{name!r} names {len(found)} parameters: {names}; ask for one of them")
        if not found:
            known = (info for group in self.groups for info in (*group.parameters, *group.pieces))
            raise ResolutionError(unknown("parameter", name, dict.fromkeys(n for info in known for n in info.names)))
        group, info = found[0]
        own = next((part for parts in group.parts.values() for part in parts if part.info == info), None)
        if own is not None:
            return explain(self.rules, group, info, own.settings, self.algorithms)
        parts = group.parts.get(info.name, ())
        return explain(self.rules, group, info, self.resolved[info.name], self.algorithms, parts)

    def declaring_rules(self, group: Group, property: str) -> str:
        """The rules with an effective declaration of one property of a group, as errors name them."""
        outcomes = self.resolved[group.parameters[0].name].outcomes
        slots = [slot for slot in outcomes if slot.partition("[")[0] == property]
        effective = (o for slot in slots for o in outcomes[slot] if o.effective)
        return listed(dict.fromkeys(title(self.rules, o.rule) for o in effective)) or f"group {group.name!r}"

    def torch_groups(self, algorithm: str | None = None) -> list[dict[str, Any]]:
        """Plain parameter group dicts for any `torch.optim` class: params, name, algorithm and what the plan declares.

        Schedules stand at their peak, so a torch scheduler can multiply them; factors are already multiplied in. For
        those who want the cascade alone, or want to leave. Frozen groups without an algorithm are left out, and what
        no group dict can say: clipping, freezing in mid-run and named values.

        Args:
            algorithm: the groups of this one alone. Required if the plan has several, since one torch optimizer would
                take all of them.

        Raises:
            ResolutionError: the plan has several algorithms and none was asked for, or not the one that was; or it
                takes parameters apart, or has a rate that follows measurements.
        """
        owned = [group for group in self.groups if group.algorithm is not None]
        known = sorted({str(group.algorithm) for group in owned})
        if algorithm is None and len(known) > 1:
            raise ResolutionError(
                f"the plan has several algorithms ({listed(known)}), and one torch optimizer is of one: ask for the "
                f"groups of each, torch_groups({known[0]!r})"
            )
        if algorithm is not None and algorithm not in known:
            raise ResolutionError(unknown("algorithm of this plan", algorithm, known))
        asked = [group for group in owned if algorithm in (None, group.algorithm)]
        for group in asked:
            if group.parts:
                raise ResolutionError(
                    f"{next(iter(group.parts))!r} is taken apart by the plan, which no group dict of torch can say: "
                    "run the plan with GroupedOptimizer, or leave its parts out"
                )
            _check_said_by_numbers(group)
        return [
            {
                "params": [info.parameter for info in group.parameters if info.parameter is not None],
                "name": group.name,
                "algorithm": group.algorithm,
                **{name: setting.peak for name, setting in group.settings.items()},
            }
            for group in asked
        ]

    def lines(self) -> list[str]:
        """One line a group, as a log takes it."""
        return lines_of(self.groups, self.algorithms)

    def __str__(self) -> str:
        return table(self.groups, self.algorithms, self.clip, self.notes)

    def __repr__(self) -> str:
        return f"Resolution({totals(self.groups)})"

    def _repr_html_(self) -> str:
        return html_table(self.groups, self.algorithms, self.clip, self.notes)


def _check_said_by_numbers(group: Group) -> None:
    """Raise `ResolutionError` for a rate that no number says."""
    measured = [factor for setting in group.settings.values() for factor in setting.measured]
    if measured:
        raise ResolutionError(
            f"the lr of group {group.name!r} is multiplied by {measured[0]}, which is measured in each step, and no "
            "group dict of torch can say it: run the plan with GroupedOptimizer, or leave the factor out"
        )


def _as_read(group: Group, info: ParameterInfo) -> ParameterInfo:
    """A parameter of a group as the plan reads it, where it is read otherwise and not split."""
    parts = group.parts.get(info.name, ())
    return parts[0].info if len(parts) == 1 else info
