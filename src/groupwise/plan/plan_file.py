"""Plan files: the same plan as plain data.

A rule's fields are the arguments of `Rule`; there is no second vocabulary. Reading goes text -> plain data (`formats`)
-> values, each declared thing decoded by the package that owns it; nothing is imported and nothing runs. Writing goes
the same way back.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from groupwise import _formats as formats
from groupwise._atomic import obstacle, replacing
from groupwise._paths import path_of
from groupwise._spelling import clipped, shown
from groupwise.errors import PlanError, nearest, unknown, within
from groupwise.plan.clip import Clip
from groupwise.plan.declarations import finite
from groupwise.plan.encoding import (
    decode_clip,
    decode_trainable,
    decode_value,
    encode_clip,
    encode_trainable,
    encode_value,
)
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.parts import PARTS_FIELDS, Parts
from groupwise.plan.rule import LONGEST_NAME, RULE_FIELDS, Rule
from groupwise.plan.stated_depth import checked_depth
from groupwise.schedules import Schedule
from groupwise.schedules import decode as decode_schedule
from groupwise.schedules import encode as encode_schedule
from groupwise.select import decode as decode_selector
from groupwise.select import encode as encode_selector

TABLES = ("rule", "clip", "values", "balance", "depth", "parts")


class PlanArguments(TypedDict):
    """The arguments of `Plan`."""

    rules: list[Rule]
    clip: Clip | None
    values: dict[str, Schedule]
    balance: Mapping[str, Any] | None
    depth: Mapping[str, int]
    parts: list[Parts]


def load(path: str | os.PathLike[str], allow: Sequence[str]) -> PlanArguments:
    """Read the plan file at `path`."""
    try:
        place = Path(path)
    except TypeError as error:
        given = type(path).__name__
        raise PlanError(f"a plan is Plan([Rule(…), …]) or the path of a plan file, not a {given}") from error
    with within(str(path)):
        format, text = formats.format_of(place), formats.read(place)
        return loads(text, allow, format)


def loads(text: str, allow: Sequence[str], format: str) -> PlanArguments:
    """Read a plan from text."""
    data = formats.parse(text, format)
    return decode(data, allow, {key: formats.lines_of(text, format, key, data.get(key)) for key in ("rule", "parts")})


def dumps(
    rules: Sequence[Rule],
    clip: Clip | None,
    values: Mapping[str, Schedule],
    balance: Mapping[str, Any] | None,
    depth: Mapping[str, int],
    parts: Sequence[Parts] = (),
) -> str:
    """A plan as TOML."""
    data: dict[str, Any] = {}
    if clip is not None:
        data["clip"] = encode_clip(clip)
    if parts:
        data["parts"] = [{"match": encode_selector(own.match), **own.options} for own in parts]
    data["rule"] = [encode_rule(rule) for rule in rules]
    if values:
        data["values"] = {name: encode_schedule(schedule) for name, schedule in values.items()}
    if depth:
        data["depth"] = dict(depth)
    if balance is not None:
        data["balance"] = dict(balance)
    return formats.write_toml(data)


def dump(text: str, path: str | os.PathLike[str]) -> None:
    """Write the text of a plan to a file, which is whole or as it was."""
    target = path_of(path, PlanError, "a plan file")
    with within(str(target)):
        if formats.format_of(target) != "toml":
            raise PlanError("plans are written as TOML; give the file the suffix .toml")
        if reason := obstacle(target):
            raise PlanError(f"cannot write the file: {reason}")
    with replacing(target) as file:
        file.write(text.encode())


def decode(
    data: Mapping[str, Any], allow: Sequence[str], lines: Mapping[str, Sequence[int]] | None = None
) -> PlanArguments:
    """The arguments of a plan from plain data. Raises one error for all that is wrong, with the `lines` of the tables
    of each list.
    """
    mistakes = Mistakes()
    for key in data:
        with mistakes.collecting():
            if key not in TABLES:
                raise PlanError(unknown("table", key, TABLES))
    decoded = PlanArguments(rules=[], clip=None, values={}, balance=None, depth={}, parts=[])
    with mistakes.collecting():
        for i, rule in enumerate(_rules(data.get("rule"))):
            place = _line(lines, "rule", i)
            with mistakes.collecting(place=place):
                decoded["rules"] += _decode_rule(i, rule, allow, mistakes, place)
    with mistakes.collecting():
        for i, own in enumerate(_list_of_parts(data.get("parts", []))):
            with mistakes.collecting(place=_line(lines, "parts", i)):
                decoded["parts"].append(_decode_parts(i, own))
    with mistakes.collecting():
        decoded["clip"] = _plan_clip(data.get("clip"))
    with mistakes.collecting():
        for name, value in _table("values", data.get("values", {})).items():
            with mistakes.collecting():
                decoded["values"][name] = _value(name, value)
    with mistakes.collecting():
        if data.get("balance") is not None:
            decoded["balance"] = _balance(_table("balance", data["balance"]))
    with mistakes.collecting():
        decoded["depth"] = checked_depth(data.get("depth", {}))
    mistakes.raise_all(PlanError)
    return decoded


def _line(lines: Mapping[str, Sequence[int]] | None, key: str, i: int) -> str:
    known = lines.get(key, ()) if lines else ()
    return f"line {known[i]}" if i < len(known) else ""


def _rules(rules: object) -> list[Any]:
    if not isinstance(rules, list) or not rules:
        hint = "write [[rule]], in double brackets, once per rule" if isinstance(rules, dict) else "add a [[rule]]"
        raise PlanError(f"the plan has no list of rules: {hint}")
    return rules


def _list_of_parts(parts: object) -> list[Any]:
    if not isinstance(parts, list):
        raise PlanError("parts are tables of a list: write [[parts]], in double brackets, once for each")
    return parts


def _decode_parts(i: int, data: object) -> Parts:
    fields = dict(_table(f"parts {i + 1}", data))
    with within(f"parts {i + 1}"):
        for key in fields:
            if key not in PARTS_FIELDS:
                raise PlanError(unknown("key", key, PARTS_FIELDS))
        if "match" not in fields:
            raise PlanError('it has no match: say which parameters it takes apart, as match = "*.qkv.weight"')
        return Parts(decode_selector(fields.pop("match")), **fields)


def _decode_rule(i: int, data: object, allow: Sequence[str], mistakes: Mistakes, place: str) -> list[Rule]:
    """The i-th rule from its table, or nothing where a field of it is wrong: each such mistake is collected, as at
    `place`. Unknown keys are hyperparameters; the cascade knows which exist.
    """
    fields = dict(_table(f"rule {i + 1}", data))
    label = fields.pop("label", None)
    title = f"rule {i + 1}" + (f" {shown(label)}" if isinstance(label, str) else "")
    arguments: dict[str, Any] = {"label": label, "hyperparameters": {}, "extra": {}}

    @contextlib.contextmanager
    def field() -> Iterator[None]:
        with mistakes.collecting(place=place), within(title):
            yield

    before = mistakes.count
    with field():
        if "match" not in fields:
            close = nearest("match", fields, limit=1, cutoff=0.7)
            hint = f"; did you mean match by {close[0]!r}?" if close else ': write match = "*" for every parameter'
            raise PlanError(f"it has no match{hint}")
        arguments["match"] = decode_selector(fields.pop("match"))
    for key, decoded in _FIELDS.items():
        with field():
            arguments[key] = decoded(fields.pop(key, None))
    with field():
        optimizer = fields.pop("optimizer", None)
        arguments["optimizer"] = None if optimizer is None else _allowed(optimizer, allow)
    for key in ("hyperparameters", "extra"):
        with field():
            for name, value in _table(key, fields.pop(key, {})).items():
                with field():
                    arguments[key][name] = decode_value(name if key != "extra" else f"extra: {name}", value)
    for name, value in fields.items():
        with field():
            if not name.isidentifier() or len(name) > LONGEST_NAME:
                raise PlanError(f"{shown(name)} is not the name of a hyperparameter: write it as one word")
            arguments[name] = decode_value(name, value)
    if mistakes.count == before:
        with mistakes.collecting(place=place), within(title):
            return [Rule(arguments.pop("match"), **arguments)]
    return []


def encode_rule(rule: Rule) -> dict[str, Any]:
    """A rule as a table; the label is left out where the selector gives it."""
    with within(f"rule {shown(rule.label)}"):
        given = {} if rule.label == Rule(rule.match, trainable=True).label else {"label": rule.label}
        data: dict[str, Any] = {**given, "match": encode_selector(rule.match)}
        if rule.optimizer is not None:
            data["optimizer"] = _importable(rule)
        values = {name: encode_value(name, value) for name, value in rule.hyperparameters.items()}
        inside = {name: values.pop(name) for name in RULE_FIELDS if name in values}
        data |= {**values, **({"hyperparameters": inside} if inside else {})}
        if rule.extra:
            with within("extra"):
                data["extra"] = {name: encode_value(name, value) for name, value in rule.extra.items()}
        if rule.trainable is not None:
            data["trainable"] = encode_trainable(rule.trainable)
        if rule.clip is not None:
            data["clip"] = encode_clip(rule.clip)
        return data | ({"optional": True} if rule.optional else {})


def _importable(rule: Rule) -> str:
    if rule.optimizer is None or "<locals>" in rule.optimizer:
        raise PlanError(f"the class {rule.optimizer} lives inside a function: a file cannot name it")
    return rule.optimizer


def _allowed(optimizer: object, allow: Sequence[str]) -> str:
    if not isinstance(optimizer, str):
        raise PlanError(f"optimizer must be text, not {shown(optimizer)}")
    package = optimizer.partition(":")[0]
    if ":" in optimizer and package and not any(package == name or package.startswith(f"{name}.") for name in allow):
        top = package.partition(".")[0]
        raise PlanError(
            f"optimizer {shown(optimizer)} would import {shown(top)}, which this call does not allow: "
            f"pass allow=[{shown(top)}] (on the command line --allow {clipped(top)}) if you trust it"
        )
    return optimizer


def _plan_clip(data: object) -> Any:
    with within("clip"):
        return decode_clip(data) or None


def _value(name: str, data: object) -> Any:
    with within(f"values.{clipped(name)}"):
        if len(name) > LONGEST_NAME:
            raise PlanError(f"a name has at most {LONGEST_NAME} characters, not {len(name):,}")
        if not isinstance(data, dict):
            raise PlanError(f"a value is a schedule, such as {{ cosine = 0.996, end = 1.0 }}, not {shown(data)}")
        return decode_schedule(data)


def _balance(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table as it stands, after the checks that need no balancing method."""
    with within("balance"):
        method = data.get("method")
        if method is not None and not isinstance(method, str):
            raise PlanError(f"method must be the name of a balancing method, not {shown(method)}")
        for task, weight in _table("weights", data.get("weights", {})).items():
            with within(f"weights.{clipped(task)}"):
                if isinstance(weight, dict):
                    decode_schedule(weight)
                else:
                    finite("a task weight that is no schedule", weight)
        _refuse_nan("", data)
    return data


def _refuse_nan(where: str, data: object) -> None:
    """Raise `PlanError` for a nan, wherever it is: no plan that holds one equals itself."""
    if isinstance(data, float) and math.isnan(data):
        raise PlanError(f"{clipped(where.removeprefix('.'))} is nan, which is no number")
    if isinstance(data, dict | list | tuple):
        for key, inner in data.items() if isinstance(data, dict) else enumerate(data):
            _refuse_nan(f"{where}.{clipped(str(key))}", inner)


def _table(what: str, data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise PlanError(f"{what} must be a table, not {shown(data)}")
    return data


def _optional(data: object) -> bool:
    if data is not None and not isinstance(data, bool):
        raise PlanError(f"optional must be true or false, not {shown(data)}")
    return bool(data)


_FIELDS: dict[str, Callable[[Any], Any]] = {"trainable": decode_trainable, "clip": decode_clip, "optional": _optional}
