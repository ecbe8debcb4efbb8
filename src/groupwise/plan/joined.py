"""Parts of one parameter, joined again: what the rules decide for each, as factors of what they decide for the whole.

The parameter stays one tensor in one live group, with one entry of state. So its parts share the algorithm and every
hyperparameter but the learning rate and the weight decay, and these may differ by constant factors alone: whoever
writes the group's rate, a schedule of the plan or of somebody else, then writes that of every part.

The group's values are those of one of the parts, the *reference*: the one that most of them share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groupwise import _pickling
from groupwise._spelling import number
from groupwise.errors import ResolutionError
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import ResolvedSettings
from groupwise.plan.clip import ClipScope
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.parts import name_of_whole
from groupwise.plan.rule import Rule, title
from groupwise.plan.setting import ScalarSetting, Setting
from groupwise.select import ParameterInfo, Part
from groupwise.select.part import SEPARATOR

_DECAY = "weight_decay"


@_pickling.public("groupwise.plan:PartFactor")
@dataclass(frozen=True)
class PartFactor:
    """How a hyperparameter of a part follows that of the group: `part` where the group has `whole`."""

    whole: float
    part: float

    def of(self, value: Any) -> Any:
        """The part's value where the group's is `value`, a number or a tensor; exact where that is `whole`."""
        if isinstance(value, int | float) and value == self.whole:
            return self.part
        return value * (self.part / self.whole)

    def __str__(self) -> str:
        return number(self.part / self.whole)


@_pickling.public("groupwise.plan:ResolvedPart")
@dataclass(frozen=True)
class ResolvedPart:
    """A part, what the rules decide for it, and by what its learning rate and weight decay differ from the group's."""

    info: ParameterInfo
    settings: ResolvedSettings
    factors: Mapping[str, PartFactor]

    @property
    def part(self) -> Part:
        """Where it lies in the parameter."""
        return self.info.part or Part(self.info.shape)


def joined_all(
    rules: Sequence[Rule],
    apart: Sequence[tuple[ParameterInfo, ...]],
    resolved: Sequence[ResolvedSettings],
    algorithms: Mapping[str, Algorithm],
    mistakes: Mistakes,
) -> tuple[list[ResolvedSettings], dict[str, tuple[ResolvedPart, ...]]]:
    """The settings of every whole parameter, and the parts of those that are taken apart, by name.

    `apart` is what the rules met in the place of each parameter, `resolved` what they decided, piece after piece.
    Collects a `ResolutionError` for what parts of one parameter cannot differ in.
    """
    wholes: list[ResolvedSettings] = []
    parts: dict[str, tuple[ResolvedPart, ...]] = {}
    position = 0
    for pieces in apart:
        own = resolved[position : position + len(pieces)]
        position += len(pieces)
        if pieces[0].part is None:
            wholes.append(own[0])
        else:
            settings, joint = _joined(rules, pieces, own, algorithms, mistakes)
            wholes.append(settings)
            parts[name_of_whole(pieces[0])] = joint
    return wholes, parts


def _joined(
    rules: Sequence[Rule],
    pieces: Sequence[ParameterInfo],
    resolved: Sequence[ResolvedSettings],
    algorithms: Mapping[str, Algorithm],
    mistakes: Mistakes,
) -> tuple[ResolvedSettings, tuple[ResolvedPart, ...]]:
    """The settings of one whole parameter, and its parts."""
    whole = name_of_whole(pieces[0])
    algorithm = algorithms[resolved[0].algorithm] if resolved[0].algorithm is not None else None
    reference, parts = resolved[0], list[ResolvedPart]()
    with mistakes.collecting(whole):
        _check_shared(rules, whole, pieces, resolved)
        varying = _varying(algorithm)
        reference = _reference(whole, pieces, resolved, algorithm, varying)
        for info, own in zip(pieces, resolved, strict=True):
            parts.append(ResolvedPart(info, own, _factors(whole, info, own, reference, algorithm, varying)))
    return reference, tuple(parts)


def _varying(algorithm: Algorithm | None) -> tuple[str, ...]:
    """The hyperparameters that may differ between parts."""
    if algorithm is None:
        return ()
    rate = algorithm.learning_rate
    return tuple(name for name in (rate, _DECAY) if name is not None and name in algorithm.defaults)


