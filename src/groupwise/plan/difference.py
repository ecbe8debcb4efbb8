"""What differs between two plans on one model: which parameters changed what, gathered by what changed.

Plans are compared as they resolve, not as they are written: `3e-4 × 0.1` is `3e-5`, a rule that moved or was renamed
without an effect is no change, and a schedule is its course. Courses are compared by their values at many updates of
two runs of different lengths, so that "5%" is not taken for the "50 steps" that it is in one of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from groupwise import _pickling
from groupwise._spelling import clipped, number
from groupwise.errors import ScheduleError
from groupwise.plan.group import Group
from groupwise.plan.joined import ResolvedPart
from groupwise.plan.resolution import Resolution
from groupwise.plan.rule import property_of
from groupwise.plan.setting import ScalarSetting, Setting, TupleSetting
from groupwise.schedules import Schedule
from groupwise.schedules.reductions import Plateau

NONE: Final = "none"
_DIGITS: Final = 12
_RUNS: Final = ((1000, 37), (10_007, 101))
"""Total steps and steps an epoch at which courses are compared, at this many updates of each:"""
_UPDATES: Final = 97


class Said(NamedTuple):
    """One property of a parameter: what it is compared by, how it reads, and whether a rule declares it."""

    key: Hashable
    text: str
    declared: bool = True


@dataclass(frozen=True)
class Standing:
    """How one parameter is optimised: its group, its number of entries, and its properties."""

    group: str
    numel: int
    said: Mapping[str, Said]


@_pickling.public("groupwise.plan:Change")
@dataclass(frozen=True)
class Change:
    """One property, as it was and as it is."""

    property: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.property}: {self.before} → {self.after}"


@_pickling.public("groupwise.plan:Difference")
@dataclass(frozen=True)
class Difference:
    """Parameters of one group before and one after that changed the same.

    Attributes:
        before, after: the names of the groups; None where there are no such parameters.
        changes: what changed; empty where the parameters are on one side alone.
        parameters: their names.
        numel: how many numbers they hold together.
    """

    before: str | None
    after: str | None
    changes: tuple[Change, ...]
    parameters: tuple[str, ...]
    numel: int


def differences(before: Mapping[str, Standing], after: Mapping[str, Standing]) -> tuple[Difference, ...]:
    """What differs between two standings of parameters, by name (`standings`); empty where nothing does.

    >>> was, now = Said(0.1, "0.1"), Said(0.2, "0.2")
    >>> found = differences({"w": Standing("base", 6, {"lr": was})}, {"w": Standing("base", 6, {"lr": now})})
    >>> [(str(change), found[0].parameters) for change in found[0].changes]
    [('lr: 0.1 → 0.2', ('w',))]
    """
    alike: dict[tuple[str | None, str | None, tuple[Change, ...]], list[tuple[str, int]]] = {}
    for name in dict.fromkeys([*after, *before]):
        was, now = before.get(name), after.get(name)
        changes = tuple(_changes(was.said, now.said)) if was and now else ()
        if changes or not (was and now):
            numel = now.numel if now else was.numel if was else 0
            key = was.group if was else None, now.group if now else None, changes
            alike.setdefault(key, []).append((name, numel))
    return tuple(
        Difference(*key, tuple(name for name, _ in found), sum(numel for _, numel in found))
        for key, found in alike.items()
    )


def standings(resolution: Resolution) -> dict[str, Standing]:
    """How each parameter is optimised, by its first name."""
    scopes: dict[int, set[str]] = {}
    for group in resolution.groups:
        if group.clip is not None:
            scopes.setdefault(group.clip.rule, set()).update(info.name for info in group.parameters)
    found: dict[str, Standing] = {}
    for group in resolution.groups:
        said = dict(_said(resolution, group, scopes))
        found |= {info.name: Standing(group.name, info.numel, said) for info in group.parameters}
        for name, parts in group.parts.items():
            own = said | dict(_said_of_parts(parts))
            found[name] = Standing(group.name, found[name].numel, own)
    return found


def outside(before: Resolution, after: Resolution) -> tuple[Change, ...]:
    """What differs in what belongs to no parameter: the clip over everything, and the named values."""
    found = [Change("clip over everything", str(before.clip or NONE), str(after.clip or NONE))]
    was, now = ({name: _course(value) for name, value in r.values.items()} for r in (before, after))
    for name in dict.fromkeys([*now, *was]):
        if was.get(name) != now.get(name):
            found.append(
                Change(f"values.{name}", str(before.values.get(name, NONE)), str(after.values.get(name, NONE)))
            )
    return tuple(change for change in found if change.before != change.after)


def _changes(before: Mapping[str, Said], after: Mapping[str, Said]) -> Iterator[Change]:
    nothing = Said(None, NONE, False)
    for property in dict.fromkeys([*before, *after]):
        was, now = before.get(property, nothing), after.get(property, nothing)
        if was.key != now.key and (was.declared or now.declared):
            texts = (was.text, now.text) if was.text != now.text else (clipped(repr(was.key)), clipped(repr(now.key)))
            yield Change(property, *texts)


def _said(resolution: Resolution, group: Group, scopes: Mapping[int, set[str]]) -> Iterator[tuple[str, Said]]:
    yield "optimizer", Said(group.algorithm, group.algorithm or NONE)
    defaults = resolution.algorithms[group.algorithm].defaults if group.algorithm is not None else {}
    for name in dict.fromkeys([*group.settings, *defaults]):
        if name in group.settings:
            yield property_of(name), Said(_key(group.settings[name]), str(group.settings[name]))
        else:
            yield property_of(name), Said(_rounded(defaults[name]), f"{number(defaults[name])} (default)", False)
    if group.clip is not None:
        scope = (group.clip.clip, frozenset(scopes[group.clip.rule]))
        yield "clip", Said(scope, f"{group.clip.clip} ({group.clip.label})")
    yield "trains", Said(group.freezing, {"trainable": "yes", "frozen": "no"}.get(group.freezing, group.freezing))


def _said_of_parts(parts: Sequence[ResolvedPart]) -> Iterator[tuple[str, Said]]:
    """How a parameter is taken apart, and by what its parts differ from its group."""
    read = tuple(part.part for part in parts)
    yield "parts", Said(read, "; ".join(f"@{part.name} {part}" if part.name else str(part) for part in read))
    for part in parts:
        for hyperparameter, factor in part.factors.items():
            ratio = factor.part / factor.whole
            yield f"{hyperparameter} of @{part.part.name}", Said(_rounded(ratio), f"× {factor}")


def _key(setting: Setting) -> Hashable:
    """What is equal for settings that come to the same values."""
    if isinstance(setting, TupleSetting):
        return tuple(_key(element) for element in setting.elements)
    if setting.measured:
        return setting.measured, _course_of(setting)
    return _course_of(setting)


def _course_of(setting: Setting) -> Hashable:
    """The values that are written, or the one value."""
    if not isinstance(setting, ScalarSetting) or not setting.schedules:
        return _rounded(setting.peak)
    by_metric = tuple(str(schedule) for schedule in setting.schedules if isinstance(schedule, Plateau))
    values = tuple(_at(setting, step, run) for run in _RUNS for step in _steps(run[0]))
    return values[0] if len(set(values)) == 1 and not by_metric else (*by_metric, *values)


def _at(setting: ScalarSetting, step: int, run: tuple[int, int]) -> Hashable:
    """The value at an update; none where a schedule that grows has left the finite numbers."""
    try:
        return _rounded(setting.at(step, *run))
    except ScheduleError:
        return None


def _course(schedule: Schedule) -> Hashable:
    return _key(ScalarSetting(schedule))


def _steps(total: int) -> Iterator[int]:
    return (round(i * total / _UPDATES) for i in range(_UPDATES + 1))


def _rounded(value: object) -> Hashable:
    if isinstance(value, tuple | list):
        return tuple(map(_rounded, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, Hashable) else repr(value)
    return float(f"{value:.{_DIGITS}g}")
