"""What a line of a run says: a header, a step or an event. docs/records.md is the schema.

The values are plain and frozen; their fields are the keys of the schema, and a field that says nothing is not written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from groupwise.errors import RecordError

VERSION: Final = 1
"""The version of the schema that is written here, and the newest one that is read."""

Numbers: TypeAlias = Mapping[str, float]


@final
@dataclass(frozen=True)
class Clip:
    """How a group's gradients are clipped: the kind, the bound, and the scope over which it is measured."""

    kind: str
    bound: float
    scope: str


@final
@dataclass(frozen=True)
class Group:
    """A group of the run: what a line's names of groups stand for."""

    name: str
    algorithm: str
    tensors: int
    parameters: int
    network: str | None = None
    rule: str | None = None
    clip: Clip | None = None


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
        hurt: the tasks whose loss the update raises to first order.
    """

    step: int
    time: float = 0.0
    values: Mapping[str, Numbers] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Numbers] = dataclasses.field(default_factory=dict)
    scalars: Numbers = dataclasses.field(default_factory=dict)
    tasks: Mapping[str, Numbers] = dataclasses.field(default_factory=dict)
    cosines: Sequence[tuple[str, str, float]] = ()
    shares: Mapping[str, Numbers] = dataclasses.field(default_factory=dict)
    hurt: tuple[str, ...] = ()


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
    """The keys of a line: the kind, then the fields that say something."""
    if isinstance(value, Header):
        return {"kind": "run", "version": value.version, **_told(value)}
    return {"kind": "step" if isinstance(value, Step) else "event", "step": value.step, **_told(value)}


def header(keys: Mapping[str, Any]) -> Header:
    """The header that a line's keys say. Raises `RecordError` if a known key holds something else."""
    fields = {field.name: keys[field.name] for field in dataclasses.fields(Header) if field.name in keys}
    fields["groups"] = groups(keys.get("groups", []))
    fields["tasks"] = tuple(_of(str, task, "a task") for task in keys.get("tasks", []))
    return Header(**fields)


def groups(listed: Any) -> tuple[Group, ...]:
    """The groups of a header or of an event. Raises `RecordError` if they are none."""
    if not isinstance(listed, list) or not all(isinstance(group, Mapping) and "name" in group for group in listed):
        raise RecordError("its groups are not a list of objects with a name")
    return tuple(_group(group) for group in listed)


def event(keys: Mapping[str, Any]) -> Event:
    """The event that a line's keys say."""
    changed = groups(keys["groups"]) if "groups" in keys else None
    step = _of(int, keys.get("step", 0), "the step of an event")
    return Event(step, str(keys.get("event", "")), str(keys.get("text", "")), changed)


def _group(keys: Mapping[str, Any]) -> Group:
    clip = keys.get("clip")
    if isinstance(clip, Mapping):
        clip = Clip(str(clip.get("kind", "")), float(clip.get("bound", "nan")), str(clip.get("scope", "")))
    tensors, parameters = (_of(int, keys.get(key, 0), f"{key} of a group") for key in ("tensors", "parameters"))
    name, algorithm = _of(str, keys["name"], "the name of a group"), str(keys.get("algorithm", ""))
    return Group(name, algorithm, tensors, parameters, keys.get("network"), keys.get("rule"), clip)


_NOTHING: Final[tuple[object, ...]] = (None, "", (), {}, [])


def _told(value: Header | Record) -> dict[str, Any]:
    fields = ((name, getattr(value, name)) for name in value.__dataclass_fields__)
    written = {name: inner for name, inner in fields if inner or inner not in _NOTHING}
    if "groups" in written and not isinstance(value, Step):
        written["groups"] = [_told_group(group) for group in written["groups"]]
    return written


def _told_group(group: Group) -> dict[str, Any]:
    return {name: inner for name, inner in dataclasses.asdict(group).items() if inner is not None}


def _of(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise RecordError(f"{what} is {value!r}")
    return value
