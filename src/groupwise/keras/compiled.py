"""A compiled Keras model as an audit sees it: its variables, and what its optimizer does with each.

Any optimizer of Keras can be described, not only that of a plan: `LossScaleOptimizer` shows what it wraps,
`MultiOptimizer` the optimizer of each variable. Nothing is built, traced or changed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras

from groupwise.errors import AuditError
from groupwise.keras._keras import built_for, has_schedule, is_decayed, map_of, schedule_of
from groupwise.keras.grouped_optimizer import GroupedOptimizer
from groupwise.keras.outside_rates import number
from groupwise.keras.walker import averaging_layers, variables_of
from groupwise.plan import Group
from groupwise.select import ParameterInfo


@final
@dataclass(frozen=True)
class Treatment:
    """What happens to some variables.

    Args:
        name: of the group, of the pattern, or of the optimizer.
        algorithm: the class of the optimizer.
        rate: the learning rate in force; None where it is not known.
        still: whether the rate is zero for good, and always was.
        decay: the weight decay in force, 0 for none.
        variables: by identity.
        frozen: whether the plan never trains them.
        when: when they train, where a plan says that they do at some updates only.
        ended: whether a schedule of Keras has come to zero.
    """

    name: str
    algorithm: str
    rate: float | None
    still: bool
    decay: float
    variables: frozenset[int]
    frozen: bool = False
    when: str = ""
    ended: bool = False


@final
@dataclass(frozen=True, eq=False)
class Compiled:
    """A model and its optimizer.

    Args:
        owned: the identities of the variables that the optimizer was made for; None before it knows any.
        treatments: of the groups, in the optimizer's order.
    """

    model: Any
    optimizer: Any
    variables: tuple[ParameterInfo, ...]
    owned: frozenset[int] | None
    treatments: tuple[Treatment, ...]

    @functools.cached_property
    def never(self) -> frozenset[int]:
        """The identities of variables that a plan never trains."""
        return frozenset(key for each in self.treatments if each.frozen for key in each.variables)

    @functools.cached_property
    def trained(self) -> tuple[ParameterInfo, ...]:
        """The variables that the next compiled step trains."""
        return tuple(
            info for info in self.variables if self.differentiated(info) and id(info.parameter) not in self.never
        )

    @staticmethod
    def differentiated(info: ParameterInfo) -> bool:
        """Whether Keras itself has the variable trained at present."""
        return bool(info.parameter.trainable)

    @property
    def averaging(self) -> list[str]:
        """Layers that average what they see although all their own variables are frozen."""
        frozen = {id(i.parameter) for i in self.variables if not self.differentiated(i)} | self.never
        return averaging_layers(self.model, frozen)

    def of(self, treatment: Treatment) -> list[ParameterInfo]:
        """The variables of a treatment that train."""
        return [info for info in self.trained if id(info.parameter) in treatment.variables]


def compiled(model: Any) -> Compiled:
    """Describe a compiled model. Raises `AuditError` for what is no model, not built, or not compiled."""
    if not isinstance(model, keras.Model):
        raise AuditError(f"audit takes a compiled keras model, not a {type(model).__name__}")
    if not model.built:
        raise AuditError(f"model {model.name!r} is not built, so it has no variables yet: call it on one batch first")
    outer = getattr(model, "optimizer", None)
    if outer is None:
        raise AuditError(f"model {model.name!r} is not compiled: model.compile(optimizer, loss) comes before an audit")
    optimizer = getattr(outer, "inner_optimizer", outer)
    variables = variables_of(model)
    if isinstance(optimizer, GroupedOptimizer):
        return Compiled(model, optimizer, variables, optimizer.grouped, tuple(_of_plan(optimizer)))
    owned = built_for(optimizer)
    treatments = tuple(_of_keras(optimizer, [info.parameter for info in variables if info.parameter.trainable]))
    return Compiled(model, optimizer, variables, None if owned is None else frozenset(map(id, owned)), treatments)


def _of_plan(optimizer: GroupedOptimizer) -> Iterator[Treatment]:
    if optimizer.grouped is None:
        return
    rates, assigned = (optimizer.rates, optimizer.hyperparameters) if optimizer.built else ({}, {})
    numbers: dict[str, dict[str, float]] = {name: dict(values) for name, values in assigned.items()}
    for group in optimizer.resolution.groups:
        held = frozenset(id(info.parameter) for info in group.parameters)
        rate = rates.get(group.name, _peak(group, "learning_rate"))
        decay = numbers.get(group.name, {}).get("weight_decay", _peak(group, "weight_decay")) or 0.0
        never = group.algorithm is None or (group.timeline is not None and group.timeline.never)
        when = group.freezing if group.timeline is not None and group.timeline.moves else ""
        still = _is_still(optimizer, group)
        yield Treatment(group.name, group.algorithm or "nothing", rate, still, decay, held, never, when)


def _peak(group: Group, name: str) -> float | None:
    value = group.settings[name].peak if name in group.settings else None
    return float(value) if isinstance(value, int | float) else None


def _is_still(optimizer: GroupedOptimizer, group: Group) -> bool:
    rate = group.settings.get("learning_rate")
    never = rate is not None and all(value == 0 for value in rate.key_values)
    return never or _constant(optimizer) == 0


def _of_keras(optimizer: Any, variables: Sequence[Any]) -> Iterator[Treatment]:
    patterns = map_of(optimizer)
    if patterns is None:
        yield from _parts(optimizer.name, optimizer, variables)
        return
    names = {id(part): name for name, part in reversed(list(patterns.items()))}
    owners = [patterns(variable) for variable in variables]
    for part in {id(part): part for part in owners}.values():
        held = [variable for variable, owner in zip(variables, owners, strict=True) if owner is part]
        yield from _parts(names.get(id(part), "default"), part, held)


def _parts(name: str, optimizer: Any, variables: Sequence[Any]) -> Iterator[Treatment]:
    """What one optimizer of Keras does: to those that it decays, and to those that it was told to exclude."""
    decay = float(getattr(optimizer, "weight_decay", None) or 0.0)
    rate, still, ended = _rate(optimizer), _constant(optimizer) == 0, _has_ended(optimizer)
    decayed = {id(variable) for variable in variables if decay and is_decayed(optimizer, variable)}
    others = {id(variable) for variable in variables} - decayed
    kind = type(optimizer).__name__
    if decayed:
        yield Treatment(name, kind, rate, still, decay, frozenset(decayed), ended=ended)
    if others or not decayed:
        yield Treatment(name, kind, rate, still, 0.0, frozenset(others), ended=ended)


def _rate(optimizer: Any) -> float | None:
    try:
        return number(optimizer.learning_rate)
    except AttributeError:  # of a composite
        return None


def _has_ended(optimizer: Any) -> bool:
    """Whether an optimizer has a schedule of Keras that has come to zero, and stays there as far as one looks."""
    schedule, done = schedule_of(optimizer), int(number(optimizer.iterations) or 0)
    if not done or not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return False
    return all(number(schedule(done * times + ahead)) == 0 for times in (1, 2, 10) for ahead in (0, 1, 2))


def _constant(optimizer: Any) -> float | None:
    """The learning rate, where nothing but a callback changes it."""
    return None if has_schedule(optimizer) else _rate(optimizer)
