"""From rules and parameters to groups.

Parameters that the same rules match, at the same depth in the same network, have the same settings, so the cascade runs
once per such class and not once per parameter: ten thousand tensors cost little more than the matching of their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from groupwise.errors import ResolutionError, listed
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import MatchedParameter, ResolvedSettings, resolve_parameter
from groupwise.plan.declarations import Factor, LayerDecay
from groupwise.plan.declared import Declared, declared_by, factors_of
from groupwise.plan.ladder import Ladder, distinct_levels
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.rule import Rule, title
from groupwise.select import ParameterInfo, nearest
from groupwise.select.part import SEPARATOR
from groupwise.select.selectors import Name, Selector, positions
from groupwise.select.table import ParameterTable

_REGEX = re.compile(r"[\\^$+(|]")


def matches_of(rules: Sequence[Rule], parameters: Sequence[ParameterInfo]) -> list[tuple[int, ...]]:
    """For each parameter the indices of the rules that match it, in the plan's order."""
    table = ParameterTable(parameters)
    marks = [0] * len(parameters)  # of each parameter a bit for each rule
    for i, rule in enumerate(rules):
        for p in positions(rule.match, table):
            marks[p] |= 1 << i
    known = {mark: tuple(i for i, bit in enumerate(reversed(f"{mark:b}")) if bit == "1") for mark in set(marks)}
    return [known[mark] for mark in marks]


def resolve_parameters(
    rules: Sequence[Rule],
    parameters: Sequence[ParameterInfo],
    matches: Sequence[tuple[int, ...]],
    ladders: Mapping[int, Ladder],
    algorithms: Mapping[str, Algorithm],
    mistakes: Mistakes,
) -> list[ResolvedSettings]:
    """What the rules come to, parameter by parameter; parameters with equal matches share one `ResolvedSettings`."""
    factors = {matching: _keyed(rules[i] for i in matching) for matching in set(matches)}
    leveled = {matching: [(i, ladders[i].levels) for i in matching if i in ladders] for matching in factors}
    known: dict[object, ResolvedSettings] = {}
    declared: dict[tuple[int, ...], Declared] = {}
    resolved = []
    for p, (info, matching) in enumerate(zip(parameters, matches, strict=True)):
        own = [factor.key(info) for factor in factors[matching]]
        key = (matching, info.network, *[of_rule[p] for _, of_rule in leveled[matching]], *own)
        if key not in known:
            levels = {i: of_rule[p] for i, of_rule in leveled[matching]}
            below = {i: ladders[i].tops[info.network] - level for i, level in levels.items()}
            counts = {i: ladders[i].counts.get(info.network, 1) for i in levels}
            matched = MatchedParameter(info, matching, below, levels, counts)
            if matching not in declared or mistakes.count:  # a mistake names every class of parameters that has it
                declared[matching] = declared_by(rules, matching, info.name, algorithms, mistakes)
            known[key] = resolve_parameter(rules, matched, declared[matching], mistakes)
        resolved.append(known[key])
    return resolved


def check_matched(
    rules: Sequence[Rule],
    parameters: Sequence[ParameterInfo],
    matches: Sequence[tuple[int, ...]],
    mistakes: Mistakes,
) -> None:
    """Law 4, first half: a rule that matches nothing is a mistake."""
    matched = {i for matching in matches for i in matching}
    for i, rule in enumerate(rules):
        with mistakes.collecting():
            if not rule.optional and not rule.match.dynamic and i not in matched:
                raise ResolutionError(_matches_nothing(rules, i, parameters))


def check_levels(
    rules: Sequence[Rule],
    parameters: Sequence[ParameterInfo],
    matches: Sequence[tuple[int, ...]],
    ladders: Mapping[int, Ladder],
    mistakes: Mistakes,
) -> None:
    """Law 4 in depth: a `layer_decay` or `unfreeze_down` over a single level does nothing, so it is a mistake."""
    for i, ladder in ladders.items():
        if not _decays(rules[i]) or rules[i].optional or rules[i].match.dynamic:
            continue
        levels = distinct_levels(ladder, parameters, [i in matching for matching in matches])
        if levels and all(len(found) == 1 for found in levels):
            with mistakes.collecting():
                raise ResolutionError(_one_level(rules, i, levels[0]))


