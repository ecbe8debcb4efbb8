"""The plan under Keras 3, on a twin with copied weights; the backend is that of `KERAS_BACKEND`.

KERAS_BACKEND=torch python -m examples.everywhere.keras_fit
"""

import keras
import torch
from torch import Tensor

from examples.everywhere.job import BATCH, PLAN, UPDATES, Digits, Net, run
from groupwise.keras import GroupedOptimizer

LAYERS = ("stem", "blocks.0", "blocks.1", "norm", "head")


class Twin(keras.Model):
    """`Net`, with the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = keras.layers.Dense(48, activation="tanh")
        self.blocks = [keras.layers.Dense(48, activation="tanh") for _ in range(2)]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5)
        self.head = keras.layers.Dense(10)

    def call(self, pixels: object) -> object:
        """Pixels [n, 64] to logits [n, 10]."""
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    @property
    def parts(self) -> dict[str, keras.Layer]:
        """The layers by the names that `Net` has for them."""
        return dict(zip(LAYERS, (self.stem, *self.blocks, self.norm, self.head), strict=True))


def train(epochs: int) -> dict[str, Tensor]:
    """`fit`, from the weights of `Net`, and the weights back."""
    data, model = Digits(), Twin()
    model(data.pixels[:1].numpy())  # builds it
    for name, part in model.parts.items():
        part.set_weights([parameter.detach().numpy().T for parameter in Net().get_submodule(name).parameters()])
    optimizer = GroupedOptimizer(PLAN, total_steps=epochs * UPDATES).bind(model)
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.pixels.numpy(), data.labels.numpy(), batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0)
    weights = {name: [torch.tensor(array.T) for array in part.get_weights()] for name, part in model.parts.items()}
    return {f"{name}.{kind}": weights[name][i] for name in LAYERS for i, kind in enumerate(("weight", "bias"))}


if __name__ == "__main__":
    run(train)
