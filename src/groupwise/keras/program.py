"""What a plan comes to for the variables of one model: everything that the compiled step needs, in a fixed order.

It is held by the optimizer as a plain object: Keras adopts variables, lists and optimizers that are assigned to an
optimizer's attributes as its own state, which would corrupt what is saved (and, on jax, what is donated).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from groupwise.errors import LengthError, OptimizerError, ResolutionError, listed
from groupwise.keras._keras import dtype_of
from groupwise.keras.algorithms import KerasAlgorithms
from groupwise.keras.clipping import Clipper
from groupwise.keras.engine import Engine, engine
from groupwise.keras.freezing import span
from groupwise.keras.hyperparameters import hyperparameter, scalar, sign_of
from groupwise.keras.measuring import measurements
from groupwise.keras.saved import Described
from groupwise.keras.schedule_table import Table
from groupwise.keras.tracing import held_in_variables
from groupwise.plan import Group, Resolution, Setting
from groupwise.plan.preview import missing_lengths
from groupwise.plan.rule import property_of
from groupwise.schedules import plateaus


class Lengths(NamedTuple):
    """How long the run is, in updates, as far as anyone said."""

    total_steps: int | None
    steps_per_epoch: int | None

    @staticmethod
    def checked(total_steps: int | None, steps_per_epoch: int | None) -> Lengths:
        """The lengths, or an `OptimizerError` for one that is not a positive whole number."""
        for name, size in (("total_steps", total_steps), ("steps_per_epoch", steps_per_epoch)):
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise OptimizerError(f"{name} must be a positive whole number, not {size!r}")
        return Lengths(total_steps, steps_per_epoch)


class Share(NamedTuple):
    """The part of one step that belongs to one group; its engine is None where the group is not trained."""

    engine: Engine | None
    indices: tuple[int, ...]


@final
@dataclass(frozen=True, eq=False)
class Program:
    """The engines; the variable of each scheduled hyperparameter, and their table; what a step tells of itself."""

    resolution: Resolution
    names: Mapping[int, str]
    owners: Mapping[int, Engine]
    engines: tuple[Engine, ...]
    clipper: Clipper
    scheduled: tuple[Any, ...]
    table: Table | None
    factor: Any
    measured: Any

    @property
    def state(self) -> list[Any]:
        """Every variable that is saved, in a fixed order: the numbers, the factor, the norms, and group by group."""
        numbers = [variable for own in self.engines for variable in own.hyperparameters.values()]
        return [*numbers, self.factor, self.measured, *(v for own in self.engines for v in own.state)]

    def write(self, step: Any, factor: Any) -> None:
        """Put the values of update `step` into the scheduled hyperparameters, and those times the factor into rates."""
        self.factor.assign(factor)
        if self.table is not None:
            for variable, value in zip(self.scheduled, self.table.at(step), strict=True):
                variable.assign(value)
        for own in self.engines:
            own.set_rate(factor)

    @property
    def follows_gradients(self) -> bool:
        """Whether a rate follows the norm of a gradient, which has to be that of the whole batch."""
        return any(own.measured is not None and own.measured.of_gradient for own in self.engines)

    def split(self, positions: Sequence[int]) -> Iterator[Share]:
        """A step's variables, given by their positions in the build, by group, in the groups' order."""
        for own in (*self.engines, None):
            indices = tuple(i for i, position in enumerate(positions) if self.owners.get(position) is own)
            if indices:
                yield Share(own, indices)


def check(resolution: Resolution, lengths: Lengths) -> None:
    """Raise where the lengths do not suffice, or a schedule cannot run in a compiled step."""
    for length in missing_lengths(resolution, *lengths):
        needs = " and ".join(sorted(length.needs))
        raise LengthError(
            f"{length.who}: {length.property} = {length.text} needs {needs}: GroupedOptimizer(plan, {needs}=…)"
        )
    for group, name, setting in _settings(resolution):
        who = resolution.declaring_rules(group, property_of(name))
        if any(plateaus(schedule) for schedule in setting.schedules):
            raise ResolutionError(
                f"{who}: {name} = {setting} follows a metric, which no compiled step sees: declare a number, and pass "
                "keras.callbacks.ReduceLROnPlateau to fit, whose learning rate is a factor on every group"
            )
        if setting.schedules and lengths.total_steps is None:
            raise LengthError(
                f"{who}: {name} = {setting} is a schedule, and a compiled step reads schedules from a table, which "
                "must have an end: GroupedOptimizer(plan, total_steps=…), updates in all, after which the last value "
                "holds"
            )


def program(
    resolution: Resolution,
    kept: Sequence[Described],
    variables: Sequence[Any],
    algorithms: KerasAlgorithms,
    lengths: Lengths,
    read: Mapping[str, Collection[str]],
) -> Program:
    """Build the engines of the groups that train.

    Args:
        kept: the descriptions behind `resolution`, with their positions in `variables`.
        variables: what the optimizer is built for.
        read: by group, the declared numbers that its step reads from variables.
    """
    position = {one.info.name: one.position for one in kept}
    names = {place: name for name, place in position.items() if place is not None}
    engines: list[Engine] = []
    owners: dict[int, Engine] = {}
    made = 0
    for index, group in enumerate(resolution.groups):
        own = [i for info in group.parameters if (i := position[info.name]) is not None]
        if not _trains(group, own):
            continue
        targets = [variables[i] for i in own]
        hypers = _variables_of(group, algorithms, made, [dtype_of(variable) for variable in targets])
        made += len(hypers)
        when = span(group.timeline, *lengths)
        engines.append(engine(group, index, targets, algorithms, when, hypers, read[group.name]))
        owners |= dict.fromkeys(own, engines[-1])
    moving, table = _scheduled(engines, lengths)
    factors = scalar(1.0, "factor"), measurements(len(engines))
    return Program(resolution, names, owners, tuple(engines), Clipper(resolution), moving, table, *factors)


def _scheduled(engines: Sequence[Engine], lengths: Lengths) -> tuple[tuple[Any, ...], Table | None]:
    """The variables of the numbers that are scheduled, and the table of their values."""
    pairs = [
        (variable, own.group.settings[name])
        for own in engines
        for name, variable in own.hyperparameters.items()
        if own.group.settings[name].schedules
    ]
    settings = [setting for _, setting in pairs]
    table = Table(settings, lengths.total_steps or 0, lengths.steps_per_epoch) if pairs else None
    return tuple(variable for variable, _ in pairs), table


def _variables_of(group: Group, algorithms: KerasAlgorithms, made: int, dtypes: Sequence[str]) -> dict[str, Any]:
    """A variable for each declared number of a group that the state has one for; `made` were made before."""
    names = held_in_variables(algorithms.class_of(str(group.algorithm)), group.settings)
    numbers = {name: group.settings[name] for name in names}
    return {
        name: hyperparameter(float(setting.peak), sign_of(setting), made + i, dtypes)  # type: ignore[arg-type]
        for i, (name, setting) in enumerate(numbers.items())
    }


def _trains(group: Group, own: Sequence[int]) -> bool:
    """Whether a group has anything to update. Raises where the plan trains what Keras does not differentiate."""
    if group.timeline is not None and group.timeline.never:
        return False
    missing = [info.name for info in group.parameters if not info.requires_grad]
    if group.timeline is not None and missing:
        raise ResolutionError(
            f"group {group.name!r}: the plan says that it is {group.freezing}, and Keras has frozen "
            f"{listed(missing, 3)} (layer.trainable=False): set layer.trainable=True before compile and fit"
        )
    return bool(own) and group.algorithm is not None


def _settings(resolution: Resolution) -> Iterator[tuple[Group, str, Setting]]:
    return ((group, name, setting) for group in resolution.groups for name, setting in group.settings.items())
