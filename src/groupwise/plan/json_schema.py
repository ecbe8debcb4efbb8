"""The JSON Schema of plan files, by which editors complete and check them.

It is generated from what reads plan files: schedules and balancing methods by the fields of their classes, whose
annotations say what a file may hold (`schedules.arguments`), selectors by the keys of their reader. What the schema
refuses, `Plan.load` refuses (a null of YAML apart); the other way round it knows less: no model, no algorithm's
arguments, no nesting bounds.

Draft 7, which editors for TOML, YAML and JSON read. A table that names one of several things (`cosine`, `linear`) is
checked against that one alone (`if` ... `then`), so that an error speaks of it and not of all others.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

from groupwise.plan.clip import NonFinite, Per
from groupwise.plan.measured_factors import MEASURED, SharePer, TrustOf, TrustPer
from groupwise.plan.parts import PARTS_FIELDS
from groupwise.plan.rule import LONGEST_NAME
from groupwise.plan.shape_factors import OF_SHAPE
from groupwise.schedules.arguments import kinds, signature
from groupwise.schedules.custom import Function
from groupwise.schedules.files import KINDS
from groupwise.schedules.lengths import LENGTH_FORM
from groupwise.schedules.numbers import number_form
from groupwise.select.by_value import MAGNITUDES
from groupwise.select.files import KEYS
from groupwise.select.info import ROLES
from groupwise.select.statistics import STATISTICS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Schema: TypeAlias = "dict[str, Any]"

FILE: Final = "plan.schema.json"
_DIALECT: Final = "http://json-schema.org/draft-07/schema#"
_WORD: Final = r"[^\W\d]\w*"
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
_NUMBER, _POSITIVE = number_form(), number_form(above=0)
_OPTIMIZERS: Final = ("AdamW", "Adam", "Muon", "SGD", "SparseAdam", "Adagrad", "Adafactor", "RMSprop", "NAdam", "RAdam")
_HYPERPARAMETERS: Final = {
    "lr": "The learning rate: a number, a schedule such as { cosine = 3e-4, warmup = '5%' }, or a factor.",
    "weight_decay": "Weight decay: a number, a schedule or a factor.",
    "momentum": "Momentum, of SGD and Muon.",
    "betas": "Both decay rates of Adam's moments, as a list; each may be a schedule.",
    "beta1": "The first of betas alone.",
    "beta2": "The second of betas alone.",
    "eps": "What is added to a denominator.",
    "nesterov": "Nesterov's momentum: true or false.",
}


def text() -> str:
    """The schema that comes with the package."""
    return (resources.files(__package__) / FILE).read_text(encoding="utf-8")


def schema(methods: Mapping[str, type[DataclassInstance]]) -> Schema:
    """The schema of plan files, generated; `methods` are the balancing methods by name."""
    return {
        "$schema": _DIALECT,
        "title": "groupwise plan",
        "description": "How each part of a model is optimised: an ordered list of rules, of which the last word wins.",
        **_table(
            {
                "rule": {"type": "array", "items": _ref("rule"), "minItems": 1},
                "clip": _ref("clip") | {"description": "One more clip scope, over everything, applied last."},
                "values": {
                    "type": "object",
                    "propertyNames": {"maxLength": LONGEST_NAME},
                    "additionalProperties": _ref("schedule"),
                    "description": "Schedules that no parameter owns, read at scheduler.values[name].",
                },
                "balance": _ref("balance"),
                "depth": {
                    "type": "object",
                    "propertyNames": {"pattern": r"\S"},
                    "additionalProperties": {"type": "integer", "minimum": 0},
                    "description": "Levels for layer_decay, unfreeze_down and depth, by glob; 0 is the input.",
                },
                "parts": {"type": "array", "items": _parts()},
            },
            required=["rule"],
        ),
        "definitions": {
            "rule": _rule(),
            "selector": _selector(),
            "value": _value(),
            "factors": _factors(),
            "clip": _clip(),
            "trainable": _trainable(),
            "schedule": _schedule(),
            **{f"schedule_{name}": _made(cls, name) for name, cls in _in_files()},
            "balance": _balance(),
            "method": {"anyOf": [{"enum": sorted(methods)}, _method(methods)]},
            **{f"method_{name}": _constants(cls) for name, cls in methods.items()},
        },
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _table(properties: Schema, required: Iterable[str] = ()) -> Schema:
    """A table with these keys and no others."""
    needed = list(required)
    return {
        "type": "object",
        "properties": properties,
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
    }


def _one_or_list(one: Mapping[str, Any]) -> Schema:
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _chosen(key: str, then: Schema) -> Schema:
    """`then`, for a table with the key."""
    return {"if": {"required": [key]}, "then": then}


def _rule() -> Schema:
    fields = {
        "match": _ref("selector") | {"description": "The parameters: a glob, a table, or a list of them."},
        "label": _NAME | {"description": "How tables, groups and errors call the rule."},
        "optimizer": {
            "anyOf": [{"enum": list(_OPTIMIZERS)}, {"type": "string", "pattern": rf"^({_WORD}(\.{_WORD})*:)?{_WORD}$"}],
            "description": "A class of torch.optim by its name, or package.module:Class.",
        },
        "trainable": _ref("trainable"),
        "clip": _ref("clip"),
        "optional": {"type": "boolean", "description": "Whether the rule may match nothing."},
        "hyperparameters": {"type": "object", "additionalProperties": _ref("value")},
        "extra": {
            "type": "object",
            "additionalProperties": _ref("value"),
            "description": "Keys that the optimizer reads from its groups, and its constructor does not take.",
        },
    }
    known = {name: _ref("value") | {"description": said} for name, said in _HYPERPARAMETERS.items()}
    return {
        "type": "object",
        "properties": fields | known,
        "required": ["match"],
        "propertyNames": {"pattern": f"^{_WORD}$", "maxLength": LONGEST_NAME},
        "additionalProperties": _ref("value"),
        "not": {"propertyNames": {"enum": ["match", "label", "optional"]}},
    }


def _parts() -> Schema:
    """How a parameter is taken apart: a split has `into`, and may be of a stack or of what is flattened."""
    name = {"type": "string", "pattern": f"^{_WORD}$", "maxLength": LONGEST_NAME}
    keys: Schema = {
        "match": _ref("selector") | {"description": "The parameters that are taken apart."},
        "axis": {"type": "integer", "description": "The dimension that a split runs along."},
        "into": {
            "type": "array",
            "items": name,
            "minItems": 2,
            "uniqueItems": True,
            "description": "The names of the parts, which rules match as name@part.",
        },
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "stack": {"type": "boolean", "description": "A batch of matrices along the leading dimensions."},
        "flatten": {"type": "integer", "minimum": 0, "description": "How many first dimensions are a matrix's rows."},
        "optional": {"type": "boolean", "description": "Whether it may match nothing."},
    }
    return {
        **_table({key: keys[key] for key in PARTS_FIELDS}, required=["match"]),
        "description": "How a parameter that holds several matrices is taken apart before the rules meet it.",
        "anyOf": [
            {"required": ["into"]},
            {"required": ["stack"], "properties": {"stack": {"const": True}}},
            {"required": ["flatten"], "properties": {"flatten": {"minimum": 1}}},
        ],
        "dependencies": {"axis": ["into"], "sizes": ["into"]},
        "not": {
            "required": ["stack", "flatten"],
            "properties": {"stack": {"const": True}, "flatten": {"minimum": 1}},
        },
    }


def _selector() -> Schema:
    """Text, a table or a list; a key that has no form here is an error of this file, which a test finds."""
    number = {"anyOf": [_NUMBER, _table({"min": _NUMBER, "max": _NUMBER}) | {"minProperties": 1}]}
    ends = {"above": _NUMBER, "below": _NUMBER}
    size = {"type": "array", "items": {"anyOf": [_NUMBER, {"const": "*"}, {"type": "null"}]}}
    words: Schema = {"type": "string", "minLength": 1}
    forms: Schema = {
        **{key: _one_or_list(words) for key in ("name", "regex", "kind", "inside", "network", "tag")},
        "role": _one_or_list({"enum": list(ROLES)}),
        **{key: _one_or_list(number) for key in ("ndim", "size", "depth")},
        "shape": {"anyOf": [size, {"type": "array", "items": size, "minItems": 1}]},
        "magnitude": _one_or_list(_table({**ends, "of": {"enum": list(MAGNITUDES)}}) | {"minProperties": 1}),
        "statistic": _one_or_list(_table({"name": {"enum": list(STATISTICS)}, **ends}, ["name"])),
        "not": _ref("selector"),
        "any": {"type": "array", "items": _ref("selector")},
        "all": {"type": "array", "items": _ref("selector")},
    }
    return {
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": _ref("selector")},
            _table({key: forms[key] for key in KEYS}) | {"minProperties": 1},
        ]
    }


def _value() -> Schema:
    """A hyperparameter: plain, a tuple, or a table of a schedule, of factors, or of an exact value."""
    table = {
        "minProperties": 1,
        "if": {"anyOf": [{"required": [name]} for name, _ in _in_files()]},
        "then": _ref("schedule"),
        "else": _chosen("exact", _table({"exact": _ref("value")})) | {"else": _ref("factors")},
    }
    return {
        "type": ["number", "string", "boolean", "null", "array", "object"],
        "items": _ref("value"),
        "if": {"type": "object"},
        "then": table,
    }


def _factors() -> Schema:
    by = {"anyOf": [number_form(least=0), _ref("schedule")]}
    decay = {"anyOf": [number_form(above=0, most=1), _ref("schedule")]}
    glob: Schema = {"type": "string", "minLength": 1}
    options = ("floor", "levels", "top")
    named = _table(
        {
            "scale": by | {"description": "Multiplies whatever value finally stands."},
            "layer_decay": decay | {"description": "To the power of the levels below the top."},
            "floor": number_form(least=0, most=1),
            "levels": _one_or_list(glob),
            "top": {"type": "integer", "minimum": 0},
            "fan_in": {**_POSITIVE, "description": "The fan-in at which (fan-in / it)^power is 1."},
            "fan_out": {**_POSITIVE, "description": "The fan-out at which (fan-out / it)^power is 1."},
            "blocks": {**_POSITIVE, "description": "The number of matched levels at which (levels / it)^power is 1."},
            "power": {**_NUMBER, "description": "-1 if it is left out."},
            "axis": {"type": "integer", "description": "The axis that the fan is the size of."},
            **_measured(),
        }
    )
    shapes: list[Schema] = [{"required": [key]} for key in OF_SHAPE]
    fans: list[Schema] = [{"required": [key]} for key in OF_SHAPE if key != "blocks"]
    measured: list[Schema] = [{"required": [key]} for key in MEASURED]
    needed: Schema = {option: ["layer_decay"] for option in options}
    needed |= {key: {"oneOf": shapes} for key in ("power", *OF_SHAPE)}
    needed["axis"] = {"oneOf": fans}
    return named | {
        "anyOf": [{"required": ["scale"]}, {"required": ["layer_decay"]}, *shapes, *measured],
        "dependencies": needed,
    }


def _measured() -> Schema:
    """The factors that are measured: the first argument, or a table of arguments."""
    around = {"low": number_form(above=0, most=1), "high": number_form(least=1)}
    tables: Schema = {
        "trust_ratio": {
            "coefficient": _POSITIVE,
            "of": {"enum": list(get_args(TrustOf))},
            "per": {"enum": list(get_args(TrustPer))},
            "low": number_form(least=0),
            "high": _POSITIVE,
        },
        "update_ratio": {"target": _POSITIVE, "speed": number_form(above=0, most=1), **around},
        "gradient_share": {
            "power": _NUMBER,
            "per": {"enum": list(get_args(SharePer))},
            "smoothing": number_form(least=0, most=1),
            **around,
        },
    }
    said = {
        "trust_ratio": "LAMB's ratio |w| / |u| times a coefficient; of = 'gradient' is that of LARS.",
        "update_ratio": "The |update| / |weights| at which a slow controller holds the group.",
        "gradient_share": "The power of a layer's or network's gradient norm over the mean of all.",
    }
    firsts = {key: next(iter(own.values())) for key, own in tables.items()}
    return {key: {"anyOf": [firsts[key], _table(tables[key])], "description": said[key]} for key in MEASURED}


def _clip() -> Schema:
    norm = {"norm": _POSITIVE, "per": {"enum": list(get_args(Per))}, "nonfinite": {"enum": list(get_args(NonFinite))}}
    kinds_of_clip = (norm, {"value": _POSITIVE}, {"adaptive": _POSITIVE, "eps": _POSITIVE})
    return {
        "description": "Gradient clipping over what the rule wins; false unsets it.",
        "anyOf": [{"const": False}, *(_table(options, [next(iter(options))]) for options in kinds_of_clip)],
    }


def _trainable() -> Schema:
    moments = dict.fromkeys(("after", "until", "unfreeze_down"), LENGTH_FORM)
    return {
        "description": "Whether and when it trains; without it requires_grad stays as it is.",
        "anyOf": [{"type": "boolean"}, _table(moments) | {"minProperties": 1, "maxProperties": 1}],
    }


def _in_files() -> Iterable[tuple[str, type[DataclassInstance]]]:
    return ((name, cls) for name, cls in KINDS.items() if cls is not Function)


def _schedule() -> Schema:
    names = [name for name, _ in _in_files()]
    return {
        "type": "object",
        "anyOf": [{"required": [name]} for name in names],
        "allOf": [_chosen(name, _ref(f"schedule_{name}")) for name in names],
    }


def _made(cls: type[DataclassInstance], kind: str) -> Schema:
    """The table of a schedule: its name holds the first argument, the others keep their names."""
    first, *rest = signature(cls)
    keys = {kind: first, **{name: name for name in rest}}
    return _arguments(cls, keys)


def _constants(cls: type[DataclassInstance]) -> Schema:
    """The table of a balancing method; the method inside another stands under `of`."""
    keys = {"of" if name == "method" else name: name for name in signature(cls)}
    made = _arguments(cls, keys)
    return made | {"properties": {"method": {"type": "string"}, "task_only": {}, **made["properties"]}}


def _arguments(cls: type[DataclassInstance], keys: Mapping[str, str]) -> Schema:
    of, fields = kinds(cls), signature(cls)
    properties = {key: dict(of[name].form or (_ref("method") if key == "of" else {})) for key, name in keys.items()}
    required = [key for key, name in keys.items() if _is_required(fields[name])]
    said = (inspect.getdoc(cls) or "").partition("\n")[0]
    return _table(properties, required) | {"description": said}


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _method(methods: Mapping[str, type]) -> Schema:
    """A table with the name of a method and its arguments; without a name, static weights."""
    named = [
        {"if": {"properties": {"method": {"const": name}}, "required": ["method"]}, "then": _ref(f"method_{name}")}
        for name in methods
    ]
    static = {"if": {"not": {"required": ["method"]}}, "then": {"required": ["weights"], **_ref_all("method_Static")}}
    return {
        "type": "object",
        "properties": {"method": {"enum": sorted(methods)}},
        "allOf": [*named, static],
    }


def _ref_all(name: str) -> Schema:
    """A reference beside other keys: draft 7 reads nothing beside `$ref`."""
    return {"allOf": [_ref(name)]}


def _balance() -> Schema:
    """How several task losses become one update."""
    return {
        "description": "How several task losses become one update; read by Balancer.load(path).",
        "type": "object",
        "properties": {"task_only": {"enum": ["weighted", "unweighted"]}},
        "allOf": [_ref("method")],
    }
