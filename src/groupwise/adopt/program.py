"""What a program does with each parameter, read from its optimizers and schedulers.

A group dict holds the arguments that its class was built with, what the class adds by itself, what schedulers note down
there, and whatever else the program put in. They are told apart by the constructor's signature and by the optimizer's
`defaults`; what can be no part of a plan becomes a remark.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import torch

from groupwise._spelling import counted, shown
from groupwise._torch import has_step_hooks
from groupwise.adopt.curves import Unit, UnknownSchedule, momentum, moves_in_epochs, product, turning_points
from groupwise.adopt.rehearsing import Rehearsal
from groupwise.audit.describing import bound, groups_of, inmost, same
from groupwise.errors import OptimizerError, ResolutionError, listed
from groupwise.optim.algorithms import TorchAlgorithms, hyperparameters_of
from groupwise.plan import REQUIRED, Plan, Rule
from groupwise.plan.algorithm import LEARNING_RATES, PERFORMANCE
from groupwise.schedules import Schedule
from groupwise.select import ParameterInfo

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = "Scalar | Schedule | tuple[Scalar | Schedule, ...]"

Key: TypeAlias = tuple[str, str]
"""Where a value stands in a rule, "values" or "extra", and its name."""

_UPDATES: Final = (
    'scheduler.step() is taken to follow every update; where it follows an epoch, say schedulers_step="epoch", on the '
    "command line --schedulers-step epoch"
)
_NAMES: Final = ("name", "group_name")
_OF_SCHEDULERS: Final = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")
_NOTHING: Final = object()


@dataclass(frozen=True)
class Base:
    """A scheduled value that is in proportion to its base: the schedule of base 1, the base, and any other base's."""

    unit: Schedule
    rate: float
    make: Callable[[float], Schedule] = field(compare=False)


@dataclass(frozen=True)
class Target:
    """What a program does with a parameter.

    Args:
        algorithm: the optimizer's class.
        values: its learning rate and what else differs from the class's defaults.
        extra: keys of its group that the constructor does not take.
        bases: what scheduled values are in proportion to, where they are.
        name: what the program calls its group; empty where it does not.
    """

    algorithm: type[torch.optim.Optimizer]
    values: Mapping[str, Value]
    extra: Mapping[str, Value]
    bases: Mapping[str, Base] = field(default_factory=dict)
    name: str = ""

    @property
    def key(self) -> object:
        """Equal for parameters that are optimised alike."""
        return self.algorithm, tuple(sorted(self.values.items())), tuple(sorted(self.extra.items()))


def held(target: Target) -> dict[Key, object]:
    """All that its group holds, by kind and name."""
    values: dict[Key, object] = {("values", name): value for name, value in target.values.items()}
    return values | {("extra", name): value for name, value in target.extra.items()}


@dataclass
class Program:
    """The targets by parameter (None: no optimizer has it), what cannot be carried over, and what is worth knowing."""

    infos: tuple[ParameterInfo, ...]
    targets: list[Target | None]
    summary: str = ""
    lost: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def read(
    infos: tuple[ParameterInfo, ...], optimizers: Mapping[str, Any], schedulers: Mapping[str, Any], unit: Unit
) -> Program:
    """Read every group of every optimizer.

    Raises:
        OptimizerError: a class that cannot be part of a plan.
        ResolutionError: a tensor that the model does not have, or that two groups have.
    """
    program = Program(infos, [None] * len(infos))
    index = {id(info.parameter): i for i, info in enumerate(infos)}
    kinds, groups = [], 0
    for name, given in optimizers.items():
        optimizer = _checked(name, given, program)
        driving = [s for s in schedulers.values() if same(bound(s), groups_of(optimizer))]
        _remark(name, optimizer, driving, program, unit)
        rehearsal = Rehearsal(driving, optimizer.param_groups)
        for position, group in enumerate(optimizer.param_groups):
            target = _Reading(
                name, optimizer, position, optimizer is not given, driving, rehearsal, unit, program
            ).target()
            for tensor in group["params"]:
                i = _place(f"{name}, group {position}", tensor, index)
                if program.targets[i] is not None:
                    raise ResolutionError(f"{infos[i].name!r} is in two groups; a plan puts each parameter into one")
                program.targets[i] = target
        kinds.append(type(optimizer).__name__)
        groups += len(optimizer.param_groups)
    for name, scheduler in schedulers.items():
        if not any(same(bound(scheduler), groups_of(optimizer)) for optimizer in optimizers.values()):
            program.lost.append(f"{name} ({type(scheduler).__name__}) drives none of the optimizers that were given")
    program.summary = f"{' and '.join(kinds)}, {counted(groups, 'group')}"
    return program


