"""A plan applied to parameters: the laws of the cascade in their order, and what a reader should know besides.

It is imported when a plan is first resolved, so that stating one costs little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groupwise.errors import ResolutionError, within
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import ResolvedSettings
from groupwise.plan.cautions import cautions_of, rates_left_by, unset_in_vain
from groupwise.plan.clip import Clip
from groupwise.plan.group import groups_of
from groupwise.plan.joined import ResolvedPart, joined_all
from groupwise.plan.ladder import ladders_of, readings_of, tops_of_parts
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.parts import Parts, taken_apart
from groupwise.plan.resolution import Resolution
from groupwise.plan.resolve import (
    check_coverage,
    check_levels,
    check_matched,
    check_overridden,
    matches_of,
    resolve_parameters,
)
from groupwise.plan.rule import Rule, title
from groupwise.plan.stated_depth import reading_of, with_stated_depth
from groupwise.schedules import Schedule
from groupwise.select import ParameterInfo


def resolution_of(
    rules: tuple[Rule, ...],
    clip: Clip | None,
    values: Mapping[str, Schedule],
    depth: Mapping[str, int],
    parts: Sequence[Parts],
    parameters: Sequence[ParameterInfo],
    algorithms: Mapping[str, Algorithm],
) -> Resolution:
    """What a plan, given by its fields, means for parameters. Raises as `Plan.resolve` does."""
    if not parameters:
        raise ResolutionError("the model has no parameters")
    mistakes = Mistakes()
    with mistakes.collecting():
        parameters = with_stated_depth(parameters, depth)
    known = _known(rules, algorithms, mistakes)
    apart = _taken_apart(parts, parameters, mistakes)
    pieces = [info for own in apart for info in own] or parameters
    matches = matches_of(rules, pieces)
    check_matched(rules, pieces, matches, mistakes)
    ladders = ladders_of(rules, pieces, matches)
    check_levels(rules, pieces, matches, ladders, mistakes)
    if any(rule.optimizer not in known for rule in rules if rule.optimizer is not None):
        mistakes.raise_all()
    resolved = resolve_parameters(rules, pieces, matches, ladders, known, mistakes)
    mistakes.raise_all()
    check_overridden(rules, resolved, mistakes)
    check_coverage(pieces, resolved, mistakes)
    mistakes.raise_all()
    wholes, joint = _joined(rules, apart, resolved, known, mistakes)
    by_name = {info.name: decided for info, decided in zip(parameters, wholes, strict=True)}
    groups = groups_of(rules, parameters, wholes, joint)
    readings = (
        *reading_of(parameters, depth),
        *readings_of(rules, pieces, matches, ladders),
        *rates_left_by(rules, pieces, resolved, known),
    )
    cautions = cautions_of(rules, pieces, matches) + tops_of_parts(rules, pieces, ladders)
    if clip is not None:
        cautions += unset_in_vain(rules, pieces, resolved)
    return Resolution(rules, clip, dict(values), groups, known, by_name, (), cautions, readings)


def _known(rules: Sequence[Rule], algorithms: Mapping[str, Algorithm], mistakes: Mistakes) -> dict[str, Algorithm]:
    known: dict[str, Algorithm] = {}
    for i, rule in enumerate(rules):
        if rule.optimizer is not None:
            with mistakes.collecting(), within(title(rules, i)):
                known[rule.optimizer] = algorithms[rule.optimizer]
    return known


def _taken_apart(
    parts: Sequence[Parts], parameters: Sequence[ParameterInfo], mistakes: Mistakes
) -> Sequence[tuple[ParameterInfo, ...]]:
    """What the rules meet in the place of each parameter, nothing where no parameter is taken apart. Raises what was
    collected if parts do not fit."""
    if not parts:
        return ()
    before = mistakes.count
    apart = taken_apart(parts, parameters, mistakes)
    if mistakes.count > before:
        mistakes.raise_all()
    return apart


def _joined(
    rules: Sequence[Rule],
    apart: Sequence[tuple[ParameterInfo, ...]],
    resolved: list[ResolvedSettings],
    known: Mapping[str, Algorithm],
    mistakes: Mistakes,
) -> tuple[list[ResolvedSettings], dict[str, tuple[ResolvedPart, ...]]]:
    """The settings of every whole parameter, and the parts of those that are taken apart. Raises what was collected."""
    if not apart:
        return resolved, {}
    wholes, parts = joined_all(rules, apart, resolved, known, mistakes)
    mistakes.raise_all()
    return wholes, parts
