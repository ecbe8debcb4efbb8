"""A rule: a selector and some declarations.

Rules are values. What a declaration means for a parameter is the cascade's business; here each is only checked for
being possible at all, so that a typing mistake is reported at the line that makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from groupwise._misuse import explained
from groupwise._pickling import Public, Reduced
from groupwise._spelling import clipped, shown
from groupwise.errors import PlanError, nearest, within
from groupwise.plan.clip import Clip
from groupwise.plan.declarations import Exact, Factor, is_finite
from groupwise.plan.freezing import Timeline, timeline
from groupwise.schedules import Length, Schedule
from groupwise.select import Selector, selector
from groupwise.select.selectors import Match

LONGEST_NAME: Final = 200
"""Characters of the longest name: a label, a hyperparameter, an algorithm."""

RULE_FIELDS: Final = ("match", "label", "optimizer", "trainable", "clip", "optional", "extra", "hyperparameters")
"""The arguments of `Rule`: an algorithm's argument of such a name stands in the mapping `hyperparameters`."""

_OURS = (
    "params",
    "param_names",
    "name",
    "algorithm",
    "network",
    "frozen",
    "declared",
    "rate_factor",
)  # keys of every live group
_TAKEN = ("optimizer", "trainable", "clip", "group", "algorithm", "tensors", "parameters", "trains")


@dataclass(frozen=True, init=False)
class Rule:
    """Declarations for the parameters that `match` selects.

    Args:
        match: a selector, a glob over dotted names, or a list of them (any of which may match).
        label: how tables, groups and errors call the rule; by default the selector's text.
        optimizer: the algorithm: a name in `torch.optim`, `"package.module:Class"`, or a class.
        trainable: False, True, `after(…)`, `until(…)` or `unfreeze_down(…)`; without it `requires_grad` stays as it is.
        clip: `clip_norm(…)`, `clip_value(…)`, `clip_adaptive(…)`, or False to unset.
        optional: whether the rule may match nothing, be overridden everywhere, or count levels where there is but one.
        extra: keys that the algorithm reads from its group dicts and whose constructor does not take them, as GaLore
            does: `extra={"rank": 128}`. Values are as for hyperparameters. PyTorch only.
        **hyperparameters: arguments of the algorithm's constructor: numbers, text, bools, tuples, schedules, factors.
            One that is called like an argument above goes into a mapping: `hyperparameters={"clip": 0.5}`.

    Raises:
        PlanError: a declaration that no algorithm could mean, or none at all.
    """

    match: Selector
    label: str
    optimizer: str | None
    trainable: Timeline | None
    clip: Clip | Literal[False] | None
    optional: bool
    extra: Mapping[str, object]
    hyperparameters: Mapping[str, object]
    algorithm_class: type | None = field(compare=False, repr=False)

    @explained(PlanError, "Rule", {}, 'after what it matches, everything has its name: Rule("*", optimizer="AdamW")')
    def __init__(
        self,
        /,
        match: Match,
        *,
        label: str | None = None,
        optimizer: str | type | None = None,
        trainable: bool | Timeline | None = None,
        clip: Clip | Literal[False] | None = None,
        optional: bool = False,
        extra: Mapping[str, Any] | None = None,
        **hyperparameters: Any,
    ) -> None:
        chosen = selector(match)
        label = _label(chosen) if label is None else _text("label", label)
        with within(f"rule {shown(label)}"):
            own = _joined(hyperparameters)
            values = {
                "match": chosen,
                "label": label,
                "optimizer": None if optimizer is None else _spec(optimizer),
                "trainable": None if trainable is None else timeline(trainable),
                "clip": _clip(clip),
                "optional": _bool("optional", optional),
                "extra": MappingProxyType({k: declared(k, v) for k, v in _extra(extra, own).items()}),
                "hyperparameters": MappingProxyType({k: declared(k, v) for k, v in own.items()}),
                "algorithm_class": optimizer if isinstance(optimizer, type) else None,
            }
            for name, value in values.items():
                object.__setattr__(self, name, value)
            if not self.declarations:
                raise PlanError("it declares nothing: give it an optimizer, a hyperparameter, trainable= or clip=")

    @property
    def values(self) -> dict[str, object]:
        """What it declares for group dicts: the hyperparameters and the extra keys."""
        return {**self.hyperparameters, **self.extra}

    @property
    def declarations(self) -> dict[str, object]:
        """Everything the rule declares, by property, in a fixed order."""
        own = {"optimizer": self.optimizer, "trainable": self.trainable, "clip": self.clip}
        values = {name: value for name, value in own.items() if value is not None}
        return values | {property_of(name): value for name, value in self.values.items()}

    def __hash__(self) -> int:
        return hash((self.match, self.label, self.optimizer, frozenset(self.values)))

    def __reduce__(self) -> Reduced:
        words = {name: getattr(self, name) for name in RULE_FIELDS if name != "match"}
        words |= {"optimizer": self.algorithm_class or self.optimizer}
        words |= {"extra": dict(self.extra), "hyperparameters": dict(self.hyperparameters)}
        return Public("groupwise.plan:Rule", words), (self.match,)


