"""A plan with other values in one rule, addressed by label and field: what a sweep changes between runs.

    plan.replace("head", lr=1e-2)                          the whole value
    plan.replace("base", {"lr.cosine": 3e-4})              one entry of the table that a file would hold: the peak
    plan.replace("base", {"betas.1": 0.98})                one element of a tuple, counted from 0

An address goes on, behind the field, as in the form of a file, so that a sweep over numbers keeps the schedule that
they are numbers of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from groupwise._spelling import shown
from groupwise._warning import warn
from groupwise.errors import PlanError, listed, unknown, within
from groupwise.plan.declarations import Factor
from groupwise.plan.encoding import (
    decode_clip,
    decode_trainable,
    decode_value,
    encode_clip,
    encode_trainable,
    encode_value,
)
from groupwise.plan.rule import RULE_FIELDS, Rule
from groupwise.schedules import Schedule

_Codec: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
_CODECS: Mapping[str, _Codec] = {"clip": (encode_clip, decode_clip), "trainable": (encode_trainable, decode_trainable)}


def replaced(rules: Sequence[Rule], label: str, changes: Mapping[str, object]) -> list[Rule]:
    """The rules, the one with that label changed. Raises `PlanError` for what it does not have or cannot hold."""
    places = [i for i, rule in enumerate(rules) if rule.label == label]
    if not places:
        raise PlanError(unknown("rule", label, dict.fromkeys(rule.label for rule in rules)))
    if len(places) > 1:
        numbers = listed(str(i + 1) for i in places)
        raise PlanError(f"{len(places)} rules are labelled {shown(label)} ({numbers}): give one of them another label")
    if not changes:
        raise PlanError("nothing to replace: give a field and its value, such as lr=1e-3")
    (place,) = places
    with within(f"rule {shown(label)}"):
        rule = rules[place]
        for address, value in changes.items():
            rule = _with(rule, address, value)
    return [*rules[:place], rule, *rules[place + 1 :]]


def _with(rule: Rule, address: str, value: object) -> Rule:
    field, *path = address.split(".")
    if path:
        value = _inside(rule, field, path, value)
    elif field in rule.hyperparameters:
        _warn_of_a_course(field, rule.hyperparameters[field], value)
    fields: dict[str, Any] = {name: getattr(rule, name) for name in RULE_FIELDS if name != "hyperparameters"}
    fields["optimizer"] = rule.algorithm_class or rule.optimizer
    hyperparameters = dict(rule.hyperparameters)
    if field in fields:
        fields[field] = value
    else:
        hyperparameters[field] = value
    match = fields.pop("match")
    return Rule(match, **fields, hyperparameters=hyperparameters)


def _inside(rule: Rule, field: str, path: Sequence[str], value: object) -> object:
    """The field's value, with `value` at a path inside its form in a file."""
    known = {name: v for name, v in rule.declarations.items() if name != "optimizer"} | dict(rule.hyperparameters)
    if field not in known:
        raise PlanError(unknown("declaration", field, known))
    encode, decode = _CODECS.get(field) or (partial(encode_value, field), partial(decode_value, field))
    data = encode(known[field])
    written = encode_value(field, value) if isinstance(value, Schedule | Factor) else value
    with within(".".join([field, *path])):
        return decode(_put(data, path, written))


def _put(data: Any, path: Sequence[str], value: object) -> object:
    """A copy of plain data with a value at a path. Raises `PlanError` where the path leads nowhere."""
    if not path:
        return value
    key, *rest = path
    if isinstance(data, Mapping):
        if key not in data and rest:
            raise PlanError(unknown("key", key, data))
        return {**data, key: _put(data.get(key), rest, value)}
    if isinstance(data, list):
        if not key.isdecimal() or int(key) >= len(data):
            raise PlanError(unknown("place", key, map(str, range(len(data)))))
        return [_put(item, rest, value) if i == int(key) else item for i, item in enumerate(data)]
    raise PlanError(f"{shown(key)} leads nowhere: what stands there is {shown(data)}, no table and no list")


def _warn_of_a_course(field: str, before: object, value: object) -> None:
    """A number in the place of a schedule: said, since a sweep over peaks is more often meant."""
    if isinstance(before, Schedule) and isinstance(value, int | float) and not isinstance(value, bool):
        warn(
            f"{field} = {before} is replaced by {value!r}, a constant: {field}=constant({value!r}) says that it is "
            f'meant, and {{"{field}.{before.kind}": {value!r}}} replaces the first argument of the schedule alone'
        )
