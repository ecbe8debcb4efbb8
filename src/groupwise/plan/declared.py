"""What rules that match together declare: the same for every parameter that they match, so it is found once for all of
them.

A hyperparameter declared in a rule that names an algorithm applies only where that algorithm finally stands; one
declared in a rule that names none applies to any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from groupwise.errors import PlanError, within
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.clip import Clip, ClipScope
from groupwise.plan.declarations import Exact, Factor, Multiplier
from groupwise.plan.freezing import Timeline
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.outcomes import Declaration, Outcome, Outcomes, outcomes_of, text_of
from groupwise.plan.rule import Rule, property_of, title
from groupwise.plan.setting import ScalarSetting
from groupwise.plan.silent_defaults import check_defaults

Decided: TypeAlias = tuple[ScalarSetting, tuple[Outcome, ...]]
"""What one slot comes to."""


@dataclass(frozen=True)
class Declared:
    """What rules that match together declare: the same for every parameter that they match.

    `slots` are the declarations of each slot of the algorithm, with their outcomes, `settled` those slots that nothing
    multiplies, `layout` the declared hyperparameters with their slots, `unused` the outcomes of declarations that do
    not apply, `deep` the last rule whose effective declaration depends on the depth, `bases` what the factors of a slot
    multiply. `multipliers` are kept by the cascade: what factors come to that depend on no more than the level.
    """

    algorithm: Algorithm | None
    timeline: Declaration | None
    clip: ClipScope | None
    outcomes: Mapping[str, tuple[Outcome, ...]]
    slots: Mapping[str, tuple[Sequence[Declaration], tuple[Outcome, ...]]] = field(default_factory=dict)
    settled: Mapping[str, Decided] = field(default_factory=dict)
    layout: Sequence[tuple[str, list[str]]] = ()
    unused: Sequence[tuple[str, Outcome]] = ()
    deep: int | None = None
    bases: Mapping[str, object] = field(default_factory=dict)
    multipliers: dict[object, Multiplier] = field(default_factory=dict)

    @cached_property
    def usual(self) -> Outcomes:
        """The outcomes where every factor changes something."""
        return self.outcomes_with({slot: own for slot, (_, own) in self.slots.items()})

    def outcomes_with(self, of_slots: Mapping[str, Sequence[Outcome]]) -> Outcomes:
        """All outcomes, with these of the slots of the algorithm."""
        own = [(slot, outcome) for slot in self.slots if slot in of_slots for outcome in of_slots[slot]]
        by_slot: dict[str, list[Outcome]] = {}
        for slot, outcome in sorted([*self.unused, *own], key=lambda pair: pair[1].rule):
            by_slot.setdefault(property_of(slot), []).append(outcome)
        outcomes = {**self.outcomes, **{slot: tuple(made) for slot, made in by_slot.items()}}
        return Outcomes({name: made for name, made in outcomes.items() if made})


def declared_by(
    rules: Sequence[Rule],
    matching: Sequence[int],
    parameter: str,
    algorithms: Mapping[str, Algorithm],
    mistakes: Mistakes,
) -> Declared:
    """What the rules at the indices `matching` declare together. What is wrong goes to `mistakes`, for `parameter`."""
    named = [Declaration(i, rules[i].optimizer) for i in matching if rules[i].optimizer is not None]
    algorithm = algorithms[str(named[-1].value)] if named else None
    frozen = [Declaration(i, rules[i].trainable) for i in matching if rules[i].trainable is not None]
    clips = [Declaration(i, rules[i].clip) for i in matching if rules[i].clip is not None]
    outcomes = {
        "optimizer": outcomes_of(named),
        "trainable": outcomes_of(frozen),
        "clip": outcomes_of(clips, by_rule=True),
    }
    timeline, scope = frozen[-1] if frozen else None, _scope(rules, clips)
    deep = [timeline.rule] if timeline and isinstance(timeline.value, Timeline) and timeline.value.downwards else []
    if algorithm is None:
        outcomes |= {name: outcomes_of(made) for name, made in _declarations(rules, matching).items()}
        return Declared(None, timeline, scope, outcomes, deep=max(deep, default=None))
    extended = algorithm.with_extra(key for i in matching for key in rules[i].extra)
    by_slot, unused = _slots(rules, matching, extended, algorithms, parameter, mistakes)
    slots = {slot: (made, outcomes_of(made)) for slot, made in by_slot.items()}
    scaled = {slot: [o.rule for o in own if o.status == "factor"] for slot, (_, own) in slots.items()}
    bases = {slot: _base_of(slot, made, own, extended) for slot, (made, own) in slots.items()}
    settled = {slot: (ScalarSetting(bases[slot]), own) for slot, (_, own) in slots.items() if not scaled[slot]}
    layout = [(name, own) for name in extended.defaults if not slots.keys().isdisjoint(own := extended.slots(name))]
    deep += [i for factors in scaled.values() for i in factors if depth_dependent(rules[i])]
    return Declared(extended, timeline, scope, outcomes, slots, settled, layout, unused, max(deep, default=None), bases)


def _base_of(slot: str, made: Sequence[Declaration], outcomes: Sequence[Outcome], algorithm: Algorithm) -> object:
    """The last value that is declared for a slot, or the class default."""
    default = algorithm.default(slot)
    value = next((made[i].value for i, outcome in enumerate(outcomes) if outcome.status == "last word"), default)
    return value.value if isinstance(value, Exact) else value


def factors_of(rule: Rule) -> list[Factor]:
    """Every single factor that the rule declares, those of a tuple's elements too."""
    values = (v for value in rule.values.values() for v in (value if isinstance(value, tuple) else (value,)))
    return [part for value in values if isinstance(value, Factor) for part in value.parts]


