"""A plan as one Keras optimizer.

Keras' trainers call three things of an optimizer, and all of them come down to `apply`, whose inner hooks are the same
on every backend: accumulate, clip, decay, update, average. Only clipping,
decay and update are overridden (`_keras.OneStep`), so accumulation, averages, loss scaling and the treatment of absent
gradients stay Keras' own and happen once, in the right order, around all groups. (Clipping the accumulated gradient by
a norm across groups is what a dispatcher over whole optimizers cannot do.)

`learning_rate` is a factor on every group's own rate, 1.0 at first (`rates` has the other reading). That is why
callbacks that set it work, also where Keras wraps this optimizer to scale losses.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, final

import keras

from groupwise._misuse import explained
from groupwise._warning import warn
from groupwise.errors import OptimizerError, StateError, listed, within
from groupwise.keras import state
from groupwise.keras._keras import (
    OneStep,
    built_for,
    eagerly,
    path_of,
    place_of,
    require_eager,
    require_hooks,
    track,
)
from groupwise.keras.elsewhere import in_the_plan
from groupwise.keras.grouping import Grouping
from groupwise.keras.hyperparameters import ByGroup
from groupwise.keras.measuring import STATISTICS
from groupwise.keras.not_meant import ARGUMENTS_ELSEWHERE, LAST_EPOCH, ONE_STEP, UNKNOWN, plan_of
from groupwise.keras.outside_rates import OutsideRate, Reading, number
from groupwise.keras.program import Lengths, Program
from groupwise.keras.saved import Described
from groupwise.keras.stepping import Update
from groupwise.plan import Plan, Resolution


@final
@keras.saving.register_keras_serializable("groupwise")
class GroupedOptimizer(OneStep):
    """The optimizer that a plan describes, for `model.compile` and `model.fit` on any backend of Keras 3.

        optimizer = GroupedOptimizer(plan, total_steps=10_000).bind(model)
        model.compile(optimizer, loss="mse")

    `bind(model)` matches the rules with the model's structure: layer names, classes, depth. Without it the variables'
    paths are all there is to match, when Keras builds the optimizer. Groups are made once: a saved model keeps them.

    Args:
        plan: the plan, or the path of a plan file. Its optimizers are those of `keras.optimizers`.
        total_steps: how many updates the run has; needed where anything is scheduled. The last value holds after it.
        steps_per_epoch: how many updates an epoch has; needed where a length is in epochs.
        learning_rate: a factor on every group's learning rate: a number, a Keras schedule, or a callable.
        learning_rate_as: "factor"; or "rate", for callbacks and schedules that give absolute rates: `learning_rate` is
            then the rate of the first rule that declares one (at its peak, which is the default), and every group keeps
            its proportion to that.
        use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps, name: as every
            Keras optimizer has them. Schedules count updates, not the micro-steps of an accumulation.

    Raises:
        PlanError: not a plan.
        OptimizerError: a length that is not a positive whole number, a rate or factor below zero, or an argument that
            the plan says in its own words (`clipnorm`, `clipvalue`, `global_clipnorm`, `weight_decay`, `last_epoch`).
    """

    @explained(OptimizerError, "GroupedOptimizer", ARGUMENTS_ELSEWHERE, "say total_steps=, and by name what comes then")
    def __init__(
        self,
        plan: Plan | str | os.PathLike[str],
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        *,
        learning_rate: Any = None,
        learning_rate_as: Reading = "factor",
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str = "grouped_optimizer",
        clipnorm: None = None,
        clipvalue: None = None,
        global_clipnorm: None = None,
        weight_decay: None = None,
        last_epoch: None = None,
    ) -> None:
        require_hooks(keras.optimizers.Optimizer)
        plan = plan_of(plan)
        if last_epoch is not None:
            raise OptimizerError(LAST_EPOCH)
        outside = OutsideRate(plan, learning_rate_as)
        super().__init__(
            learning_rate=outside.started(learning_rate),
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.weight_decay = weight_decay
        self._held = Grouping(plan, Lengths.checked(total_steps, steps_per_epoch), outside)

    weight_decay = in_the_plan("weight_decay", "Rule(…, weight_decay=…)")
    clipnorm = in_the_plan("clipnorm", "clip_norm(…, per=\"parameter\") as a rule's or the plan's clip")
    global_clipnorm = in_the_plan("global_clipnorm", "Plan(…, clip=clip_norm(…))")
    clipvalue = in_the_plan("clipvalue", "Plan(…, clip=clip_value(…))")

    @property
    def plan(self) -> Plan:
        """The plan that runs."""
        return self._held.plan

    @property
    def lengths(self) -> Lengths:
        """`total_steps` and `steps_per_epoch`, as they were given."""
        return self._held.lengths

    @property
    def resolution(self) -> Resolution:
        """What the plan means for the model: its groups. Raises `OptimizerError` before `bind` or the build."""
        if self._held.resolution is None:
            raise OptimizerError("the plan has met no model yet: call bind(model), or let compile and fit build it")
        return self._held.resolution

    @property
    def grouped(self) -> frozenset[int] | None:
        """The identities of the variables that it updates, or will once it is built; None before it knows any."""
        kept = self._held.kept
        held = [one.info.parameter for one in kept or () if one.position is not None]
        return None if kept is None else frozenset(map(id, held))

    @property
    def hyperparameters(self) -> ByGroup:
        """By group, the numbers that the plan declares, as the last step used them; what is not scheduled can be set.

        `optimizer.hyperparameters["head"]["weight_decay"] = 0.01` counts from the next step on, compiled or not. A
        learning rate here is the group's own, before the factor `optimizer.learning_rate`.
        """
        return ByGroup({engine.group.name: engine.values for engine in self._built().engines})

    @property
    def learning_rate(self) -> Any:
        """A factor on every group's rate, or with `learning_rate_as="rate"` the rate that the first rule declares.

        Set by callbacks and by hand. Raises `OptimizerError` for a number below zero; warns once of one that looks like
        the other reading.
        """
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._held.outside.assigned(value, int(number(self.iterations) or 0))
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    @property
    def rates(self) -> dict[str, float]:
        """By group, the learning rate that the last step used: declared × schedule × what came from outside.

        What a rate follows in the step besides (`trust_ratio`, `update_ratio`) is in `rate_factors`.
        """
        running = self._built()
        factor = float(keras.ops.convert_to_numpy(running.factor))
        own = {engine.group.name: engine.values for engine in running.engines}
        return {name: factor * values["learning_rate"] for name, values in own.items() if "learning_rate" in values}

    @property
    def rate_factors(self) -> dict[str, float]:
        """By group whose rate follows measurements, what the last step multiplied `rates` by, a mean over tensors."""
        own = {engine.group.name: engine.measured for engine in self._built().engines}
        found = {name: measured.factor for name, measured in own.items() if measured is not None}
        return {name: float(keras.ops.convert_to_numpy(factor)) for name, factor in found.items()}

    @property
    def measuring(self) -> bool:
        """Whether each step also measures norms; a step that is compiled already goes on as it was compiled.

        `Observer` switches it on for each batch of its own fit, and off again.
        """
        return self._held.measuring

    @measuring.setter
    def measuring(self, value: bool) -> None:
        self._held.measuring = bool(value)

    @property
    def measured(self) -> dict[str, dict[str, float]]:
        """By group, what the last measured step found: norms of gradient, weights and update, the clipping."""
        running = self._built()
        columns = keras.ops.convert_to_numpy(running.measured).T.tolist()
        named = ((engine.group.name, column) for engine, column in zip(running.engines, columns, strict=False))
        return {name: dict(zip(STATISTICS, own, strict=True)) for name, own in named if not own[0] < 0}

    @property
    def values(self) -> dict[str, float]:
        """The plan's named values at the present update."""
        step = int(keras.ops.convert_to_numpy(self.iterations))
        return {name: schedule.at(step, *self._held.lengths) for name, schedule in self.plan.values.items()}

    def bind(self, model: Any) -> GroupedOptimizer:
        """Match the plan's rules with the structure of `model`, and check the plan on it; returns itself.

        `model` is a built model, or a mapping of names to models whose names then prefix their variables'. The model is
        not changed. Raises `ResolutionError`, `PlanError` or `OptimizerError` where the plan does not fit it.
        """
        self._held.bind(model)
        return self

    def build(self, variables: Sequence[Any]) -> None:
        """Make the groups' optimizers and their state for `variables`; Keras calls it. See `bind` for the errors."""
        if self.built:
            return
        held, variables = self._held, list(variables)
        known = held.kept is not None  # else the model itself may be built in the trace that is under way
        held.place(variables)
        with eagerly(known), keras.name_scope(self.name, caller=self):
            super().build(variables)
            held.start(variables)
            track(self, state.by_name(held.program))
            if held.unread is not None:
                require_eager("the weights were loaded, with a state, before the optimizer was built")
                store, held.unread = held.unread, None
                self._read(store, reshaped=True)

    def _factor(self) -> Any:
        return self._held.outside.factor(self.learning_rate)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """One update; Keras calls it. Raises `OptimizerError` for variables that the build did not have."""
        strange = [v for v in trainable_variables or () if self.built and place_of(self, v) is None]
        if strange:
            raise OptimizerError(f"the optimizer is to update {listed((path_of(v) for v in strange), 3)}, {UNKNOWN}")
        self._held.staleness.stepped()
        super().apply(grads, trainable_variables)

    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        """As `apply`, on values; Keras calls it on jax."""
        known = built_for(self)
        if known is not None and len(known) != len(trainable_variables):
            raise OptimizerError(f"the optimizer is to update {len(trainable_variables)} variables, {UNKNOWN}")
        return super().stateless_apply(optimizer_variables, grads, trainable_variables)

    @property
    def variables(self) -> list[Any]:
        """All state, this optimizer's own and then group by group, always in the same order."""
        own: list[Any] = super().variables
        return own if self._held.program is None else own + self._held.program.state

    @contextlib.contextmanager
    def one_step(self, variables: Sequence[Any]) -> Iterator[None]:
        """The context of one update; Keras' hooks open it. A strategy of tensorflow has a thread for each device."""
        running, step = self._built(), self.iterations
        running.write(step, self._factor())
        positions = [place_of(self, variable) or 0 for variable in variables]
        thread = threading.get_ident()
        self._held.updates[thread] = Update(running, step, variables, positions, self._held.measuring)
        try:
            yield
        finally:
            del self._held.updates[thread]

    def clip_step(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """The gradients as the plan clips them. Raises `OptimizerError` outside of an update."""
        return self._under_way().clip(gradients)

    def decay_step(self) -> None:
        """Nothing: each group decays its own weights just before it updates them. Errors as of `clip_step`."""
        self._under_way()

    def apply_step(self, gradients: Sequence[Any]) -> None:
        """Decay and update, group by group. Raises `OptimizerError` outside of an update."""
        self._under_way().apply(gradients)

    def _under_way(self) -> Update:
        update = self._held.updates.get(threading.get_ident())
        if update is None:
            raise OptimizerError(ONE_STEP)
        return update

    def _built(self) -> Program:
        if self._held.misfit:
            raise StateError(self._held.misfit)
        if self._held.program is None:
            raise OptimizerError(
                "the optimizer is not built yet: fit builds it, or optimizer.build(model.trainable_variables)"
            )
        return self._held.program

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Put the averages into the model where `use_ema` is on, as copies; Keras calls it at the end of a fit.

        Warns where layers were frozen, unfrozen or added, and the fit ran a step that was compiled before; and once of
        updates past `total_steps` at a rate of zero.
        """
        super().finalize_variable_values(var_list)
        for said in self._held.after_fit(var_list, int(self.iterations)):
            warn(said)
        if self.use_ema:  # jax would donate the one buffer that variable and average share twice
            for variable in var_list:
                variable.assign(keras.ops.copy(keras.ops.convert_to_tensor(variable)))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Refused with an `OptimizerError`: a step is of all groups at once; `apply` makes it."""
        raise OptimizerError(ONE_STEP)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Refused with an `OptimizerError`: a rule says it, and says it in the saved model too."""
        raise OptimizerError('say it in the plan: Rule(role("norm") | role("bias"), weight_decay=0.0)')

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Take over all state from `weights`: the `variables` of an optimizer with the same groups, or their values.

        Raises `StateError` where they are not as many, or of other shapes; nothing has changed then.
        """
        running = self._built()
        state.assign(self.variables, list(weights), "set_weights")
        state.restore_fixed(running)

    def save_own_variables(self, store: Any) -> None:
        """Write all state by position, and what its groups are."""
        if self._held.unread is not None:
            for name, value in self._held.unread.items():
                store[name] = value
            return
        super().save_own_variables(store)
        store[state.MARK] = state.mark(self._held.program)

    def load_own_variables(self, store: Any) -> None:
        """Read what `save_own_variables` wrote; before the build the state is kept until then.

        Raises `StateError` where the groups are not the same.
        """
        if not store.keys():
            super().load_own_variables(store)  # which warns that the file has no optimizer
        elif self.built:
            self._read(store)
        else:
            self._held.unread = state.copied(store)

    def _read(self, store: Any, reshaped: bool = False) -> None:
        """Take over what a file holds; `reshaped` as of `state.readable`."""
        if self._held.misfit:
            return
        saved = state.readable(self._held.program, self.variables, store, self._held.refrozen, reshaped)
        state.assign(self.variables[:saved], [store[str(i)] for i in range(saved)], "the saved optimizer state")
        state.restore_fixed(self._held.program)

    def get_config(self) -> dict[str, Any]:
        """Everything to make this optimizer again, its groups included, as plain data."""
        base = super().get_config()
        shared = ("name", "learning_rate", "use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor")
        with within("the optimizer cannot be saved"):
            text = self.plan.dumps()
        return {
            **{name: base[name] for name in (*shared, "gradient_accumulation_steps")},
            "learning_rate_as": self._held.outside.reading,
            "plan": text,
            "packages": self._held.packages,
            "total_steps": self._held.lengths.total_steps,
            "steps_per_epoch": self._held.lengths.steps_per_epoch,
            "variables": None if self._held.kept is None else [one.to_dict() for one in self._held.kept],
            "remarks": [] if self._held.resolution is None else list(self._held.resolution.remarks),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> GroupedOptimizer:
        """The optimizer that `get_config` describes; it takes its groups from there."""
        config = dict(config)
        variables, packages, remarks = config.pop("variables"), config.pop("packages"), config.pop("remarks")
        rate = config.pop("learning_rate")
        config["plan"] = Plan.loads(config["plan"], allow=packages)
        optimizer: GroupedOptimizer = super().from_config(config, custom_objects)
        rate = keras.saving.deserialize_keras_object(rate, custom_objects) if isinstance(rate, dict) else rate
        keras.optimizers.Optimizer.learning_rate.fset(optimizer, rate)  # what it was is no news: no warning
        if variables is not None:
            kept = [Described.from_dict(one) for one in variables]
            optimizer._held.restore(kept, [one["trains_now"] for one in variables], remarks)
        else:
            optimizer._held.restore(None, (), ())
        return optimizer
