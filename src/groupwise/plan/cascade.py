"""The cascade: what the rules that match one parameter come to.

For each property the last declaration wins; factors multiply into whatever value finally stands, wherever they appear;
`exact(x)` is not touched by the factors declared before it. What the rules declare is the same for all parameters that
they match together (`groupwise.plan.declared`); what a factor comes to depends on the parameter, and is decided here.

`resolve_parameter` is a pure function of the matching rules and of what the parameter is. It records an `Outcome` for
every declaration, from which `explain` is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from groupwise.errors import ResolutionError, within
from groupwise.plan.algorithm import Algorithm, is_number
from groupwise.plan.clip import ClipScope
from groupwise.plan.declarations import Factor, Multiplier
from groupwise.plan.declared import Decided, Declared, base_of
from groupwise.plan.freezing import Timeline
from groupwise.plan.measured_factors import check_rate
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.outcomes import Declaration, Outcome
from groupwise.plan.rule import Rule, property_of, title
from groupwise.plan.setting import ScalarSetting, Setting, TupleSetting
from groupwise.select import ParameterInfo

NEUTRAL: Final = "factor of one"


@dataclass(frozen=True)
class MatchedParameter:
    """A parameter, the indices of the rules that match it, its level and distance from the top as each reads it, and
    how many levels each matches."""

    info: ParameterInfo
    matching: tuple[int, ...]
    below_top: Mapping[int, int]
    levels: Mapping[int, int] = field(default_factory=dict)
    counts: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ResolvedSettings:
    """Everything the rules decide for a parameter. `depth` is set where an effective declaration depends on it."""

    algorithm: str | None
    settings: Mapping[str, Setting]
    timeline: Timeline | None
    clip: ClipScope | None
    depth: int | None
    outcomes: Mapping[str, tuple[Outcome, ...]] = field(compare=False)

    @cached_property
    def declaring(self) -> frozenset[int]:
        """The rules that declare something for the parameter, effective or not."""
        return frozenset(outcome.rule for outcome in self._all())

    @cached_property
    def effective(self) -> frozenset[int]:
        """The rules with an effective declaration."""
        return frozenset(outcome.rule for outcome in self._all() if outcome.effective)

    @cached_property
    def visible(self) -> frozenset[int]:
        """The rules that change something."""
        return frozenset(outcome.rule for outcome in self._all() if outcome.effective and outcome.changes)

    def _all(self) -> Iterator[Outcome]:
        return (outcome for outcomes in self.outcomes.values() for outcome in outcomes)


def resolve_parameter(
    rules: Sequence[Rule], matched: MatchedParameter, declared: Declared, mistakes: Mistakes
) -> ResolvedSettings:
    """Decide every property of one parameter. What is wrong goes to `mistakes`, each naming the rule at fault."""
    decided = dict(declared.settled)
    for slot, (made, outcomes_of_slot) in declared.slots.items():
        if slot not in declared.settled and declared.algorithm is not None:
            place = f"{title(rules, made[-1].rule)}, for {matched.info.name!r}"
            with mistakes.collecting(matched.info.name), within(place):
                decided[slot] = _decide(slot, made, outcomes_of_slot, declared.algorithm, matched)
    of_slots = [(slot, outcome) for slot in declared.slots if slot in decided for outcome in decided[slot][1]]
    outcomes = {**declared.outcomes, **_by_slot([*declared.unused, *of_slots])}
    return ResolvedSettings(
        algorithm=declared.algorithm.name if declared.algorithm else None,
        settings=_assemble(declared, decided),
        timeline=_timeline(declared.timeline, matched),
        clip=declared.clip,
        depth=None if declared.deep is None else matched.levels.get(declared.deep, matched.info.depth),
        outcomes={name: made for name, made in outcomes.items() if made},
    )


def _by_slot(outcomes: Iterable[tuple[str, Outcome]]) -> dict[str, tuple[Outcome, ...]]:
    """The outcomes of each slot, in the plan's order."""
    slots: dict[str, list[Outcome]] = {}
    for slot, outcome in sorted(outcomes, key=lambda pair: pair[1].rule):
        slots.setdefault(property_of(slot), []).append(outcome)
    return {slot: tuple(of_slot) for slot, of_slot in slots.items()}


def _decide(
    slot: str, made: Sequence[Declaration], of_slot: Sequence[Outcome], algorithm: Algorithm, matched: MatchedParameter
) -> Decided:
    """One slot: the last value, times the factors that apply to it."""
    outcomes = list(of_slot)
    base = base_of(slot, made, outcomes, algorithm)
    factors: list[Multiplier] = []
    for i, outcome in enumerate(of_slot):
        if outcome.status == "factor":
            own = [m for m in _multipliers(slot, made[i], base, matched) if not m.neutral]
            factors += own
            outcomes[i] = (
                outcome if own else replace(outcome, status=NEUTRAL, changes=_on_ladder(made[i].value, matched))
            )
    check_rate(factors, slot, algorithm.learning_rate)
    return ScalarSetting(base, tuple(factors)), tuple(outcomes)


def _multipliers(slot: str, declaration: Declaration, base: object, matched: MatchedParameter) -> Iterator[Multiplier]:
    if not is_number(base):
        raise ResolutionError(f"{declaration.value} cannot multiply {slot}, which is {base!r} and not a number")
    factor = declaration.value
    for part in factor.parts if isinstance(factor, Factor) else ():
        rule = declaration.rule
        yield part.multiplier(matched.info, matched.below_top.get(rule, 0), matched.counts.get(rule, 1))


def _on_ladder(factor: object, matched: MatchedParameter) -> bool:
    """Whether a factor that is one here would be another one level below."""
    parts = factor.parts if isinstance(factor, Factor) else ()
    return any(part.uses_depth and not part.multiplier(matched.info, 1).neutral for part in parts)


def _assemble(declared: Declared, decided: Mapping[str, Decided]) -> dict[str, Setting]:
    """Slots back to hyperparameters, in the constructor's order; undeclared elements take the class default."""
    settings: dict[str, Setting] = {}
    for name, slots in declared.layout:
        if slots == [name]:
            settings |= {name: decided[name][0]} if name in decided else {}
        elif declared.algorithm is not None:
            default = declared.algorithm.default
            elements = (decided[slot][0] if slot in decided else ScalarSetting(default(slot)) for slot in slots)
            settings[name] = TupleSetting(tuple(elements))
    return settings


def _timeline(declared: Declaration | None, matched: MatchedParameter) -> Timeline | None:
    if declared is None or not isinstance(declared.value, Timeline):
        return None
    return declared.value.at_level(matched.below_top.get(declared.rule, 0))