def depth_dependent(rule: Rule) -> bool:
    """Whether anything that the rule declares depends on the parameter's depth."""
    downwards = rule.trainable is not None and rule.trainable.downwards
    return downwards or any(factor.uses_depth for factor in factors_of(rule))


def level_dependent(rule: Rule) -> bool:
    """Whether it depends on the depth, or on how many levels the rule matches."""
    return depth_dependent(rule) or any(factor.counts_levels for factor in factors_of(rule))


def _slots(
    rules: Sequence[Rule],
    matching: Sequence[int],
    algorithm: Algorithm,
    algorithms: Mapping[str, Algorithm],
    parameter: str,
    mistakes: Mistakes,
) -> tuple[dict[str, list[Declaration]], list[tuple[str, Outcome]]]:
    """The declarations of each slot of `algorithm`, and the outcomes of those that do not apply."""
    by_slot: dict[str, list[Declaration]] = {}
    unused: list[tuple[str, Outcome]] = []
    dropped: list[tuple[str, Declaration]] = []
    declared: set[str] = set()
    namer = max(i for i in matching if rules[i].optimizer is not None)
    plain = algorithms[algorithm.name]
    satisfied = _satisfied(rules, matching, plain, algorithms)
    for i in matching:
        for name, value in rules[i].values.items():
            if rules[i].optimizer not in (None, algorithm.name):
                dropped.append((name, Declaration(i, value)))
                outcome = Outcome(i, text_of(value), f"declared for {rules[i].optimizer} only", False, namer)
                unused += [(slot, outcome) for slot in plain.slots_of(name)]
            elif i in satisfied.get(name, ()):
                unused.append((name, _satisfied_outcome(i, value, algorithm, satisfied[name])))
            else:
                declared |= set() if isinstance(value, Factor) else {*plain.slots_of(name)}
                with mistakes.collecting(parameter), within(f"{title(rules, i)}, for {parameter!r}"):
                    if name in rules[i].extra:
                        plain.check_extra(name)
                    for slot, assigned in algorithm.assignments(name, value):
                        _append(by_slot.setdefault(slot, []), slot, Declaration(i, assigned))
    check_defaults(rules, namer, plain, declared, dropped, parameter, mistakes)
    return by_slot, unused


def _satisfied(
    rules: Sequence[Rule], matching: Iterable[int], algorithm: Algorithm, algorithms: Mapping[str, Algorithm]
) -> dict[str, list[int]]:
    """The hyperparameters that `algorithm` lacks and whose last declaration is an "off"; by name, the rules."""
    declaring: dict[str, list[int]] = {}
    for i in matching:
        if rules[i].optimizer in (None, algorithm.name):
            for name in rules[i].hyperparameters:
                declaring.setdefault(name, []).append(i)
    last = {name: rules[indices[-1]].hyperparameters[name] for name, indices in declaring.items()}
    return {name: declaring[name] for name, value in last.items() if algorithm.satisfied_by(name, value, algorithms)}


def _satisfied_outcome(i: int, value: object, algorithm: Algorithm, declaring: Sequence[int]) -> Outcome:
    if i == declaring[-1]:
        return Outcome(i, text_of(value), f"{algorithm.name} has none: satisfied", True, changes=False)
    return Outcome(i, text_of(value), "overridden", False, declaring[-1])


def _append(made: list[Declaration], slot: str, declaration: Declaration) -> None:
    if made and made[-1].rule == declaration.rule:
        raise PlanError(f"it declares {slot} twice, as {text_of(made[-1].value)} and as {text_of(declaration.value)}")
    made.append(declaration)


def _declarations(rules: Sequence[Rule], matching: Iterable[int]) -> dict[str, list[Declaration]]:
    made: dict[str, list[Declaration]] = {}
    for i in matching:
        for name, value in rules[i].values.items():
            made.setdefault(property_of(name), []).append(Declaration(i, value))
    return made


def _scope(rules: Sequence[Rule], made: Sequence[Declaration]) -> ClipScope | None:
    if not made or not isinstance(made[-1].value, Clip):
        return None
    return ClipScope(made[-1].value, made[-1].rule, rules[made[-1].rule].label)
