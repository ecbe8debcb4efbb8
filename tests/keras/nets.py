"""The small net of the reference in Keras, in every form in which Keras makes models, and its data."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tests.keras.reference import Array, Weights

BATCH, ROWS = 8, 32


def data(seed: int = 0) -> tuple[Array, Array]:
    """32 rows of 4 features and a target."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, 4)).astype("float32")
    return x.astype("float64"), np.sin(x.sum(1, keepdims=True)).astype("float32").astype("float64")


def sequential(seed: int = 0) -> Any:
    """Input, body, head."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), *_layers()])


def functional(seed: int = 0) -> Any:
    """The same, Functional."""
    keras.utils.set_random_seed(seed)
    body, head = _layers()
    inputs = keras.Input((4,))
    return keras.Model(inputs, head(body(inputs)), name="net")


def nested(seed: int = 0) -> Any:
    """A Functional model whose body is a Sequential of one layer."""
    keras.utils.set_random_seed(seed)
    body, head = _layers("dense")
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), body], name="body")
    return keras.Model(inputs, head(inner(inputs)), name="net")


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """The same, held by attributes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.body = keras.layers.Dense(5, activation="tanh")
        self.head = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.head(self.body(inputs))


def subclassed(seed: int = 0) -> Any:
    """The same, subclassed and built by a call."""
    keras.utils.set_random_seed(seed)
    model = Subclassed()
    model(np.zeros((1, 4), "float32"))
    return model


FORMS = (sequential, functional, nested, subclassed)


def weights(model: Any) -> Weights:
    """The weights by their names in the reference."""
    names = ("body.kernel", "body.bias", "head.kernel", "head.bias")
    return dict(zip(names, (value.astype("float64") for value in model.get_weights()), strict=True))


def fit(model: Any, epochs: int = 2, **options: Any) -> Any:
    """Fit on the data in order."""
    x, y = (array.astype("float32") for array in data())
    arguments = {"batch_size": BATCH, "shuffle": False, "verbose": 0} | options
    return model.fit(x, y, epochs=epochs, **arguments)


def difference(a: Any, b: Any) -> float:
    """The largest difference of the weights of two models, or of a model and the reference."""
    ours, theirs = (weights(m) if isinstance(m, keras.Model) else m for m in (a, b))
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


def state(optimizer: Any) -> list[NDArray[Any]]:
    """All of an optimizer's state as arrays."""
    return [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]


def _layers(body: str = "body") -> tuple[Any, Any]:
    return keras.layers.Dense(5, activation="tanh", name=body), keras.layers.Dense(1, name="head")