def _check_shared(
    rules: Sequence[Rule], whole: str, pieces: Sequence[ParameterInfo], resolved: Sequence[ResolvedSettings]
) -> None:
    """Raise `ResolutionError` for a property that is not the same for all the parts and must be."""
    first = resolved[0]
    for info, own in zip(pieces[1:], resolved[1:], strict=True):
        for name in ("optimizer", "trainable", "clip", *{**first.settings, **own.settings}):
            if not _may_vary(name) and _standing(first, name) != _standing(own, name):
                said = " and ".join(
                    f"{_at(part)} has {name}={_text(_standing(decided, name))} ({_whose(rules, decided, name)})"
                    for part, decided in ((pieces[0], first), (info, own))
                )
                raise ResolutionError(
                    f"{whole!r}: {said}, but parts of one parameter share all but lr and {_DECAY}: they are one tensor "
                    f"in one group. Give {name} to the whole, as {whole!r}"
                )


def _may_vary(name: str) -> bool:
    return name in ("lr", "learning_rate", _DECAY)


def _standing(decided: ResolvedSettings, name: str) -> object:
    special = {"optimizer": decided.algorithm, "trainable": decided.timeline, "clip": decided.clip}
    return special[name] if name in special else decided.settings.get(name, "its default")


def _text(standing: object) -> str:
    return str(standing.clip if isinstance(standing, ClipScope) else standing)


def _whose(rules: Sequence[Rule], decided: ResolvedSettings, name: str) -> str:
    outcomes = [o for slot, made in decided.outcomes.items() if slot.partition("[")[0] == name for o in made]
    effective = [outcome.rule for outcome in outcomes if outcome.effective]
    return title(rules, effective[-1]) if effective else "no rule"


def _at(info: ParameterInfo) -> str:
    return f"{SEPARATOR}{info.part.name}" if info.part is not None and info.part.name else info.name


def _reference(
    whole: str,
    pieces: Sequence[ParameterInfo],
    resolved: Sequence[ResolvedSettings],
    algorithm: Algorithm | None,
    varying: Sequence[str],
) -> ResolvedSettings:
    """The settings that most parts share; of several the one that the fewest rules made, then the first.

    One whose rate or decay is 0 where another part's is not has no factor that leads there.
    """
    if algorithm is None:
        return resolved[0]
    setting_of = {name: [_setting(own, name, algorithm) for own in resolved] for name in varying}
    nonzero = {name: [_split(own)[1] != 0 for own in settings] for name, settings in setting_of.items()}
    fit = [
        i for i in range(len(resolved)) if all(nonzero[name][i] or not any(nonzero[name]) for name in varying)
    ]  # fmt: skip
    if not fit:
        raise ResolutionError(
            f"{whole!r}: lr is 0 for one of its parts and {_DECAY} for another, so none of them has values that those "
            "of the others are factors of"
        )
    keys = [tuple(str(settings[i]) for settings in setting_of.values()) for i in range(len(resolved))]
    counts = Counter(keys[i] for i in fit)
    best = min(fit, key=lambda i: (-counts[keys[i]], len(resolved[i].effective), i))
    return resolved[best]


def _factors(
    whole: str,
    info: ParameterInfo,
    own: ResolvedSettings,
    reference: ResolvedSettings,
    algorithm: Algorithm | None,
    varying: Sequence[str],
) -> dict[str, PartFactor]:
    factors: dict[str, PartFactor] = {}
    if algorithm is None:
        return factors
    for name in varying:
        theirs, ours = (_setting(decided, name, algorithm) for decided in (reference, own))
        if theirs == ours:
            continue
        (base, whole_factor), (other, part_factor) = _split(theirs), _split(ours)
        if base != other:
            raise ResolutionError(
                f"{whole!r}: {name} is {ours} for {_at(info)} and {theirs} for others of its parts, which is no "
                f"constant factor: declare one schedule for the whole, and {name}=scale(…) for the part"
            )
        if whole_factor != part_factor:
            factors[name] = PartFactor(whole_factor, part_factor)
    return factors


def _setting(decided: ResolvedSettings, name: str, algorithm: Algorithm) -> Setting:
    return decided.settings.get(name) or ScalarSetting(algorithm.default(name))


def _split(setting: Setting) -> tuple[object, float]:
    """A setting as what moves with time, and the constant that multiplies it."""
    if not isinstance(setting, ScalarSetting) or (not setting.schedules and not isinstance(setting.base, int | float)):
        return setting, 1.0
    if not setting.schedules:
        return ((), setting.measured), float(setting.peak)  # type: ignore[arg-type]  # a number, as the base is
    base = float(setting.base) if isinstance(setting.base, int | float) else 1.0
    return (setting.schedules, setting.measured), base * setting.constant_factor
