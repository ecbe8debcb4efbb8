"""An algorithm as the cascade sees it: its name, its hyperparameters and their defaults.

The cascade is pure, so whoever knows the classes (torch's, Keras') supplies these. A *slot* is what one declaration
assigns: a hyperparameter, or one element of a tuple of them (`betas[0]`, which `beta1` names as well), so that
`betas=(0.9, 0.95)` in one rule and `beta2=0.98` in a later one mean what they say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from groupwise._spelling import shown
from groupwise.errors import PlanError, nearest, unknown
from groupwise.plan.declarations import Exact, Factor
from groupwise.schedules import Schedule

LEARNING_RATES: Final = ("lr", "learning_rate")
PERFORMANCE: Final = frozenset({"foreach", "fused", "capturable"})
"""Arguments that choose a kernel, not an update: nobody misses one that a change of algorithm drops."""

_RULE_FIELDS = ("match", "label", "optimizer", "trainable", "clip", "optional", "extra")
_OFF_AT_ZERO = frozenset({"weight_decay", "momentum", "dampening", "lr_decay", "nesterov"})
_MEANT = {
    "wd": "weight_decay=",
    "decay": "weight_decay=",
    "learning_rate": "lr=",
    "lr_scale": "lr=scale(…)",
    "lr_mult": "lr=scale(…)",
    "layer_decay": "lr=layer_decay(…)",
    "freeze": "trainable=False",
    "frozen": "trainable=False",
    "requires_grad": "trainable=",
    "max_norm": "clip=clip_norm(…)",
    "max_grad_norm": "clip=clip_norm(…)",
    "grad_clip": "clip=clip_norm(…)",
    "clip_norm": "clip=clip_norm(…)",
    "clipnorm": "clip=clip_norm(…)",
    "global_clipnorm": "clip=clip_norm(…), of the plan for a norm over everything",
    "clipvalue": "clip=clip_value(…)",
    "last_epoch": "nothing: an optimizer that is loaded goes on where it was",
    "schedule": "lr=cosine(…) or another schedule",
    "scheduler": "lr=cosine(…) or another schedule",
    "warmup": "lr=cosine(…, warmup=…)",
    "name": "label=",
}
_MOMENTUM = {"momentum": "beta1", "betas": "momentum", "beta1": "momentum"}
"""What an algorithm that has one of them not may call its momentum."""


class Required:
    """The default of an argument that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = Required()


class Undeclared:
    """The default of an extra key, which stands in a group only where a rule gives it a value."""

    def __repr__(self) -> str:
        return "undeclared"


UNDECLARED: Final = Undeclared()


