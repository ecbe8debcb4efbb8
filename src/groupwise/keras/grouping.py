"""From a plan to groups, once: bound to a model, or built from bare variables, or taken from a saved model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

from groupwise._warning import warn
from groupwise.errors import OptimizerError, ResolutionError, listed
from groupwise.keras._keras import path_of
from groupwise.keras.algorithms import KerasAlgorithms
from groupwise.keras.bounds import check_schedules, check_values
from groupwise.keras.measured_checks import check_measured
from groupwise.keras.outside_rates import OutsideRate
from groupwise.keras.program import Lengths, Program, check, program
from groupwise.keras.run_length import RunLength
from groupwise.keras.saved import Described, described, fitted, misfit, repositioned, resolution_of
from groupwise.keras.staleness import Staleness
from groupwise.keras.stepping import Update
from groupwise.keras.tracing import numbers_read
from groupwise.keras.walker import averaging_layers, paths_of, variables_of
from groupwise.plan import Plan, Resolution
from groupwise.select import ParameterInfo

_BIND = (
    "; without the model, rules are matched with the variables' paths alone: GroupedOptimizer(plan, …).bind(model) "
    "knows layers, classes and depth"
)


@final
class Grouping:
    """What an optimizer knows of its groups; a plain object, which Keras' tracking of attributes leaves alone."""

    def __init__(self, plan: Plan, lengths: Lengths, outside: OutsideRate) -> None:
        self.plan = plan
        self.lengths = lengths
        self.outside = outside
        self.kept: tuple[Described, ...] | None = None
        self.resolution: Resolution | None = None
        self.program: Program | None = None
        self.updates: dict[int, Update] = {}  # by thread, those that are under way, or being compiled
        self.staleness = Staleness()
        self.run_length = RunLength()
        self.measuring = False
        self.refrozen = False  # whether other variables train than did when the state was made that is to be loaded
        self.misfit = ""  # why the groups of a saved optimizer are not those of the model that it was built for
        self.unread: dict[str, Any] | None = None  # the state of a file that was read before the build
        self._restored = False
        self._read: Mapping[str, Collection[str]] | None = None

    @property
    def algorithms(self) -> KerasAlgorithms:
        """The algorithms that the plan may name; a plan from a saved model imports nothing."""
        return KerasAlgorithms(self.plan, trusted=not self._restored)

    @property
    def packages(self) -> list[str]:
        """The packages whose classes the plan names, Keras apart."""
        named = {
            rule.optimizer.partition(":")[0] for rule in self.plan.rules if rule.optimizer and ":" in rule.optimizer
        }
        return sorted({module.partition(".")[0] for module in named})

    def bind(self, model: Any) -> None:
        """Resolve the plan for a model."""
        if self.kept is not None:
            raise OptimizerError(
                "this optimizer has its groups already (they are made once, and come with a loaded model): "
                "make a new one for another model"
            )
        self._resolve(variables_of(model))
        models = list(model.values()) if isinstance(model, Mapping) else [model]
        self._number([variable for part in models for variable in part.trainable_variables])
        self._note_order([variable for part in models for variable in part.variables])
        self._tell_of_averages(models)

    def restore(self, kept: Sequence[Described] | None, trains_now: Sequence[bool], remarks: Sequence[str]) -> None:
        """Take the groups of a saved optimizer, if it had any, for a model that trains what it trained when saved."""
        self._restored = True
        if kept is not None:
            resolution = resolution_of(self.plan, kept, self.algorithms)
            self.resolution = replace(resolution, remarks=tuple(remarks))
            self.kept = repositioned(kept, trains_now)
            self.refrozen = self.kept != tuple(kept)

    def place(self, variables: Sequence[Any]) -> None:
        """Give each variable of the build its place in the groups. Raises where one is not known.

        Warns where the groups of a saved optimizer do not fit: the model's weights can be used all the same.
        """
        if self._restored and self.kept is not None:
            self.misfit = misfit(self.kept, variables)
            if self.misfit:
                warn(f"the weights are loaded, and {self.misfit}")
            else:
                self.kept = fitted(self.kept, variables)
            return
        if self.kept is None and not variables:
            return  # everything is frozen, and nobody bound a model: there is nothing to group
        if self.kept is None:
            self._resolve_paths(variables)
        known = {id(one.info.parameter) for one in self.kept or ()}
        strange = [path_of(variable) for variable in variables if id(variable) not in known]
        if strange:
            raise ResolutionError(
                f"the optimizer is to update {listed(strange, 5)}, which the model that it was bound to does not have "
                "(or did not have yet): bind the model that is compiled, once all its layers are built (and after "
                "enable_lora)"
            )
        self._number(variables)

    def after_fit(self, variables: Sequence[Any], updates: int) -> list[str]:
        """What is to be said after a fit of a model that trains `variables`, with so many updates in all."""
        told = [self.staleness.fitted(variables)]
        if self.program is not None and self.resolution is not None:
            told.append(self.run_length.fitted(self.resolution, self.lengths, updates))
        return [said for said in told if said]

    def start(self, variables: Sequence[Any]) -> None:
        """Make the groups' optimizers for `variables`, which have their places."""
        if self.resolution is None or self.misfit:
            return
        if self._read is None:  # the groups came with a saved model
            held = {one.info.name: one.info.parameter for one in self.kept or ()}
            self._read = numbers_read(self.resolution, self.algorithms, held)
        arguments = self.resolution, self.kept or (), variables, self.algorithms, self.lengths
        self.program = program(*arguments, self._read)

    def _number(self, variables: Sequence[Any]) -> None:
        """Note each variable's position among those that are, or will be, built."""
        positions = {id(variable): i for i, variable in enumerate(variables)}
        self.kept = tuple(replace(one, position=positions.get(id(one.info.parameter))) for one in self.kept or ())

    def _note_order(self, variables: Sequence[Any]) -> None:
        """Note each variable's place among all `variables` of the model."""
        order = {id(variable): i for i, variable in enumerate(variables)}
        self.kept = tuple(replace(one, order=order.get(id(one.info.parameter))) for one in self.kept or ())

    def _resolve_paths(self, variables: Sequence[Any]) -> None:
        try:
            self._resolve(paths_of(variables))
        except ResolutionError as error:
            raise ResolutionError(f"{error}{_BIND}") from error.__cause__

    def _resolve(self, infos: Sequence[ParameterInfo]) -> None:
        if self.plan.parts:
            raise ResolutionError(
                f"the plan takes {self.plan.parts[0].match} apart, which PyTorch's optimizers are led to do: those of "
                "Keras take whole variables. Leave parts out of a plan for Keras"
            )
        algorithms = self.algorithms
        resolution = self.plan.resolve(infos, algorithms)
        check(resolution, self.lengths)
        check_values(resolution, algorithms)
        check_measured(resolution, algorithms)
        held = {info.name: info.parameter for info in infos}
        self._read = numbers_read(resolution, algorithms, held)
        check_schedules(resolution, algorithms, self._read)
        self.resolution, self.kept = resolution, described(self.plan, infos)
        for caution in resolution.cautions:
            warn(caution)

    def _tell_of_averages(self, models: Sequence[Any]) -> None:
        """Note, and warn of, layers that go on averaging what they see although the plan freezes them."""
        if self.resolution is None:
            return
        frozen = {
            id(info.parameter)
            for group in self.resolution.groups
            if group.timeline is not None and group.timeline.never
            for info in group.parameters
        }
        averaging = [name for model in models for name in averaging_layers(model, frozen)]
        if averaging:
            remark = (
                f"frozen by the plan, and still averaging what they see: {listed(averaging, 3)}. To have a part "
                "stay as it is set layer.trainable = False before bind, which in Keras also has BatchNormalization use "
                "its averages instead of the batch"
            )
            self.resolution = replace(self.resolution, remarks=(remark,))
            warn(remark)
