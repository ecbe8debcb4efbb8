"""How the parameters of a checkpoint were optimised, and how a plan optimises them, in the same words.

A checkpoint of a `GroupedOptimizer` carries what its plan declared, as text; one of any other optimizer has values,
of which a rate is taken before its scheduler (`initial_lr`). What a plan schedules is compared with such a value by
its peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from groupwise._spelling import number
from groupwise.optim.live import hyperparameters, spelled
from groupwise.optim.saved import SavedParameter, read
from groupwise.plan import Group, Resolution
from groupwise.plan.difference import NONE, Said, Standing
from groupwise.plan.rule import property_of


def saved_standings(
    state_dict: Mapping[str, Any], resolution: Resolution
) -> tuple[dict[str, Standing], dict[str, Standing]]:
    """The standings of a checkpoint's parameters and of a plan's, to be compared; clips are in no checkpoint.

    Raises `StateError` for a checkpoint whose parameters cannot be told.
    """
    infos = resolution.parameters
    aliases = {alias: info.name for info in infos for alias in (*info.names, *info.aliases)}
    saved = read(state_dict, [info.name for info in infos], aliases).parameters
    numels = {info.name: info.numel for info in infos}
    declaring = all("declared" in parameter.values for parameter in saved.values())
    before = {
        name: Standing(str(own.values.get("name", "group")), numels.get(name, 0), dict(_was(own, declaring)))
        for name, own in saved.items()
    }
    after = {
        info.name: Standing(group.name, info.numel, dict(_is(group, before.get(info.name), declaring)))
        for group in resolution.groups
        for info in group.parameters
        if group.algorithm is not None or info.name in saved
    }
    return before, after


def _was(own: SavedParameter, declaring: bool) -> Iterator[tuple[str, Said]]:
    if not declaring:
        for name, value in hyperparameters(own.values).items():
            if name != "initial_lr":
                standing = own.values.get("initial_lr", value) if name == "lr" else value
                yield property_of(name), Said(_key(standing), number(standing))
        return
    algorithm = own.values.get("algorithm")
    yield "optimizer", Said(algorithm, str(algorithm or NONE))
    for name, text in own.values["declared"].items():
        yield property_of(name), Said(text, text)


def _is(group: Group, before: Standing | None, declaring: bool) -> Iterator[tuple[str, Said]]:
    if declaring:
        yield "optimizer", Said(group.algorithm, group.algorithm or NONE)
    for name, setting in group.settings.items():
        if declaring:
            yield property_of(name), Said(spelled(setting), spelled(setting))
        elif before is None or property_of(name) in before.said:
            peak = " (peak)" if setting.schedules else ""
            yield property_of(name), Said(_key(setting.peak), f"{number(setting.peak)}{peak}")
    if not declaring and before is not None:
        left = (name for name in before.said if name not in map(property_of, group.settings))
        yield from ((name, before.said[name]) for name in left)


def _key(value: object) -> Any:
    return tuple(map(_key, value)) if isinstance(value, list | tuple) else value