@dataclass(frozen=True)
class Algorithm:
    """`defaults` by hyperparameter (`REQUIRED` where there is none); `aliases` from neutral names to slots;
    `takes_extra` says whether its groups are dicts, which may hold keys that its constructor does not take."""

    name: str
    defaults: Mapping[str, object]
    aliases: Mapping[str, str] = field(default_factory=dict)
    takes_extra: bool = False

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def learning_rate(self) -> str | None:
        """Its learning rate's name, if it has one."""
        return next((name for name in LEARNING_RATES if name in self.defaults), None)

    def slots(self, hyperparameter: str) -> list[str]:
        """The slots of one hyperparameter: itself, or one per element where the default is a tuple."""
        default = self.defaults[hyperparameter]
        if isinstance(default, tuple | list):
            return [f"{hyperparameter}[{i}]" for i in range(len(default))]
        return [hyperparameter]

    def slots_of(self, name: str) -> list[str]:
        """The slots that a declaration under `name` assigns; `name` itself where this algorithm has none."""
        alias = self._alias(name)
        if alias is not None:
            return [alias]
        return self.slots(name) if name in self.defaults else [name]

    def default(self, slot: str) -> object:
        """The class default of a slot."""
        name, _, index = slot.partition("[")
        value = self.defaults[name]
        return value[int(index[:-1])] if index and isinstance(value, tuple | list) else value

    def assignments(self, name: str, value: object) -> Iterator[tuple[str, object]]:
        """The slots that the declaration `name=value` assigns, each with its value.

        Raises `PlanError` for a name or a type of value that the constructor does not have.
        """
        slot = self._alias(name)
        if slot is not None:
            yield slot, _typed(slot, value, self.default(slot))
            return
        if name not in self.defaults:
            raise PlanError(self._unknown(name))
        slots = self.slots(name)
        if slots == [name]:
            yield name, _typed(name, value, self.defaults[name])
            return
        for slot, element in zip(slots, _elements(name, value, len(slots)), strict=True):
            yield slot, _typed(slot, element, self.default(slot))

    def with_extra(self, keys: Iterable[str]) -> Algorithm:
        """The same with these keys of its group dicts besides."""
        own = {key: UNDECLARED for key in keys if not self.knows(key)}
        return replace(self, defaults={**self.defaults, **own}) if own else self

    def check_extra(self, key: str) -> None:
        """Raise `PlanError` for a key that is no extra one: its constructor takes it, or it has no group dicts."""
        if not self.takes_extra:
            raise PlanError(f"{self.name} has no group dicts that could hold {key!r}: extra= is for PyTorch")
        if self.knows(key):
            raise PlanError(f"{key!r} is a hyperparameter of {self.name}: say {key}=, not extra=")

    def knows(self, name: str) -> bool:
        """Whether `name` is one of its hyperparameters or an alias of one."""
        return name in self.defaults or self._alias(name) is not None

    def satisfied_by(self, name: str, value: object, others: Mapping[str, Algorithm]) -> bool:
        """Whether `name=value` says "off" about something this algorithm does not do anyway."""
        plain = value.value if isinstance(value, Exact) else value
        zero = isinstance(plain, int | float) and plain == 0
        return (
            zero
            and not self.knows(name)
            and (name in _OFF_AT_ZERO or any(other.knows(name) for other in others.values()))
        )

    def _alias(self, name: str) -> str | None:
        if name in self.defaults:
            return None
        if name in self.aliases:
            return self.aliases[name]
        betas = self.slots("betas") if "betas" in self.defaults else []
        return {f"beta{i + 1}": slot for i, slot in enumerate(betas)}.get(name)

    def _unknown(self, name: str) -> str:
        meant = _MEANT.get(name)
        if meant is not None:
            return f"{self.name} has no hyperparameter {name!r}: say {meant}"
        if self.knows(momentum := _MOMENTUM.get(name, "")):
            return f"{self.name} has no hyperparameter {name!r}: its momentum is {momentum}="
        field = nearest(name, [*self.defaults, *_RULE_FIELDS], limit=1)
        if field and field[0] in _RULE_FIELDS:
            return f"{self.name} has no hyperparameter {name!r}: did you mean {field[0]}=, which belongs to the rule?"
        told = unknown(f"hyperparameter of {self.name}", name, self.defaults)
        if not self.takes_extra or nearest(name, self.defaults, limit=1):
            return told
        return f"{told}; what it reads from its group dicts alone is said as extra={{{name!r}: …}}"


def _elements(name: str, value: object, n: int) -> tuple[object, ...]:
    inner = value.value if isinstance(value, Exact) else value
    if isinstance(inner, Factor):
        raise PlanError(f"{name} is a tuple of {n}: a factor cannot multiply it; scale an element, as in beta1=…")
    if not isinstance(inner, tuple) or len(inner) != n:
        alone = "; the first alone is beta1=" if name == "betas" else ""
        raise PlanError(f"{name} takes a tuple of {n} values, got {shown(inner)}{alone}")
    return tuple(Exact(x) for x in inner) if isinstance(value, Exact) else inner


def _typed(slot: str, value: object, default: object) -> object:
    """`value`, or a `PlanError` if the kind of `default` says that it cannot be meant."""
    plain = value.value if isinstance(value, Exact) else value
    if isinstance(plain, tuple) and any(isinstance(item, Schedule | Factor | Exact) for item in plain):
        raise PlanError(f"{slot} holds {shown(plain)}: only where the default is a tuple may an element be scheduled")
    wants_number = isinstance(default, int | float) and not isinstance(default, bool)
    if isinstance(plain, Factor) and (isinstance(default, bool | str)):
        raise PlanError(f"{slot} is {default!r} by default, not a number: a factor cannot multiply it")
    if isinstance(default, bool) and not isinstance(plain, bool):
        raise PlanError(f"{slot} must be true or false, got {shown(plain)}")
    if isinstance(default, str) and not isinstance(plain, str):
        raise PlanError(f"{slot} must be text (it is {default!r} by default), got {shown(plain)}")
    if wants_number and (plain is None or isinstance(plain, bool | str | tuple)):
        raise PlanError(f"{slot} must be a number or a schedule, got {shown(plain)}")
    if "[" in slot and type(plain) is int and isinstance(default, float):  # torch refuses betas of two types: [0, 0.9]
        return Exact(float(plain)) if isinstance(value, Exact) else float(plain)
    return value


def same(slot: str, value: object, default: object) -> bool:
    """Whether a plain `value` of a slot is its `default`; where zero is off, None says so too."""
    if type(value) not in (bool, int, float, str, type(None)):
        return False
    off = slot in _OFF_AT_ZERO and all(x is None or x == 0 for x in (value, default))
    return off or value == default


def is_number(x: object) -> bool:
    """Whether `x` is something a factor can multiply."""
    return isinstance(x, Schedule) or (isinstance(x, int | float) and not isinstance(x, bool))