def property_of(name: str) -> str:
    """What outcomes and tables call a hyperparameter: by its name, unless they call something else so."""
    return f"hyperparameters.{name}" if name.partition("[")[0] in _TAKEN else name


def declared(name: str, value: object) -> object:
    """`value` as a hyperparameter may hold it: lists become tuples; what is not plain is a `PlanError`."""
    if isinstance(value, list | tuple):
        return tuple(declared(name, item) for item in value)
    if isinstance(value, int | float) and not is_finite(value):
        raise PlanError(f"{name} must be finite, got {shown(value)}")
    if isinstance(value, Exact):
        return Exact(declared(name, value.value))
    if isinstance(value, Length):
        raise PlanError(
            f"{name} is a length ({value}); lengths belong inside schedules, as in cosine(1e-3, warmup={str(value)!r})"
        )
    if value is None or isinstance(value, bool | int | float | str | Schedule | Factor):
        return value
    meant = nearest(name, ("extra", "hyperparameters"), limit=1) if isinstance(value, Mapping) else []
    hint = f"; did you mean {meant[0]}=?" if meant else ""
    if callable(value):
        hint = "; over time it is one of groupwise.schedules: cosine(1e-3), or function(call) for any call of the step"
    raise PlanError(f"{name} must be a number, text, bool, tuple, schedule or factor, not {type(value).__name__}{hint}")


def title(rules: Sequence[Rule], i: int) -> str:
    """How errors name a rule: its place in the plan, counted from one, and its label."""
    return f"rule {i + 1} {shown(rules[i].label)}"


def _joined(named: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters given by keyword and those in the mapping `hyperparameters=`."""
    mapping = _mapping("hyperparameters", named.get("hyperparameters", {}))
    keywords = {name: value for name, value in named.items() if name != "hyperparameters"}
    for name in mapping:
        if name in keywords:
            raise PlanError(f"it declares {name} twice: as an argument and in hyperparameters")
    return keywords | dict(mapping)


def _extra(given: object, hyperparameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The extra keys of a rule, which are neither hyperparameters of it nor what every group holds anyway."""
    mapping = _mapping("extra", {} if given is None else given)
    for name in mapping:
        if name in _OURS:
            raise PlanError(f"extra cannot hold {name!r}, which every group has")
        if name in hyperparameters:
            raise PlanError(f"it declares {name} twice: as a hyperparameter and in extra")
    return mapping


def _mapping(what: str, given: object) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise PlanError(f"{what} is a mapping of names to values, not {shown(given)}")
    for name in given:
        if not isinstance(name, str) or not name.isidentifier() or len(name) > LONGEST_NAME:
            kind = "hyperparameter" if what == "hyperparameters" else "key of a group"
            raise PlanError(f"{shown(name)} is not the name of a {kind}: write it as one word")
    return given


def _label(match: Selector) -> str:
    text = str(match)
    return "base" if text == "*" else clipped(text.removesuffix(".*"), LONGEST_NAME)


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PlanError(f"{what} must be text that is not empty, got {shown(value)}")
    if len(value) > LONGEST_NAME:
        raise PlanError(f"{what} has at most {LONGEST_NAME} characters, not {len(value):,}: {shown(value)}")
    return value


def _bool(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise PlanError(f"{what} is True or False, not {shown(value)}")
    return value


def _spec(optimizer: object) -> str:
    """The name under which an algorithm is known in tables, groups and files."""
    if isinstance(optimizer, type):
        module = optimizer.__module__
        native = module.split(".")[:2] == ["torch", "optim"] or module.split(".")[0] == "keras"
        return optimizer.__name__ if native else f"{module}:{optimizer.__qualname__}"
    if not isinstance(optimizer, str):
        raise PlanError(f"optimizer must be a class or the name of one, not an instance of {type(optimizer).__name__}")
    module, colon, name = optimizer.rpartition(":")
    parts = [*module.split("."), name] if colon else [name]
    if len(optimizer) > LONGEST_NAME or not all(part.isidentifier() for part in parts):
        raise PlanError(
            f"optimizer {shown(optimizer)} is not a name: write AdamW for torch.optim's own, package.module:Class for "
            "others"
        )
    return optimizer


def _clip(clip: object) -> Clip | Literal[False] | None:
    if clip is None or isinstance(clip, Clip) or clip is False:
        return clip
    raise PlanError(f"clip must be clip_norm(…), clip_value(…), clip_adaptive(…) or False, not {shown(clip)}")
