"""The cascade: what the rules that match one parameter come to.

For each property the last declaration wins; factors multiply into whatever value finally stands, wherever they appear;
`exact(x)` is not touched by the factors declared before it. A hyperparameter declared in a rule that names an algorithm
applies only where that algorithm finally stands; one declared in a rule that names none applies to any.

A default is never taken silently: a learning rate that no rule declares is an error, and so is a declared value that a
change of algorithm drops where the new class would put another default in its place.

`resolve_parameter` is a pure function of the matching rules and of what the parameter is. It records an `Outcome` for
every declaration, from which `explain` is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, TypeAlias

from groupwise._spelling import number
from groupwise.errors import PlanError, ResolutionError, within
from groupwise.plan.algorithm import PERFORMANCE, REQUIRED, Algorithm, is_number, same
from groupwise.plan.clip import Clip, ClipScope
from groupwise.plan.declarations import Exact, Factor, Multiplier
from groupwise.plan.freezing import Timeline
from groupwise.plan.mistakes import Mistakes
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
class Declaration:
    """The value that one rule declares for one property."""

    rule: int
    value: object


@dataclass(frozen=True)
class Outcome:
    """What became of a declaration.

    `status` is "last word", "factor", "factor of one", "overridden" (by the rule `overridden_by`) or says why the
    declaration does not apply; `effective` is whether it contributes to the value that stands, `changes` whether
    anything would be different without it: a factor of one and a value equal to the one before contribute, but change
    nothing. At the top of a layer-wise decay the factor is one as well; it is part of the ladder, so it counts.
    """

    rule: int
    text: str
    status: str
    effective: bool
    overridden_by: int | None = None
    changes: bool = True


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


Decided: TypeAlias = tuple[ScalarSetting, tuple[Outcome, ...]]
"""What one slot comes to."""


@dataclass(frozen=True)
class Declared:
    """What rules that match together declare: the same for every parameter that they match.

    `slots` are the declarations of each slot of the algorithm, with their outcomes, `settled` those slots that nothing
    multiplies, `layout` the declared hyperparameters with their slots, `unused` the outcomes of declarations that do
    not apply, `deep` the last rule whose effective declaration depends on the depth.
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
    settled = {
        slot: (ScalarSetting(_base(slot, made, own, extended)), own)
        for slot, (made, own) in slots.items()
        if not scaled[slot]
    }
    layout = [(name, own) for name in extended.defaults if not slots.keys().isdisjoint(own := extended.slots(name))]
    deep += [i for factors in scaled.values() for i in factors if depth_dependent(rules[i])]
    return Declared(extended, timeline, scope, outcomes, slots, settled, layout, unused, max(deep, default=None))


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


def outcomes_of(made: Sequence[Declaration], by_rule: bool = False) -> tuple[Outcome, ...]:
    """The outcomes of one property's declarations: the last value, every factor that applies to it, the overridden.

    `by_rule` says that equal values of two rules differ all the same, as clip scopes do.
    """
    values = [i for i, declaration in enumerate(made) if not isinstance(declaration.value, Factor)]
    changes = by_rule or len(values) < 2 or not _equal(made[values[-2]].value, made[values[-1]].value)
    last = values[-1] if values else -1
    exact_from = last if last >= 0 and isinstance(made[last].value, Exact) else -1
    outcomes = []
    for i, declaration in enumerate(made):
        text = text_of(declaration.value)
        if isinstance(declaration.value, Factor) and i > exact_from:
            outcomes.append(Outcome(declaration.rule, text, "factor", True))
        elif i == last:
            outcomes.append(Outcome(declaration.rule, text, "last word", True, changes=changes))
        else:
            outcomes.append(Outcome(declaration.rule, text, "overridden", False, made[last].rule))
    return tuple(outcomes)


def text_of(value: object) -> str:
    """A declared value as tables and errors print it."""
    return number(value, 6) if isinstance(value, float | tuple) else str(value)


def depth_dependent(rule: Rule) -> bool:
    """Whether anything that the rule declares depends on the parameter's depth."""
    downwards = rule.trainable is not None and rule.trainable.downwards
    return downwards or any(factor.uses_depth for factor in factors_of(rule))


def level_dependent(rule: Rule) -> bool:
    """Whether it depends on the depth, or on how many levels the rule matches."""
    return depth_dependent(rule) or any(factor.counts_levels for factor in factors_of(rule))


