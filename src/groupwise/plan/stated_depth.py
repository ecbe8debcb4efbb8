"""Depth that a plan states: a table from globs to levels, for what a guess or a look gets otherwise.

The table is the plan's, so the levels go with it: a parameter that comes from another plan's resolution, as in a
regroup, has its own level again before this plan's table is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from groupwise._spelling import counted, shown
from groupwise.errors import PlanError, SelectorError, listed
from groupwise.select import Occurrence, ParameterInfo
from groupwise.select.declared import checked_level, stated_levels


def checked_depth(depth: object) -> dict[str, int]:
    """The table of a plan. Raises `PlanError` for anything else."""
    if not isinstance(depth, Mapping):
        raise PlanError(f'depth is a table of globs and levels, as {{"blocks.0": 1, "head": 2}}, not {shown(depth)}')
    for glob, level in depth.items():
        if not isinstance(glob, str) or not glob.strip():
            raise PlanError(f"depth: a glob is text, not {shown(glob)}")
        if isinstance(level, Mapping):
            raise PlanError(f'depth of {glob!r} is a table: a glob with dots stands in quotes, "{glob}.…" = 1')
        try:
            checked_level(repr(glob), level)
        except SelectorError as error:
            raise PlanError(str(error)) from error
    return dict(depth)


def with_stated_depth(parameters: Sequence[ParameterInfo], depth: Mapping[str, int]) -> tuple[ParameterInfo, ...]:
    """The parameters at the levels that a plan states, all others at their own. Raises `SelectorError`."""
    own = tuple(_without_plan(info) for info in parameters)
    levels = stated_levels(own, depth)
    return tuple(_at(info, levels[i]) if i in levels else info for i, info in enumerate(own))


def reading_of(parameters: Sequence[ParameterInfo], depth: Mapping[str, int]) -> Iterator[str]:
    """What stands under the table of a plan that states depth."""
    if depth:
        stated = sum(info.occurrences[0].depth_without_plan is not None for info in parameters)
        levels = listed((f"{glob} {level}" for glob, level in depth.items()), 8)
        yield f"depth as the plan states it, for {stated:,} of {counted(len(parameters), 'parameter')}: {levels}"


def _without_plan(info: ParameterInfo) -> ParameterInfo:
    if all(occurrence.depth_without_plan is None for occurrence in info.occurrences):
        return info
    return replace(info, occurrences=tuple(map(_own_depth, info.occurrences)))


def _own_depth(occurrence: Occurrence) -> Occurrence:
    own = occurrence.depth_without_plan
    return occurrence if own is None else replace(occurrence, depth=own, depth_without_plan=None)


def _at(info: ParameterInfo, level: int) -> ParameterInfo:
    return replace(
        info,
        occurrences=tuple(replace(each, depth=level, depth_without_plan=each.depth) for each in info.occurrences),
    )
