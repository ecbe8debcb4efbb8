"""A model whose task losses are weighed while it trains.

Keras sums the losses of a model's outputs with fixed weights. Here `compute_loss`, which every backend's trainer calls
inside the compiled step, asks a method for the weights instead, so `compile` and `fit` stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import keras

from groupwise.errors import BalanceError, listed, unknown
from groupwise.keras.balancing import Context, Method, method_of
from groupwise.keras.losses import loss_of
from groupwise.keras.program import Lengths

ops = keras.ops


@final
@keras.saving.register_keras_serializable("groupwise")
class BalancedModel(keras.Model):  # type: ignore[misc]  # keras has no types
    """A model around `inner` that balances the losses of its outputs; the tasks are the outputs' names.

        model = BalancedModel(inner, Uncertainty())
        model.compile(optimizer, loss={"seg": "sparse_categorical_crossentropy", "depth": "mse"})

    The total is sum_i w_i L_i plus the model's own losses (regularizers, `add_loss`), which no method weighs. The
    weights are constants to the gradient; `task_weights` are those of the last training step, which `evaluate` uses as
    well. Each task's loss is logged as `<task>_loss`.

    Args:
        inner: a built Keras model with named outputs.
        method: a method of `groupwise.keras`, or the `[balance]` table of a plan.
        tasks: the outputs' names, where the model does not tell (a subclassed model that returns a dictionary).
        total_steps, steps_per_epoch: for weights that are scheduled, and for `DWA`.

    Raises:
        BalanceError: no tasks, or a method that does not fit them.
    """

    def __init__(
        self,
        inner: Any,
        method: Method | Mapping[str, Any],
        tasks: Sequence[str] | None = None,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.inner = inner
        self.tasks = tuple(tasks or _tasks_of(inner))
        self.lengths = tuple(Lengths.checked(total_steps, steps_per_epoch))
        method = method if isinstance(method, Method) else method_of(method)
        self.method = method.prepared(self.tasks, Lengths(*self.lengths))
        count = len(self.tasks)
        self._step = self._kept("step", 0.0)
        self._task_weights = self._kept("weights", [1.0] * count)
        self._memory = {key: self._kept(key, values) for key, values in self.method.remembers(count).items()}
        self._means = [keras.metrics.Mean(name=f"{task}_loss") for task in self.tasks]
        self.built = True

    @property
    def task_weights(self) -> dict[str, float]:
        """The weights of the last training step; before the first, ones."""
        return dict(zip(self.tasks, ops.convert_to_numpy(self._task_weights).tolist(), strict=True))

    def told(self) -> dict[str, dict[str, float]]:
        """By task, its mean loss over the epoch so far and its weight at the last step."""
        losses = (float(ops.convert_to_numpy(mean.result())) for mean in self._means)
        pairs = zip(self.task_weights.items(), losses, strict=True)
        return {task: {"loss": loss, "weight": weight} for (task, weight), loss in pairs}

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The outputs of the inner model, as a dictionary by task."""
        outputs = self.inner(inputs, training=training)
        return outputs if isinstance(outputs, Mapping) else dict(zip(self.tasks, _listed(outputs), strict=True))

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """As every model's, with one loss for each task, or one for all; the method gives the weights."""
        if loss_weights is not None:
            raise BalanceError("loss_weights and a balancing method are two answers to one question: use Static(…)")
        self._by_task = dict(zip(self.tasks, map(loss_of, self._one_for_each(loss)), strict=True))
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was compiled, and build its optimizer."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The balanced total, a scalar."""
        found = []
        for task, mean in zip(self.tasks, self._means, strict=True):
            weights = self._part(task, sample_weight) if sample_weight is not None else None
            value = self._by_task[task](self._part(task, y), self._part(task, y_pred), sample_weight=weights)
            mean.update_state(value)
            found.append(value)
        losses = ops.stack([ops.cast(value, "float32") for value in found])
        if training:
            context = Context(self._memory, ops.cast(self._step, "int32"))
            context = Context(self._memory, ops.cast(self._step, "int32"))
            weights = self.method.weights(ops.stop_gradient(losses), context)
            self._task_weights.assign(ops.cast(ops.stop_gradient(weights), "float32"))
            self._step.assign(self._step + 1)
        total = ops.sum(ops.stop_gradient(ops.convert_to_tensor(self._task_weights)) * losses)
        return total + sum(ops.cast(ops.sum(own), "float32") for own in self.losses)

    def get_config(self) -> dict[str, Any]:
        """The inner model and the method, as plain data."""
        total_steps, steps_per_epoch = self.lengths
        return {
            "inner": keras.saving.serialize_keras_object(self.inner),
            "method": self.method.table(),
            "beside": self.method.beside(),
            "tasks": list(self.tasks),
            "total_steps": total_steps,
            "steps_per_epoch": steps_per_epoch,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> BalancedModel:
        """The model that `get_config` describes."""
        inner = keras.saving.deserialize_keras_object(config["inner"], custom_objects=custom_objects)
        config = {**config, "inner": inner, "method": method_of(config["method"], config.get("beside", {}))}
        return cls(**{name: value for name, value in config.items() if name != "beside"})

    def _kept(self, name: str, values: float | Sequence[Any]) -> Any:
        shape = keras.ops.shape(keras.ops.convert_to_tensor(values, dtype="float32"))
        kept = self.add_weight(shape=shape, initializer="zeros", dtype="float32", trainable=False, name=name)
        kept.assign(values)
        return kept

    def _one_for_each(self, loss: Any) -> list[Any]:
        """One loss for each task, in their order."""
        if loss is None:
            raise BalanceError(f"compile needs a loss for each task: loss={{{self.tasks[0]!r}: …}}")
        if isinstance(loss, Mapping):
            strange = [task for task in loss if task not in self.tasks]
            if strange:
                raise BalanceError(unknown("task", str(strange[0]), self.tasks))
            missing = [task for task in self.tasks if task not in loss]
            if missing:
                raise BalanceError(f"no loss for {listed(missing)}: every output is a task")
            return [loss[task] for task in self.tasks]
        if isinstance(loss, list | tuple) and len(loss) != len(self.tasks):
            raise BalanceError(f"{len(loss)} losses for {len(self.tasks)} tasks ({listed(self.tasks)})")
        return list(loss) if isinstance(loss, list | tuple) else [loss] * len(self.tasks)

    def _part(self, task: str, values: Any) -> Any:
        if isinstance(values, Mapping):
            return values[task]
        several = isinstance(values, list | tuple)
        return values[self.tasks.index(task)] if several else values


def _tasks_of(inner: Any) -> list[str]:
    outputs = getattr(inner, "output", None)
    names = list(outputs) if isinstance(outputs, Mapping) else getattr(inner, "output_names", None)
    if not names:
        raise BalanceError("the outputs have no names: BalancedModel(model, method, tasks=[…])")
    return list(names)


def _listed(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