def _checked(name: str, given: Any, program: Program) -> torch.optim.Optimizer:
    """The optimizer that steps, inside wrappers, with its class found fit for a plan."""
    optimizer = inmost(given)
    if optimizer is None:
        raise OptimizerError(
            f"{name}: {type(given).__name__} is no torch.optim.Optimizer, so no plan can name its class"
        )
    if optimizer is not given:
        program.lost.append(
            f"{type(given).__name__} goes around {type(optimizer).__name__}: put it around the GroupedOptimizer, "
            "if it takes one"
        )
    rule = Rule("*", optimizer=type(optimizer))
    TorchAlgorithms(Plan([rule])).class_of(str(rule.optimizer))
    return optimizer


def _place(where: str, tensor: torch.Tensor, index: Mapping[int, int]) -> int:
    if id(tensor) not in index:
        raise ResolutionError(
            f"{where} has a tensor of shape {tuple(tensor.shape)} that is no parameter of the model; give a mapping "
            'that has it as well, as {"net": model, "temperature": tensor}'
        )
    return index[id(tensor)]


def _remark(name: str, optimizer: torch.optim.Optimizer, driving: Sequence[Any], program: Program, unit: Unit) -> None:
    """Say what an optimizer and its schedulers hold that is no part of any plan: progress."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    stepped = [param for param in params if _has_stepped(optimizer.state.get(param, {}))]
    if stepped:
        keys = sorted({str(key) for param in stepped for key in optimizer.state[param]})
        by_name = all("param_names" in group for group in optimizer.param_groups)
        whole = len(optimizer.param_groups) == 1 and len(params) == len(program.infos)
        way_out = (
            "is in its state_dict, which GroupedOptimizer.load_state_dict reads"
            if by_name or whole
            else "starts afresh: its state_dict has positions, and GroupedOptimizer.load_state_dict looks for names, "
            "which are there if the program builds its optimizer from model.named_parameters()"
        )
        program.lost.append(
            f"{name} has taken steps: its state ({listed(keys, 4)}) of {counted(len(stepped), 'parameter')} {way_out}"
        )
    if has_step_hooks(optimizer):
        program.lost.append(f"{name} has hooks of its step: register them on the GroupedOptimizer")
    for scheduler in driving:
        done = getattr(scheduler, "last_epoch", 0)
        if done > 0:
            program.lost.append(f"{type(scheduler).__name__} stands at step {done}; PlanScheduler begins at 0")
        if unit == "epoch" and moves_in_epochs(scheduler):
            program.told.append(
                f"{type(scheduler).__name__} holds still within an epoch, its schedule in the plan moves at each update"
            )
        for turning in turning_points(scheduler):
            program.told.append(
                f"past its T_max of {turning} CosineAnnealingLR rises again, and the schedule in the plan holds its end"
            )


def _has_stepped(own: Mapping[str, Any]) -> bool:
    """Whether a parameter's state is of a step; Adagrad and others make theirs when they are built."""
    return float(own.get("step", 1)) > 0 if own else False


