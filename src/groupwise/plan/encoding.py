"""What a rule declares, as plain data and back: factors, exact values, schedules, tuples, clips, timelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from groupwise._spelling import number_from_text, shown
from groupwise.errors import PlanError, listed, unknown, within
from groupwise.plan.clip import Clip, clip_adaptive, clip_norm, clip_value
from groupwise.plan.declarations import Exact, Factor, LayerDecay, Product, Scale, exact, layer_decay, scale
from groupwise.plan.freezing import Timeline, after, timeline, unfreeze_down, until
from groupwise.plan.measured_factors import MEASURED, MeasuredFactor, decoded, encoded
from groupwise.plan.shape_factors import OF_SHAPE, ShapeFactor, blocks, fan_in, fan_out
from groupwise.schedules import Schedule, is_table
from groupwise.schedules import decode as decode_schedule
from groupwise.schedules import encode as encode_schedule

FACTORS = ("scale", "layer_decay", *OF_SHAPE, *MEASURED)
OF_DECAY = ("floor", "levels", "top")  # what a table with a layer_decay may hold besides
OPTIONS_OF_SHAPE = ("power", "axis")  # what a table with a factor of shape may hold besides
_CLIPS: dict[str, Callable[..., Clip]] = {"norm": clip_norm, "value": clip_value, "adaptive": clip_adaptive}
_SHAPES: dict[str, Callable[..., Factor]] = {"fan_in": fan_in, "fan_out": fan_out, "blocks": blocks}
_TIMELINES: dict[str, Callable[..., Timeline]] = {"after": after, "until": until, "unfreeze_down": unfreeze_down}


def decode_value(name: str, data: object) -> object:
    """A hyperparameter's value from plain data: a number, text, bool, list, or the table of a schedule or factor."""
    with within(name):
        return _value(data)


def _value(data: object) -> object:
    if isinstance(data, Mapping):
        return _from_table(data)
    if isinstance(data, list | tuple):
        return tuple(_value(item) for item in data)
    if isinstance(data, str):
        return number_from_text(data)
    if data is None or isinstance(data, bool | int | float):
        return data
    raise PlanError(f"a value is a number, text, true or false, a list or a table, not {shown(data)}")


def _from_table(data: Mapping[str, Any]) -> object:
    if not data:
        raise PlanError("the table is empty: name a schedule or a factor in it")
    if set(data) <= {*FACTORS, *OF_DECAY, *OPTIONS_OF_SHAPE} and set(data) & set(FACTORS):
        _check_options(data)
        parts = [_factor(key, data) for key in data if key in FACTORS]
        return parts[0] if len(parts) == 1 else Product(tuple(p for part in parts for p in part.parts))
    if set(data) == {"exact"}:
        return exact(_value(data["exact"]))
    if is_table(data):
        return decode_schedule(data)
    strange = next((key for key in data if key not in (*FACTORS, "exact")), None)
    if strange is None:
        raise PlanError(
            f"a table names one schedule, or factors ({listed(FACTORS)}), or exact; not {listed(data)} together"
        )
    return decode_schedule(data)


def _factor(key: str, table: Mapping[str, Any]) -> Factor:
    data = table[key]
    if key in MEASURED:
        with within(key):
            return decoded(key, data)
    by = decode_schedule(data) if isinstance(data, Mapping) else number_from_text(data)
    if key == "scale":
        return scale(by)
    if key in _SHAPES:
        return _SHAPES[key](by, **{name: number_from_text(table[name]) for name in OPTIONS_OF_SHAPE if name in table})
    options = {name: table[name] for name in OF_DECAY if name in table}
    if "floor" in options:
        options["floor"] = number_from_text(options["floor"])
    return layer_decay(by, **options)


def _check_options(table: Mapping[str, Any]) -> None:
    """Raise `PlanError` for an option whose factor is not in the table, or for two factors that share one."""
    shapes = [key for key in table if key in OF_SHAPE]
    if len(shapes) > 1:
        raise PlanError(f"a table holds one of {listed(shapes)}: write a rule for each")
    for options, owner, there in (
        (OF_DECAY, "a layer_decay", "layer_decay" in table),
        (OPTIONS_OF_SHAPE, f"one of {listed(OF_SHAPE)}", bool(shapes)),
    ):
        strange = [name for name in table if name in options]
        if strange and not there:
            raise PlanError(f"{listed(strange)} belongs to {owner}, and the table has none")
    if "blocks" in shapes and "axis" in table:
        raise PlanError("axis belongs to a fan_in or a fan_out: blocks are counted, not measured")


