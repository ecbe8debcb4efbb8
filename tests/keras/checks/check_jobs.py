"""Everyday jobs around a fit: a plan of one rule does what the plain optimizer of Keras does, to float32."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import Plan, Rule
from groupwise.keras import GroupedOptimizer
from tests.keras.nets import Subclassed, data, fit, functional

NAME, RATE = "Adam", 0.02
Made = Callable[[Any], Any]


def ours(model: Any, **options: Any) -> Any:
    plan = Plan([Rule("*", optimizer=NAME, lr=RATE)])
    return GroupedOptimizer(plan, learning_rate_as="rate", **options).bind(model)


def theirs(model: Any, **options: Any) -> Any:
    return getattr(keras.optimizers, NAME)(RATE, **options)


def other_loss(model: Any, made: Made, folder: Path) -> Any:
    fit(model, epochs=1)
    model.compile(model.optimizer, "mae")
    fit(model, epochs=1)
    return model


def unfrozen_in_stages(model: Any, made: Made, folder: Path) -> Any:
    body = model.get_layer("body")
    for trainable in (False, True):
        body.trainable = trainable
        model.compile(made(model), "mse")
        fit(model, epochs=1)
    return model


def pickled(model: Any, made: Made, folder: Path) -> Any:
    fit(model, epochs=1)
    again = pickle.loads(pickle.dumps(model))
    fit(again, epochs=1)
    return again


def copied(model: Any, made: Made, folder: Path) -> Any:
    fit(model, epochs=1)
    again = copy.deepcopy(model)
    fit(again, epochs=1)
    return again


def cloned(model: Any, made: Made, folder: Path) -> Any:
    fit(model, epochs=1)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    again.compile_from_config(model.get_compile_config())
    fit(again, epochs=1)
    return again


def resumed_with_a_scheduler(model: Any, made: Made, folder: Path) -> Any:
    halving = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    fit(model, epochs=1, callbacks=[halving])
    fit(model, epochs=3, initial_epoch=1, callbacks=[halving])
    return model


def on_a_plateau(model: Any, made: Made, folder: Path) -> Any:
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=0, min_delta=10, min_lr=1e-3)
    fit(model, epochs=4, callbacks=[plateau])
    return model


def best_of_a_run(model: Any, made: Made, folder: Path) -> Any:
    file = str(folder / "best.keras")
    best = keras.callbacks.ModelCheckpoint(file, monitor="loss", save_best_only=True)
    early = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True)
    fit(model, epochs=4, callbacks=[best, early])
    again = keras.models.load_model(file)
    fit(again, epochs=1)
    return again


def batch_by_batch(model: Any, made: Made, folder: Path) -> Any:
    x, y = (array.astype("float32") for array in data())
    for i in range(0, len(x), 8):
        model.train_on_batch(x[i : i + 8], y[i : i + 8])
    return model


def with_an_overflow(model: Any, made: Made, folder: Path) -> Any:
    model.compile(keras.optimizers.LossScaleOptimizer(model.optimizer), "mse")
    x, y = (array.astype("float32") for array in data())
    y[3] = np.inf
    model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    assert float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale)) == 2**14  # one step was left out
    return model


JOBS = (
    other_loss, unfrozen_in_stages, pickled, copied, cloned, resumed_with_a_scheduler, on_a_plateau, best_of_a_run,
    batch_by_batch, with_an_overflow,
)  # fmt: skip


def away(a: Any, b: Any) -> float:
    pairs = zip(a.get_weights(), b.get_weights(), strict=True)
    return max(float(np.abs(x - y).max()) for x, y in pairs)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_ends_at_the_weights_of_plain_keras(job: Callable[[Any, Made, Path], Any], tmp_path: Path) -> None:
    ended = []
    for made in (ours, theirs):
        model = functional()
        model.compile(made(model), "mse")
        ended.append(job(model, made, tmp_path))
    assert away(*ended) < 1e-6


def constrained() -> Any:
    """A model whose layers have constraints and regularizers, and a layer that nothing uses."""
    keras.utils.set_random_seed(0)

    class Constrained(Subclassed):
        def __init__(self) -> None:
            super().__init__()
            self.body = keras.layers.Dense(
                5, activation="tanh", kernel_constraint=keras.constraints.MaxNorm(0.5), kernel_regularizer="l2"
            )
            self.unused = keras.layers.Dense(3)

        def build(self, shape: Any) -> None:
            self.body.build(shape)
            self.head.build((None, 5))
            self.unused.build(shape)
            self.built = True

    model = Constrained()
    model(np.zeros((1, 4), "float32"))
    return model


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, "use_ema": True}])
def test_constraints_regularizers_and_unused_layers_are_those_of_plain_keras(options: dict[str, Any]) -> None:
    ended = []
    for made in (ours, theirs):
        model = constrained()
        model.compile(made(model, **options), "mse")
        fit(model, epochs=1)
        ended.append(model)
    assert away(*ended) < 1e-6


class OfTorch(keras.Model):
    """A step as Keras' guide for torch writes it."""

    def train_step(self, data: Any) -> Any:
        import torch  # of this backend alone

        x, y = data[0], data[1]
        self.zero_grad()
        loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        loss.backward()
        trained = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([variable.value.grad for variable in trained], trained)
        return {"loss": loss}


class OfTensorflow(keras.Model):
    """A step as Keras' guide for tensorflow writes it."""

    def train_step(self, data: Any) -> Any:
        import tensorflow  # of this backend alone

        x, y = data[0], data[1]
        with tensorflow.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class OfJax(keras.Model):
    """A step as Keras' guide for jax writes it."""

    def loss_of(self, trained: Any, others: Any, x: Any, y: Any) -> Any:
        predicted, others = self.stateless_call(trained, others, x, training=True)
        return self.compute_loss(None, y, predicted), others

    def train_step(self, state: Any, data: Any) -> Any:
        import jax  # of this backend alone

        trained, others, of_optimizer, metrics = state
        differentiate = jax.value_and_grad(self.loss_of, has_aux=True)
        (loss, others), gradients = differentiate(trained, others, data[0], data[1])
        trained, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trained)
        return {"loss": loss}, (trained, others, of_optimizer, metrics)


def test_a_step_of_ones_own_ends_at_the_weights_of_plain_keras() -> None:
    cls = {"torch": OfTorch, "tensorflow": OfTensorflow, "jax": OfJax}[keras.backend.backend()]
    ended = []
    for made in (ours, theirs):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        body = keras.layers.Dense(5, activation="tanh", name="body")(inputs)
        model = cls(inputs, keras.layers.Dense(1, name="head")(body))
        model.compile(made(model), "mse")
        fit(model, epochs=1)
        ended.append(model)
    assert away(*ended) < 1e-6