@dataclass
class _Reading:
    """The reading of one group."""

    where: str
    optimizer: torch.optim.Optimizer
    position: int
    wrapped: bool
    driving: Sequence[Any]
    rehearsal: Rehearsal
    unit: Unit
    program: Program

    def target(self) -> Target:
        """What the group's parameters have in common."""
        cls, group = type(self.optimizer), self.optimizer.param_groups[self.position]
        arguments = hyperparameters_of(cls)
        values: dict[str, Value] = {}
        for key, default in arguments.items():
            given = group[key] if key in group else self._beside(key)
            if key not in LEARNING_RATES and _alike(given, default):
                continue
            value = self._plain(key, given, default)
            if value is not _NOTHING:
                values[key] = value  # type: ignore[assignment]  # _NOTHING is not among the values
        extra = dict(self._extra(group, arguments))
        bases = self._schedule(group, values)
        name = next((str(group[key]) for key in _NAMES if isinstance(group.get(key), str) and group[key].strip()), "")
        return Target(cls, values, extra, bases, name[:200])

    def _beside(self, key: str) -> object:
        """An argument that the class keeps on itself and not in its groups."""
        held = vars(self.optimizer)
        found = held.get(key, held.get(f"_{key}", _NOTHING))
        if found is _NOTHING and key not in PERFORMANCE:
            self._lose(f"{type(self.optimizer).__name__} does not show its argument {key!r}: its default is assumed")
        return found

    def _extra(self, group: Mapping[str, Any], arguments: Mapping[str, object]) -> Iterator[tuple[str, Value]]:
        for key, given in group.items():
            ours = key in ("params", "param_names", *_NAMES, *_OF_SCHEDULERS, *arguments)
            if ours or _alike(given, self.optimizer.defaults.get(key, _NOTHING)):
                continue
            if key in self.optimizer.defaults and self.optimizer.state:
                continue  # what the steps taken have made of it
            if self.wrapped:
                self._tell(f"{key} is left to what goes around the optimizer")
                continue
            if type(self.optimizer).__module__.startswith("torch.optim"):
                self._tell(
                    f"{type(self.optimizer).__name__} reads no {key!r}: it stands in the groups for others to read"
                )
            value = self._plain(key, given, _NOTHING)
            if value is not _NOTHING:
                yield key, value  # type: ignore[misc]  # as above

    def _plain(self, key: str, given: object, default: object) -> object:
        """A value as a plan holds it; `_NOTHING` for what is not there, or cannot be held."""
        if given is _NOTHING or (given is None and default in (None, _NOTHING)):
            return _NOTHING
        if isinstance(given, torch.Tensor) and given.numel() == 1:
            self._tell(f"{key} is a tensor in the program and a number in the plan")
            return given.item()
        if _is_numpy(given):
            return given.item()  # type: ignore[attr-defined]  # a number of numpy
        if isinstance(given, list | tuple):
            parts = tuple(self._plain(key, part, _NOTHING) for part in given)
            return _NOTHING if _NOTHING in parts else parts
        if isinstance(given, str | bool) or (isinstance(given, int | float) and math.isfinite(given)):
            return given
        self._lose(f"{key} = {shown(given)} has no form in a plan")
        return _NOTHING

    def _schedule(self, group: Mapping[str, Any], values: dict[str, Value]) -> dict[str, Base]:
        """Put schedules where schedulers drive the group; what is in proportion to its base, with the base."""
        rate = next((key for key in LEARNING_RATES if key in values), None)
        if rate is None or not self.driving:
            if "initial_lr" in group and group["initial_lr"] != group.get("lr"):
                self._lose("a scheduler has written its learning rate and was not given: the rate is what stands now")
            return {}
        base = self._base(group, float(values[rate]))  # type: ignore[arg-type]  # it is a number
        make = functools.partial(product, list(self.driving), self.position, unit=self.unit)
        try:
            schedule, own = make(base), make(1.0)
            found = (momentum(each, group, self.position, self.unit) for each in self.driving)
            cycled = dict(filter(None, found))
            self.rehearsal.check(self.position, {"lr": schedule, **cycled})
        except UnknownSchedule as error:
            kinds = listed(dict.fromkeys(type(each).__name__ for each in self.driving))
            self._lose(f"{kinds}: {error}. Keep it, over the GroupedOptimizer: the rate here is what it starts from")
            values[rate] = base
            return {}
        if self.unit == "update" and _UPDATES not in self.program.told:
            self.program.told.append(_UPDATES)
        values[rate] = schedule
        for key, curve in cycled.items():
            held = values.get("betas", group.get("betas"))
            values["betas" if key == "beta1" else key] = curve if key != "beta1" else (curve, *held[1:])  # type: ignore[index]  # it has betas
        return {rate: Base(own, base, make)} if _in_proportion(schedule, own, base) else {}

    def _base(self, group: Mapping[str, Any], now: float) -> float:
        rates = getattr(self.driving[0], "base_lrs", None)
        base = rates[self.position] if rates and self.position < len(rates) else group.get("initial_lr", now)
        return float(base)

    def _lose(self, text: str) -> None:
        self._note(self.program.lost, text)

    def _tell(self, text: str) -> None:
        self._note(self.program.told, text)

    def _note(self, notes: list[str], text: str) -> None:
        said = f"{self.where}: {text}"
        if said not in notes:
            notes.append(said)


def _is_numpy(given: object) -> bool:
    """Whether a value is a number of numpy, which is not imported for it."""
    return type(given).__module__ == "numpy" and callable(getattr(given, "item", None))


def _alike(value: object, default: object) -> bool:
    if default is REQUIRED or default is _NOTHING:
        return False
    if isinstance(value, torch.Tensor):
        return False
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return tuple(value) == tuple(default)
    comparable = type(value) is type(default) or (_is_number(value) and _is_number(default))
    return comparable and bool(value == default)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_proportion(schedule: Schedule, own: Schedule, base: float) -> bool:
    """Whether a schedule is `base` times another, as far as its key values show."""
    pairs = zip(schedule.key_values, own.key_values, strict=True)
    return all(abs(value - base * unit) <= 1e-12 * abs(value) for value, unit in pairs)