def check_overridden(rules: Sequence[Rule], resolved: Sequence[ResolvedSettings], mistakes: Mistakes) -> None:
    """Law 4, second half: a rule that is overridden in all that it declares is a mistake."""
    distinct = list({id(decided): decided for decided in resolved}.values())
    effective = {i for decided in distinct for i in decided.effective}
    for i, rule in enumerate(rules):
        with mistakes.collecting():
            if not rule.optional and not rule.match.dynamic and i not in effective:
                raise ResolutionError(_overridden(rules, i, distinct))


def check_coverage(
    parameters: Sequence[ParameterInfo], resolved: Sequence[ResolvedSettings], mistakes: Mistakes
) -> None:
    """Law 1: trainable parameters that no rule gives an optimizer are a mistake, which names them all."""
    bare = [
        info.name
        for info, decided in zip(parameters, resolved, strict=True)
        if decided.algorithm is None and _trains(info, decided)
    ]
    if not bare:
        return
    count = "1 trainable parameter has" if len(bare) == 1 else f"{len(bare)} trainable parameters have"
    with mistakes.collecting():
        raise ResolutionError(
            f'{count} no optimizer: {", ".join(bare)}; add a first rule Rule("*", optimizer=…, lr=…), '
            "or freeze them with trainable=False"
        )


def _overridden(rules: Sequence[Rule], i: int, distinct: Sequence[ResolvedSettings]) -> str:
    overriding = {
        outcome.overridden_by
        for decided in distinct
        for outcomes in decided.outcomes.values()
        for outcome in outcomes
        if outcome.rule == i and outcome.overridden_by is not None
    }
    by = listed(title(rules, j) for j in sorted(overriding))
    return (
        f"{title(rules, i)} has no effect: everything that it declares is overridden everywhere, by {by}; "
        "move it below, drop it, or say optional=True"
    )


def _decays(rule: Rule) -> bool:
    """Whether levels matter to it; a `layer_decay(1)` makes them all alike, so a sweep may pass through it."""
    downwards = rule.trainable is not None and rule.trainable.downwards
    return downwards or any(isinstance(part, LayerDecay) and _varies(part) for part in factors_of(rule))


def _varies(decay: LayerDecay) -> bool:
    return decay.decay != 1.0 and decay.top is None


def _one_level(rules: Sequence[Rule], i: int, levels: set[int]) -> str:
    declared = "layer_decay" if any(factor.uses_depth for factor in factors_of(rules[i])) else "unfreeze_down"
    return (
        f"{title(rules, i)}: {declared} does nothing, for all that the rule matches ({rules[i].match}) stands on one "
        f"level, depth {min(levels)}; match the levels that it is to run over, or say optional=True if that is meant"
    )


def _other_grammar(match: Selector) -> str:
    """What a name is called that is no glob."""
    if not isinstance(match, Name):
        return ""
    if match.glob.startswith(("!", "~")):
        return f'all but a part is ~name("{match.glob[1:]}"); '
    return f'a name is a glob, a regular expression is regex(r"{match.glob}"); ' if _REGEX.search(match.glob) else ""


def _matches_nothing(rules: Sequence[Rule], i: int, parameters: Sequence[ParameterInfo]) -> str:
    close = nearest(rules[i].match, parameters)
    hint = f"nearest: {listed(close, 5)}" if close else f"names look like {listed((p.name for p in parameters), 3)}"
    whole = SEPARATOR in str(rules[i].match) and all(info.part is None or not info.part.name for info in parameters)
    split = "the plan splits no parameter, and a name with an @ is of a part: parts=[Parts(…, into=[…])]; "
    hint = f"{split if whole else ''}{_other_grammar(rules[i].match)}{hint}"
    return f"{title(rules, i)} matches no parameter ({rules[i].match}); {hint}; say optional=True if that is meant"


def _trains(info: ParameterInfo, decided: ResolvedSettings) -> bool:
    return info.requires_grad if decided.timeline is None else not decided.timeline.never


def _keyed(rules: Iterable[Rule]) -> list[Factor]:
    """The factors of some rules that depend on more of a parameter than its level."""
    return [factor for rule in rules for factor in factors_of(rule) if type(factor).key is not Factor.key]
