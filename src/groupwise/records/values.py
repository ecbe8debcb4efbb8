"""What a line of a run says: a header, a step or an event. docs/records.md is the schema.

The values are plain and frozen; their fields are the keys of the schema, and a field that says nothing is not written.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast, final

from groupwise._spelling import shown
from groupwise.errors import RecordError
from groupwise.records.json_line import CODEC

VERSION: Final = 1
"""The version of the schema that is written here, and the newest one that is read."""

NESTED: Final = ("values", "groups", "tasks", "shares")
"""The sections of a step that are mappings of mappings."""

Numbers: TypeAlias = Mapping[str, float]


@final
@dataclass(frozen=True)
class Clip:
    """How a group's gradients are clipped.

    Attributes:
        kind, bound: what is bounded, and by how much.
        scope: the name of the scope that declared it.
        per: the set whose norm is joint: "scope" (all of it), "network", "module" or "parameter"; None where that is
            not known, or nothing is joint.
    """

    kind: str
    bound: float
    scope: str
    per: str | None = None


@final
@dataclass(frozen=True)
class Group:
    """A group of the run: what a line's names of groups stand for.

    Attributes:
        frozen: how many of its tensors did not require a gradient when this was written.
    """

    name: str
    algorithm: str = ""
    tensors: int = 0
    parameters: int = 0
    network: str | None = None
    rule: str | None = None
    clip: Clip | None = None
    frozen: int = 0


@final
@dataclass(frozen=True)
class Header:
    """The first line of a part. `Writer` fills in `run`, `part` and `started`."""

    by: str = "group"
    every: Mapping[str, int] = dataclasses.field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    tasks: tuple[str, ...] = ()
    writer: str = "groupwise"
    table: str | None = None
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    budget: float | None = None
    run: str = ""
    part: int = 0
    started: str = ""
    version: int = VERSION


@final
@dataclass(frozen=True)
class Step:
    """One update: the values it used, what was measured of each group, and what was logged with it.

    Attributes:
        step: the number of the update, the first being 0.
        time: seconds since the start of the part.
        values: hyperparameters by group.
        groups: statistics by group.
        scalars: what was logged by name.
        tasks: numbers by task.
        cosines: (task, task, cosine), each pair once.
        shares: by task, its share of the gradient norm in each group.
        conflicting: the tasks whose loss the update raises to first order.
    """

    step: int
    time: float = 0.0
    values: Mapping[str, Numbers] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Numbers] = dataclasses.field(default_factory=dict)
    scalars: Numbers = dataclasses.field(default_factory=dict)
    tasks: Mapping[str, Numbers] = dataclasses.field(default_factory=dict)
    cosines: Sequence[tuple[str, str, float]] = ()
    shares: Mapping[str, Numbers] = dataclasses.field(default_factory=dict)
    conflicting: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Event:
    """Something that happened at a step; `groups` is the new list where the groups changed."""

    step: int
    event: str
    text: str = ""
    groups: tuple[Group, ...] | None = None


Record: TypeAlias = Step | Event


def line(value: Header | Record) -> dict[str, Any]:
    """The keys of a line: the kind, then the fields that say something.

    Raises `RecordError` for what no reader takes.
    """
    if isinstance(value, Step):
        return {"kind": "step", "step": value.step, **_keys(value)}
    version = {"version": value.version} if isinstance(value, Header) else {}
    return {"kind": "run" if isinstance(value, Header) else "event", **version, **CODEC.encode(value)}


def changed(
    values: Mapping[str, Numbers], known: Mapping[str, Numbers]
) -> tuple[dict[str, Numbers], Mapping[str, Numbers]]:
    """What a line says of values where those of the lines before are known, and what is known after it.

    Hyperparameters change seldom. Of each group only the numbers are written that are not what they were; a group of
    which nothing is has an empty mapping, which `groupwise.records.columns` reads as "as before".
    """
    changes: dict[str, Numbers] = {}
    for group, numbers in values.items():
        before = known.get(group)
        if numbers is before or not numbers:
            changes[group] = {}
        else:
            old = before or {}
            changes[group] = {key: number for key, number in numbers.items() if old.get(key) != number}
    return {group: numbers for group, numbers in changes.items() if numbers or group in known}, {**known, **values}


def header(keys: Mapping[str, Any]) -> Header:
    """The header that a line's keys say. Raises `RecordError` if a known key holds something else."""
    return cast(Header, CODEC.decode(Header, keys, "header"))


def event(keys: Mapping[str, Any]) -> Event:
    """The event that a line's keys say. Raises `RecordError` if a known key holds something else."""
    found = cast(Event, CODEC.decode(Event, keys, "event"))
    if found.step < 0:
        raise RecordError(f"event.step is {found.step}, and the first update is 0")
    return found


def step(keys: Mapping[str, Any]) -> Step:
    """The step that a line's keys say, for what it lacks in speed it says what is wrong. Raises `RecordError`."""
    return cast(Step, CODEC.decode(Step, keys, "step"))


def _keys(value: Step) -> dict[str, Any]:
    keys = {name: inner for name in Step.__dataclass_fields__ if (inner := getattr(value, name)) or inner == 0}
    if type(value.step) is not int or not 0 <= value.step < 2**63:
        raise RecordError(f"a step has the number {shown(value.step)}, and the first update is 0")
    for section in (*NESTED, "scalars"):
        held = keys.get(section, {})
        for name, numbers in held.items() if section != "scalars" else (("", held),):
            try:
                array("d", numbers.values())
            except (AttributeError, TypeError, OverflowError):
                place = f"{section}[{shown(name)}]" if name else section
                raise RecordError(f"step {value.step}: {place} holds something that is no number") from None
    return keys
