"""Every private name of Keras that this package relies upon, in one place.

| name | for | when it changes |
|---|---|---|
| the `HOOKS` of the optimizer's base class (`OneStep`) | one step around all groups | `require_hooks` refuses it |
| `_apply_weight_decay`, `_backend_update_step` | a group's decay and update | both as Keras documents them |
| `_iterations` | a group's own count of updates | `iterations`, the same without accumulation |
| `_get_variable_index`, `_trainable_variables` of an optimizer | the place of a variable in the build | by identity |
| `_track_trackable` (of tensorflow) | `tf.train.Checkpoint` | it holds no state of groups |
| `_flatten_layers` | the order in which layers were registered | the order of the attributes |
| `_trainable_variables` of a layer | its variables, frozen ones included | what its public properties list |
| `_modules` (of torch), `_functional`, `_operations`, `_layers`, `_self_*` of `Trackable` (of tensorflow) | \
attributes that are bookkeeping, not structure | names of subclassed models carry an additional part |
| `_use_weight_decay`, `_exclude_from_weight_decay_pattern`, `_optimizer_map`, `_learning_rate` of an optimizer | what \
an audit tells | no exclusions, parts or schedules are seen |
| modules below `keras.src` | classes of layers that are bookkeeping | `kind` matches more |

`tests/keras/checks/check_private_names.py` protects each row: it takes the name away and looks at what comes instead.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from groupwise.errors import OptimizerError, listed

HOOKS = ("_backend_apply_gradients", "_clip_gradients", "_apply_weight_decay", "_backend_update_step")
"""What `GroupedOptimizer` overrides: Keras' `apply` calls each of them once an update, in this order."""

_BOOKKEEPING = frozenset({"_functional", "_operations", "_layers", "_modules"})
_OF_TENSORFLOW = (
    "_self_unconditional_",
    "_self_setattr_tracking",
    "_self_update_uid",
    "_self_name_based_restores",
    "_self_saveable_object_factories",
)  # what its `Trackable` keeps; layers of people may well be called `_self_attention`
_INNER_MODULES = ("keras.src.backend.", "keras.src.trainers.", "torch.", "flax.", "tensorflow.")
_INNER_CLASSES = frozenset({"Layer", "Operation", "KerasSaveable", "object"})


def require_hooks(base: type[Any]) -> None:
    """Raise `OptimizerError` if `base` lacks a hook: without it, clipping or decay would be left out in silence."""
    missing = [name for name in HOOKS if not callable(getattr(base, name, None))]
    if missing:
        raise OptimizerError(
            f"keras {keras.__version__} has no {listed(missing)} in its optimizers, which a step over groups is made "
            "of: use a version that groupwise was tested with (docs/keras.md, Limits)"
        )