def factors_of(rule: Rule) -> list[Factor]:
    """Every single factor that the rule declares, those of a tuple's elements too."""
    values = (v for value in rule.values.values() for v in (value if isinstance(value, tuple) else (value,)))
    return [part for value in values if isinstance(value, Factor) for part in value.parts]


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
    _check_defaults(rules, namer, plain, declared, dropped, parameter, mistakes)
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
    base = _base(slot, made, outcomes, algorithm)
    factors: list[Multiplier] = []
    for i, outcome in enumerate(of_slot):
        if outcome.status == "factor":
            own = [m for m in _multipliers(slot, made[i], base, matched) if not m.neutral]
            factors += own
            outcomes[i] = (
                outcome if own else replace(outcome, status=NEUTRAL, changes=_on_ladder(made[i].value, matched))
            )
    return ScalarSetting(base, tuple(factors)), tuple(outcomes)


def _base(slot: str, made: Sequence[Declaration], outcomes: Sequence[Outcome], algorithm: Algorithm) -> object:
    """The last value that is declared for a slot, or the class default."""
    default = algorithm.default(slot)
    value = next((made[i].value for i, outcome in enumerate(outcomes) if outcome.status == "last word"), default)
    return value.value if isinstance(value, Exact) else value


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


def _declarations(rules: Sequence[Rule], matching: Iterable[int]) -> dict[str, list[Declaration]]:
    made: dict[str, list[Declaration]] = {}
    for i in matching:
        for name, value in rules[i].values.items():
            made.setdefault(property_of(name), []).append(Declaration(i, value))
    return made


def _timeline(declared: Declaration | None, matched: MatchedParameter) -> Timeline | None:
    if declared is None or not isinstance(declared.value, Timeline):
        return None
    return declared.value.at_level(matched.below_top.get(declared.rule, 0))


def _scope(rules: Sequence[Rule], made: Sequence[Declaration]) -> ClipScope | None:
    if not made or not isinstance(made[-1].value, Clip):
        return None
    return ClipScope(made[-1].value, made[-1].rule, rules[made[-1].rule].label)


def _check_defaults(
    rules: Sequence[Rule],
    namer: int,
    algorithm: Algorithm,
    declared: Iterable[str],
    dropped: Sequence[tuple[str, Declaration]],
    parameter: str,
    mistakes: Mistakes,
) -> None:
    """Collect an error for every default of `algorithm` that `parameter` would take silently where it matters.

    `declared` are the slots whose value a rule declares; `dropped` the declarations made for another algorithm; `namer`
    is the rule that named `algorithm`.
    """
    checked, stated = set(declared), set(declared)
    for name, declaration in reversed(dropped):
        if name in PERFORMANCE or not algorithm.knows(name):
            continue
        for slot, value in _assigned_elsewhere(algorithm, name, declaration.value):
            if slot in checked or isinstance(value, Factor):
                continue
            if not same(slot, value.value if isinstance(value, Exact) else value, algorithm.default(slot)):
                stated.add(slot)
                with mistakes.collecting(parameter):
                    raise ResolutionError(_lost(rules, declaration.rule, namer, algorithm, slot, value, parameter))
            checked.add(slot)
    rate = algorithm.learning_rate
    missing = [slot for slot, default in algorithm.defaults.items() if default is REQUIRED and slot not in stated]
    with mistakes.collecting(parameter):
        if rate is not None and rate not in stated:
            raise ResolutionError(
                f"{parameter!r} has no declared {rate}: {title(rules, namer)} gives it to {algorithm.name}, "
                f"whose default {rate} is {algorithm.defaults[rate]!r}, and a learning rate is never a silent default; "
                f"declare {rate}= there"
            )
        if missing:
            names = ", ".join(missing)
            raise ResolutionError(f"{parameter!r}: {algorithm.name} requires {names}, which no rule declares")


def _assigned_elsewhere(algorithm: Algorithm, name: str, value: object) -> list[tuple[str, object]]:
    """The slots of `algorithm` that a declaration made for another algorithm would have set."""
    slots = algorithm.slots_of(name)
    inner = value.value if isinstance(value, Exact) else value
    if isinstance(inner, tuple) and slots != [name] and len(inner) == len(slots):
        return list(zip(slots, inner, strict=True))
    return [(slot, value) for slot in slots]


def _lost(
    rules: Sequence[Rule], source: int, namer: int, algorithm: Algorithm, slot: str, value: object, parameter: str
) -> str:
    return (
        f"{parameter!r} would silently lose {slot}={text_of(value)}: {title(rules, source)} declares it for "
        f"{rules[source].optimizer}, {title(rules, namer)} changes the algorithm to {algorithm.name}, whose default "
        f"{slot}={algorithm.default(slot)!r} would take its place; declare {slot.partition('[')[0]}= "
        f"in rule {namer + 1}, or in a rule that names no optimizer"
    )


def _equal(before: object, value: object) -> bool:
    """Whether a declared value is the one that stood before it; `exact` also stops the factors before it."""
    return type(before) is type(value) and not isinstance(value, Exact) and before == value
