"""The cascade: what the rules that match one parameter come to.

For each property the last word wins; factors multiply into whatever value finally stands, wherever they appear;
`exact(x)` closes its ears to the factors before it. A hyperparameter belongs to who names it: declared in a rule that
names an algorithm it speaks only where that algorithm finally stands, otherwise for whatever stands.

`treat` is a pure function of the matching rules and of what the parameter is; every decision leaves a `Word`, so that
`explain` has nothing to reconstruct.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from groupwise.errors import PlanError, ResolutionError, within
from groupwise.plan.algorithm import Algorithm, is_number
from groupwise.plan.clip import Clip, ClipScope
from groupwise.plan.declarations import Exact, Factor, Multiplier
from groupwise.plan.freezing import Timeline
from groupwise.plan.rule import Rule
from groupwise.plan.setting import Setting, Several, Single
from groupwise.plan.silence import check_defaults
from groupwise.plan.words import Speech, Word, last_word, text_of, title
from groupwise.select import ParameterInfo

UNIT: Final = "factor of one"


@dataclass(frozen=True)
class Case:
    """One parameter before the law: the rules that match it (by index), and its distance from each rule's top level."""

    info: ParameterInfo
    matching: tuple[int, ...]
    below_top: Mapping[int, int]


@dataclass(frozen=True)
class Treatment:
    """What the rules come to for a parameter. `depth` is set where a heard declaration depends on it."""

    algorithm: str | None
    settings: Mapping[str, Setting]
    timeline: Timeline | None
    clip: ClipScope | None
    depth: int | None
    words: Mapping[str, tuple[Word, ...]] = field(compare=False)

    @cached_property
    def spoken(self) -> frozenset[int]:
        """The rules that match, heard or not."""
        return frozenset(word.rule for words in self.words.values() for word in words)

    @cached_property
    def heard(self) -> frozenset[int]:
        """The rules that had an effect."""
        return frozenset(word.rule for words in self.words.values() for word in words if word.heard)

    @cached_property
    def telling(self) -> frozenset[int]:
        """The rules whose effect shows: not those that only multiply by one."""
        shown = (word for words in self.words.values() for word in words if word.verdict != UNIT)
        return frozenset(word.rule for word in shown if word.heard)


def treat(rules: Sequence[Rule], case: Case, algorithms: Mapping[str, Algorithm]) -> Treatment:
    """Decide every property of one parameter. Raises `ResolutionError` or `PlanError` naming the rule at fault."""
    named = [Speech(i, rules[i].optimizer) for i in case.matching if rules[i].optimizer is not None]
    standing = algorithms[str(named[-1].value)] if named else None
    frozen = [Speech(i, rules[i].trainable) for i in case.matching if rules[i].trainable is not None]
    clips = [Speech(i, rules[i].clip) for i in case.matching if rules[i].clip is not None]
    words = {"optimizer": last_word(named), "trainable": last_word(frozen), "clip": last_word(clips)}
    settings: dict[str, Setting] = {}
    if standing is None:
        words |= {name: last_word(said) for name, said in _declared(rules, case.matching).items()}
    else:
        settings, spoken = _hyperparameters(rules, case, standing, algorithms)
        words |= spoken
    timeline = _timeline(frozen, case)
    return Treatment(
        algorithm=standing.name if standing else None,
        settings=settings,
        timeline=timeline,
        clip=_scope(rules, clips),
        depth=case.info.depth if _by_depth(rules, frozen, words if standing else {}) else None,
        words={name: said for name, said in words.items() if said},
    )


def _hyperparameters(
    rules: Sequence[Rule], case: Case, standing: Algorithm, algorithms: Mapping[str, Algorithm]
) -> tuple[dict[str, Setting], dict[str, tuple[Word, ...]]]:
    speeches: dict[str, list[Speech]] = {}
    words: list[tuple[str, Word]] = []
    dropped: list[tuple[str, Speech]] = []
    namer = max(i for i in case.matching if rules[i].optimizer is not None)
    satisfied = _satisfied(rules, case.matching, standing, algorithms)
    for i in case.matching:
        for name, value in rules[i].hyperparameters.items():
            if rules[i].optimizer not in (None, standing.name):
                dropped.append((name, Speech(i, value)))
                word = Word(i, text_of(value), f"speaks for {rules[i].optimizer} only", False, namer)
                words += [(slot, word) for slot in standing.slots_of(name)]
            elif i in satisfied.get(name, ()):
                words.append((name, _satisfied_word(i, value, standing, satisfied[name])))
            else:
                with within(f"{title(rules, i)}, for {case.info.name!r}"):
                    for slot, spoken in standing.speak(name, value):
                        _hear(speeches.setdefault(slot, []), slot, Speech(i, spoken))
    check_defaults(rules, namer, standing, speeches, dropped, case.info.name)
    singles = {}
    for slot, said in speeches.items():
        with within(f"{title(rules, said[-1].rule)}, for {case.info.name!r}"):
            singles[slot], settled = _settle(slot, said, standing, case)
        words += [(slot, word) for word in settled]
    return _assemble(standing, singles), _by_slot(words)


