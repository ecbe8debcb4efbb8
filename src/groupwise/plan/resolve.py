"""From rules and parameters to groups.

Parameters that the same rules match, at the same depth in the same network, are treated alike, so the cascade runs once
per such class and not once per parameter: ten thousand tensors cost little more than the matching of their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groupwise.errors import ResolutionError, listed
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import Case, Treatment, depth_dependent, factors_of, treat
from groupwise.plan.declarations import Scale
from groupwise.plan.rule import Rule
from groupwise.plan.words import title
from groupwise.schedules import Schedule
from groupwise.select import ParameterInfo, nearest


def matches_of(rules: Sequence[Rule], parameters: Sequence[ParameterInfo]) -> list[tuple[int, ...]]:
    """For each parameter the indices of the rules that match it, in the plan's order."""
    columns = [[rule.match.matches(info) for info in parameters] for rule in rules]
    return [tuple(i for i, column in enumerate(columns) if column[p]) for p in range(len(parameters))]


def treatments_of(
    rules: Sequence[Rule],
    parameters: Sequence[ParameterInfo],
    matches: Sequence[tuple[int, ...]],
    algorithms: Mapping[str, Algorithm],
) -> list[Treatment]:
    """What the rules come to, parameter by parameter; equal cases share one `Treatment`."""
    deep = {i for i, rule in enumerate(rules) if depth_dependent(rule)}
    tops = _tops(deep, parameters, matches)
    personal = {i for i, rule in enumerate(rules) if _asks_the_parameter(rule)}
    seen: dict[object, Treatment] = {}
    treatments = []
    for info, matching in zip(parameters, matches, strict=True):
        by_depth = info.depth if deep.intersection(matching) else None
        own = info.name if personal.intersection(matching) else None
        key = (matching, info.network, by_depth, own)
        if key not in seen:
            below = {i: tops[i, info.network] - info.depth for i in deep.intersection(matching)}
            seen[key] = treat(rules, Case(info, matching, below), algorithms)
        treatments.append(seen[key])
    return treatments


def check_coverage(parameters: Sequence[ParameterInfo], treatments: Sequence[Treatment]) -> None:
    """Law 1: raise `ResolutionError` naming every trainable parameter that no rule gives an optimizer."""
    bare = [
        info.name
        for info, treatment in zip(parameters, treatments, strict=True)
        if treatment.algorithm is None and _trains(info, treatment)
    ]
    if bare:
        count = "1 trainable parameter has" if len(bare) == 1 else f"{len(bare)} trainable parameters have"
        raise ResolutionError(
            f'{count} no optimizer: {", ".join(bare)}; add a first rule Rule("*", optimizer=…, lr=…), '
            "or freeze them with trainable=False"
        )


def check_alive(
    rules: Sequence[Rule],
    parameters: Sequence[ParameterInfo],
    matches: Sequence[tuple[int, ...]],
    treatments: Sequence[Treatment],
) -> None:
    """Law 4: raise `ResolutionError` for a rule that matches nothing, or that is overridden in all that it says."""
    matched = {i for matching in matches for i in matching}
    distinct = list({id(treatment): treatment for treatment in treatments}.values())
    heard = {i for treatment in distinct for i in treatment.heard}
    for i, rule in enumerate(rules):
        if rule.optional or rule.match.dynamic or i in heard:
            continue
        if i not in matched:
            raise ResolutionError(_matches_nothing(rules, i, parameters))
        silencers = {
            word.silenced_by
            for treatment in distinct
            for said in treatment.words.values()
            for word in said
            if word.rule == i and word.silenced_by is not None
        }
        by = listed(title(rules, j) for j in sorted(silencers))
        raise ResolutionError(
            f"{title(rules, i)} has no effect: everything that it declares is overridden everywhere, by {by}; "
            "move it below, drop it, or say optional=True"
        )


def _matches_nothing(rules: Sequence[Rule], i: int, parameters: Sequence[ParameterInfo]) -> str:
    close = nearest(rules[i].match, parameters)
    hint = f"nearest: {listed(close, 5)}" if close else f"names look like {listed((p.name for p in parameters), 3)}"
    return f"{title(rules, i)} matches no parameter ({rules[i].match}); {hint}; say optional=True if that is meant"


def _trains(info: ParameterInfo, treatment: Treatment) -> bool:
    return info.requires_grad if treatment.timeline is None else not treatment.timeline.never


def _tops(
    deep: set[int], parameters: Sequence[ParameterInfo], matches: Sequence[tuple[int, ...]]
) -> dict[tuple[int, str], int]:
    """The deepest level that each of the rules `deep` matches in each network."""
    tops: dict[tuple[int, str], int] = {}
    for info, matching in zip(parameters, matches, strict=True):
        for i in deep.intersection(matching):
            tops[i, info.network] = max(tops.get((i, info.network), 0), info.depth)
    return tops


def _asks_the_parameter(rule: Rule) -> bool:
    scales = [factor.by for factor in factors_of(rule) if isinstance(factor, Scale)]
    return any(callable(by) and not isinstance(by, Schedule) for by in scales)