class OneStep(keras.optimizers.Optimizer):  # type: ignore[misc]  # keras has no types
    """An optimizer whose clipping, decay and update are one step around all groups; the hooks in public names.

    Keras' `apply` accumulates, calls the hooks, and averages.
    """

    def one_step(self, variables: Sequence[Any]) -> contextlib.AbstractContextManager[object]:
        """The context of an update of `variables`, those that have a gradient, accumulated or not."""
        raise NotImplementedError

    def clip_step(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """The gradients as they are to be applied; within `one_step`."""
        raise NotImplementedError

    def decay_step(self) -> None:
        """What to decay of the weights before `apply_step`; within `one_step`."""
        raise NotImplementedError

    def apply_step(self, gradients: Sequence[Any]) -> None:
        """Decay and update the variables with the clipped `gradients`; within `one_step`."""
        raise NotImplementedError

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        with self.one_step(trainable_variables):
            super()._backend_apply_gradients(grads, trainable_variables)

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        return self.clip_step(grads)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        self.decay_step()

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        self.apply_step(grads)


def decay_weights(optimizer: Any, variables: Sequence[Any]) -> None:
    """Let a group's optimizer decay `variables`, by its own rule."""
    decay = getattr(optimizer, "_apply_weight_decay", None)
    if decay is not None and not _in_scope_alone():
        decay(variables)
    elif optimizer.weight_decay is not None:
        for variable in variables:
            rate = keras.ops.cast(optimizer.learning_rate * optimizer.weight_decay, variable.dtype)
            variable.assign(variable - variable * rate)


def update(optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
    """Let a group's optimizer update `variables`, all at once where its backend can."""
    step = getattr(optimizer, "_backend_update_step", None)
    if step is not None and not _in_scope_alone():
        step(gradients, variables, optimizer.learning_rate)
        return
    for gradient, variable in zip(gradients, variables, strict=True):
        optimizer.update_step(gradient, variable, optimizer.learning_rate)


def count_update(optimizer: Any) -> None:
    """Add one to the updates that a group's optimizer has counted."""
    getattr(optimizer, "_iterations", optimizer.iterations).assign_add(1)


def devices_of_step() -> int:
    """Over how many devices the gradients of the step that is under way are summed once more, by `update`."""
    context = _replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def summed_over_devices(gradients: Sequence[Any]) -> list[Any]:
    """The gradients of the whole batch, where a strategy of tensorflow has each device compute those of its part."""
    context = _replica_context()
    if context is None or not gradients:
        return list(gradients)
    return list(context.all_reduce("SUM", list(gradients)))


def _in_scope_alone() -> bool:
    """Whether a class is tried out within the scope of a strategy, on no device of it, where Keras would merge."""
    tensorflow = sys.modules.get("tensorflow") if keras.backend.backend() == "tensorflow" else None
    return tensorflow is not None and tensorflow.distribute.get_replica_context() is None


def _replica_context() -> Any:
    """The device of a strategy that a step runs on; None for a single one, and on other backends."""
    tensorflow = sys.modules.get("tensorflow") if keras.backend.backend() == "tensorflow" else None
    context = None if tensorflow is None else tensorflow.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def place_of(optimizer: Any, variable: Any) -> int | None:
    """The place of `variable` among those that the optimizer was built for; None if it was built for others."""
    index = getattr(optimizer, "_get_variable_index", None)
    if index is None:
        built = getattr(optimizer, "_trainable_variables", ())
        return next((i for i, one in enumerate(built) if one is variable), None)
    try:
        return int(index(variable))
    except KeyError:
        return None


def path_of(variable: Any) -> str:
    """A variable's path; of a variable that is the backend's own (of tensorflow), its name."""
    return str(getattr(variable, "path", None) or getattr(variable, "name", "variable")).partition(":")[0]


def dtype_of(variable: Any) -> str:
    """The name of a variable's dtype, the same for a variable of Keras and for one of the backend's own."""
    return str(keras.backend.standardize_dtype(variable.dtype))


def eagerly(now: bool) -> contextlib.AbstractContextManager[object]:
    """Whatever is made within is made `now`, also where tensorflow is tracing a step.

    Variables that are made in a trace have tensorflow trace the step a second time, and carry a condition each. Under a
    strategy over several devices it is the strategy that makes them.
    """
    tensorflow = sys.modules.get("tensorflow") if keras.backend.backend() == "tensorflow" else None
    if tensorflow is None or not now or tensorflow.distribute.has_strategy():
        return contextlib.nullcontext()
    scope: contextlib.AbstractContextManager[object] = tensorflow.init_scope()
    return scope


def require_eager(what: str) -> None:
    """Raise `OptimizerError` within a trace of tensorflow, where an assignment would be made anew at each step."""
    tensorflow = sys.modules.get("tensorflow") if keras.backend.backend() == "tensorflow" else None
    if tensorflow is not None and not tensorflow.executing_eagerly():
        raise OptimizerError(f"{what}, in a traced step: call optimizer.build(model.trainable_variables) before it")


def track(optimizer: Any, variables: Mapping[str, Any]) -> None:
    """Have tensorflow's own checkpoints (`tf.train.Checkpoint`) hold `variables` with the optimizer, by these names."""
    add = getattr(optimizer, "_track_trackable", None)
    if add is not None and keras.backend.backend() == "tensorflow":
        for name, variable in variables.items():
            add(variable.value, name=name, overwrite=True)


def own_variables(layer: Any) -> list[Any]:
    """A layer's own variables that were made to be trained, whether or not they are now."""
    own = getattr(layer, "_trainable_variables", None)
    if own is not None:
        return list(own)
    inner = {id(variable) for part in layers_of(layer) for variable in part.weights}
    fixed = {id(variable) for variable in getattr(layer, "non_trainable_variables", ())} if layer.trainable else set()
    return [variable for variable in layer.weights if id(variable) not in inner | fixed]


def layers_of(layer: Any) -> list[Any]:
    """The layers directly below a layer, in the order in which they were registered, as far as Keras tells."""
    flatten = getattr(layer, "_flatten_layers", None)
    return [] if flatten is None else list(flatten(include_self=False, recursive=False))


def attributes_of(layer: Any) -> Mapping[str, Any]:
    """What a layer holds by attribute, without what the frameworks keep there for themselves."""
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}  # torch keeps layers in the latter
    return {
        name: value
        for name, value in attributes.items()
        if name not in _of_every_layer() and not name.startswith(_OF_TENSORFLOW)
    }


def class_names(layer: Any) -> Iterator[str]:
    """Names of a layer's classes, its own first, the same on every backend."""
    for base in type(layer).__mro__:
        if base.__name__ not in _INNER_CLASSES and not f"{base.__module__}.".startswith(_INNER_MODULES):
            yield base.__name__


def errors_of_backend() -> tuple[type[Exception], ...]:
    """What a backend raises that is none of Python's own errors; tensorflow is asked only where it is there anyway."""
    tensorflow = sys.modules.get("tensorflow") if keras.backend.backend() == "tensorflow" else None
    return () if tensorflow is None else (tensorflow.errors.OpError,)


def built_for(optimizer: Any) -> list[Any] | None:
    """The variables that an optimizer was built for; None before its build, and where Keras does not tell."""
    held = getattr(optimizer, "_trainable_variables", None)
    return list(held) if optimizer.built and held is not None else None


def is_decayed(optimizer: Any, variable: Any) -> bool:
    """Whether an optimizer that decays weights was not told to exclude `variable`."""
    asked = getattr(optimizer, "_use_weight_decay", None)
    return asked is None or bool(asked(variable))


def excluded_names(optimizer: Any) -> re.Pattern[str] | None:
    """What `exclude_from_weight_decay(var_names=…)` looks for in the names of variables; None if it was not called."""
    return getattr(optimizer, "_exclude_from_weight_decay_pattern", None)


def map_of(optimizer: Any) -> Any:
    """The map of a `MultiOptimizer` from patterns to optimizers, which is called with a variable; None of any other."""
    found = getattr(optimizer, "_optimizer_map", None)
    cls = getattr(keras.optimizers, "OptimizerMap", None)
    return found if cls is not None and isinstance(found, cls) else None


def schedule_of(optimizer: Any) -> Any:
    """What computes the learning rate anew at each step; None where nothing does."""
    rate = getattr(optimizer, "_learning_rate", None)
    return rate if callable(rate) and not isinstance(rate, keras.Variable) else None


def has_schedule(optimizer: Any) -> bool:
    """Whether the learning rate is computed anew at each step."""
    return schedule_of(optimizer) is not None


@functools.cache
def _of_every_layer() -> frozenset[str]:
    return frozenset(vars(keras.layers.Layer(name="reference"))) | _BOOKKEEPING
