"""The cascade: what the rules that match one parameter come to.

For each property the last declaration wins; factors multiply into whatever value finally stands, wherever they appear;
`exact(x)` is not touched by the factors declared before it. What the rules declare is the same for all parameters that
they match together (`groupwise.plan.declared`); what a factor comes to depends on the parameter, and is decided here.

`resolve_parameter` is a pure function of the matching rules and of what the parameter is. It records an `Outcome` for
every declaration, from which `explain` is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from groupwise.errors import GroupwiseError, ResolutionError, within
from groupwise.plan.algorithm import is_number
from groupwise.plan.clip import ClipScope
from groupwise.plan.declarations import Factor, Multiplier
from groupwise.plan.declared import Decided, Declared
from groupwise.plan.freezing import Timeline
from groupwise.plan.measured_factors import check_rate
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.outcomes import Declaration, Outcome, Outcomes
from groupwise.plan.rule import Rule, title
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
    outcomes: Outcomes = field(compare=False)

    @property
    def declaring(self) -> frozenset[int]:
        """The rules that declare something for the parameter, effective or not."""
        return self.outcomes.declaring

    @property
    def effective(self) -> frozenset[int]:
        """The rules with an effective declaration."""
        return self.outcomes.effective

    @property
    def visible(self) -> frozenset[int]:
        """The rules that change something."""
        return self.outcomes.visible


def resolve_parameter(
    rules: Sequence[Rule], matched: MatchedParameter, declared: Declared, mistakes: Mistakes
) -> ResolvedSettings:
    """Decide every property of one parameter. What is wrong goes to `mistakes`, each naming the rule at fault."""
    decided = dict(declared.settled)
    for slot, (made, outcomes_of_slot) in declared.slots.items():
        if slot not in declared.settled and declared.algorithm is not None:
            try:
                decided[slot] = _decide(slot, made, outcomes_of_slot, declared, matched)
            except GroupwiseError:
                place = f"{title(rules, made[-1].rule)}, for {matched.info.name!r}"
                with mistakes.collecting(matched.info.name), within(place):
                    raise
    usual = all(slot in decided and decided[slot][1] is own for slot, (_, own) in declared.slots.items())
    return ResolvedSettings(
        algorithm=declared.algorithm.name if declared.algorithm else None,
        settings=_assemble(declared, decided),
        timeline=_timeline(declared.timeline, matched),
        clip=declared.clip,
        depth=None if declared.deep is None else matched.levels.get(declared.deep, matched.info.depth),
        outcomes=declared.usual if usual else declared.outcomes_with({s: own for s, (_, own) in decided.items()}),
    )


def _decide(
    slot: str, made: Sequence[Declaration], of_slot: tuple[Outcome, ...], declared: Declared, matched: MatchedParameter
) -> Decided:
    """One slot: the last value, times the factors that apply to it. Its outcomes are `of_slot` where each factor
    changes something."""
    base, outcomes = declared.bases[slot], of_slot
    factors: list[Multiplier] = []
    for i, outcome in enumerate(of_slot):
        if outcome.status == "factor":
            own = [m for m in _multipliers(slot, made[i], base, declared, matched) if not m.neutral]
            factors += own
            if not own:
                neutral = replace(outcome, status=NEUTRAL, changes=_on_ladder(made[i].value, matched))
                outcomes = (*outcomes[:i], neutral, *outcomes[i + 1 :])
    if declared.algorithm is not None:
        check_rate(factors, slot, declared.algorithm.learning_rate)
    return ScalarSetting(base, tuple(factors)), outcomes


def _multipliers(
    slot: str, declaration: Declaration, base: object, declared: Declared, matched: MatchedParameter
) -> list[Multiplier]:
    """What the factors of one declaration come to; those that depend on no more than the level are made once."""
    if not is_number(base):
        raise ResolutionError(f"{declaration.value} cannot multiply {slot}, which is {base!r} and not a number")
    factor, rule = declaration.value, declaration.rule
    found: list[Multiplier] = []
    for i, part in enumerate(factor.parts if isinstance(factor, Factor) else ()):
        below, count = matched.below_top.get(rule, 0), matched.counts.get(rule, 1)
        key = slot, rule, i, below if part.uses_depth else 0, count if part.counts_levels else 1
        if key in declared.multipliers:
            found.append(declared.multipliers[key])
            continue
        found.append(part.multiplier(matched.info, below, count))
        if part.key(matched.info) is None:
            declared.multipliers[key] = found[-1]
    return found


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