def _satisfied(
    rules: Sequence[Rule], matching: Iterable[int], standing: Algorithm, algorithms: Mapping[str, Algorithm]
) -> dict[str, list[int]]:
    """The hyperparameters that `standing` has not and whose last word asks for none of it; by name, who speaks."""
    said: dict[str, list[int]] = {}
    for i in matching:
        if rules[i].optimizer in (None, standing.name):
            for name in rules[i].hyperparameters:
                said.setdefault(name, []).append(i)
    last = {name: rules[speakers[-1]].hyperparameters[name] for name, speakers in said.items()}
    return {name: said[name] for name, value in last.items() if standing.satisfied_by(name, value, algorithms)}


def _satisfied_word(i: int, value: object, standing: Algorithm, speakers: Sequence[int]) -> Word:
    if i == speakers[-1]:
        return Word(i, text_of(value), f"{standing.name} has none: satisfied", True)
    return Word(i, text_of(value), "overridden", False, speakers[-1])


def _hear(said: list[Speech], slot: str, speech: Speech) -> None:
    if said and said[-1].rule == speech.rule:
        raise PlanError(f"it declares {slot} twice, as {text_of(said[-1].value)} and as {text_of(speech.value)}")
    said.append(speech)


def _by_slot(words: Iterable[tuple[str, Word]]) -> dict[str, tuple[Word, ...]]:
    """The words about each slot, in the plan's order."""
    slots: dict[str, list[Word]] = {}
    for slot, word in sorted(words, key=lambda pair: pair[1].rule):
        slots.setdefault(slot, []).append(word)
    return {slot: tuple(said) for slot, said in slots.items()}


def _settle(slot: str, said: Sequence[Speech], standing: Algorithm, case: Case) -> tuple[Single, tuple[Word, ...]]:
    """One slot: the last value, times the factors that it hears."""
    words = list(last_word(said))
    value = next((said[i].value for i, word in enumerate(words) if word.verdict == "last word"), standing.default(slot))
    base = value.value if isinstance(value, Exact) else value
    factors: list[Multiplier] = []
    for i, word in enumerate(words):
        if word.verdict == "factor":
            own = [m for m in _multipliers(slot, said[i], base, case) if not m.neutral]
            factors += own
            words[i] = word if own else replace(word, verdict=UNIT)
    return Single(base, tuple(factors)), tuple(words)


def _multipliers(slot: str, speech: Speech, base: object, case: Case) -> Iterator[Multiplier]:
    if not is_number(base):
        raise ResolutionError(f"{speech.value} cannot multiply {slot}, which is {base!r} and not a number")
    factor = speech.value
    for part in factor.parts if isinstance(factor, Factor) else ():
        yield part.multiplier(case.info, case.below_top.get(speech.rule, 0))


def _assemble(standing: Algorithm, singles: Mapping[str, Single]) -> dict[str, Setting]:
    """Slots back to hyperparameters, in the constructor's order; undeclared elements take the class default."""
    settings: dict[str, Setting] = {}
    for name in standing.defaults:
        slots = standing.slots(name)
        if not any(slot in singles for slot in slots):
            continue
        if slots == [name]:
            settings[name] = singles[name]
        else:
            settings[name] = Several(tuple(singles.get(slot) or Single(standing.default(slot)) for slot in slots))
    return settings


def _declared(rules: Sequence[Rule], matching: Iterable[int]) -> dict[str, list[Speech]]:
    said: dict[str, list[Speech]] = {}
    for i in matching:
        for name, value in rules[i].hyperparameters.items():
            said.setdefault(name, []).append(Speech(i, value))
    return said


def _timeline(said: Sequence[Speech], case: Case) -> Timeline | None:
    if not said or not isinstance(said[-1].value, Timeline):
        return None
    return said[-1].value.at_level(case.below_top.get(said[-1].rule, 0))


def _scope(rules: Sequence[Rule], said: Sequence[Speech]) -> ClipScope | None:
    if not said or not isinstance(said[-1].value, Clip):
        return None
    return ClipScope(said[-1].value, said[-1].rule, rules[said[-1].rule].label)


def _by_depth(rules: Sequence[Rule], frozen: Sequence[Speech], words: Mapping[str, Sequence[Word]]) -> bool:
    downwards = bool(frozen) and isinstance(frozen[-1].value, Timeline) and frozen[-1].value.downwards
    heard = {word.rule for said in words.values() for word in said if word.verdict in ("factor", UNIT)}
    return downwards or any(depth_dependent(rules[i]) for i in heard)


def depth_dependent(rule: Rule) -> bool:
    """Whether anything that the rule declares depends on the parameter's depth."""
    downwards = rule.trainable is not None and rule.trainable.downwards
    return downwards or any(factor.uses_depth for factor in factors_of(rule))


def factors_of(rule: Rule) -> list[Factor]:
    """Every single factor that the rule declares, those of a tuple's elements too."""
    values = (v for value in rule.hyperparameters.values() for v in (value if isinstance(value, tuple) else (value,)))
    return [part for value in values if isinstance(value, Factor) for part in value.parts]