def encode_value(name: str, value: object) -> object:
    """The plain data that `decode_value` reads back. `PlanError` for what only Python can say."""
    with within(name):
        return _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, Factor):
        return _plain_factor(value)
    if isinstance(value, Exact):
        return {"exact": _plain(value.value)}
    if isinstance(value, Schedule):
        return encode_schedule(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None:
        raise PlanError("None has no form in a plan file: leave the hyperparameter out")
    if isinstance(value, str) and number_from_text(value) != value:
        raise PlanError(f"the text {shown(value)} has no form in a plan file, which reads it as a number")
    return value


def _plain_factor(factor: Factor) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for part in factor.parts:
        key = _key_of(part)
        if key in data or (key in OF_SHAPE and set(data) & set(OF_SHAPE)):
            raise PlanError(f"a plan file holds one {key} per table: write {factor} as several rules")
        if isinstance(part, LayerDecay):
            data[key] = encode_schedule(part.decay) if isinstance(part.decay, Schedule) else part.decay
            data |= part.options()
        elif isinstance(part, MeasuredFactor):
            data[key] = encoded(part)
        elif isinstance(part, ShapeFactor):
            data |= {key: part.base, **part.options()}
        elif isinstance(part, Scale) and isinstance(part.by, Schedule):
            data[key] = encode_schedule(part.by)
        elif isinstance(part, Scale) and isinstance(part.by, int | float):
            data[key] = part.by
        else:
            raise PlanError("scale(function) is Python only: a plan file cannot hold it")
    return data


def _key_of(part: Factor) -> str:
    """The key of a single factor in a table."""
    if isinstance(part, ShapeFactor):
        return part.of
    if isinstance(part, MeasuredFactor):
        return part.kind
    return "layer_decay" if isinstance(part, LayerDecay) else "scale"


def decode_clip(data: object) -> Clip | Literal[False] | None:
    """`{ norm = 1.0, per = "module" }`, `{ value = … }`, `{ adaptive = … }`, or false to unset."""
    if data is None:
        return None
    if data is False:
        return False
    with within("clip"):
        if not isinstance(data, Mapping):
            raise PlanError(f"it is a table such as {{ norm = 1.0 }}, or false, not {shown(data)}")
        kinds = [key for key in data if key in _CLIPS]
        if len(kinds) != 1:
            raise PlanError(f"it names one of {listed(_CLIPS)}, not {listed(data) or 'nothing'}")
        options = {key: item for key, item in data.items() if key not in kinds}
        allowed = {"norm": ("per", "nonfinite"), "value": (), "adaptive": ("eps",)}[kinds[0]]
        for key in options:
            if key not in allowed:
                raise PlanError(unknown(f"option of clip {kinds[0]}", key, allowed))
        options = {key: number_from_text(item) if key == "eps" else item for key, item in options.items()}
        return _CLIPS[kinds[0]](number_from_text(data[kinds[0]]), **options)


def encode_clip(clip: Clip | Literal[False]) -> object:
    """The plain data that `decode_clip` reads back."""
    if clip is False:
        return False
    data: dict[str, Any] = {clip.kind: clip.bound}
    if clip.kind == "norm" and clip.per != "rule":
        data["per"] = clip.per
    if clip.nonfinite != "pass":
        data["nonfinite"] = clip.nonfinite
    if clip.kind == "adaptive" and clip.eps != clip_adaptive(clip.bound).eps:
        data["eps"] = clip.eps
    return data


def decode_trainable(data: object) -> Timeline | None:
    """true, false, `{ after = "2 epochs" }`, `{ until = … }` or `{ unfreeze_down = … }`."""
    if data is None:
        return None
    with within("trainable"):
        if not isinstance(data, Mapping):
            if not isinstance(data, bool):
                raise PlanError(f'it is true, false or a table such as {{ after = "2 epochs" }}, not {shown(data)}')
            return timeline(data)
        if len(data) != 1:
            raise PlanError(f"it names one of {listed(_TIMELINES)}, not {listed(data) or 'nothing'}")
        ((kind, moment),) = data.items()
        if kind not in _TIMELINES:
            raise PlanError(unknown("timeline", str(kind), _TIMELINES))
        return _TIMELINES[kind](moment)


def encode_trainable(when: Timeline) -> object:
    """The plain data that `decode_trainable` reads back."""
    if when.start is not None:
        return {"unfreeze_down" if when.downwards else "after": str(when.start)}
    return {"until": str(when.end)} if when.end is not None else not when.never
