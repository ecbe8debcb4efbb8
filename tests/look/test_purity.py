"""Nothing of a model, of its gradients or of any generator changes by a look."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from groupwise.look import parameters_of


class Careless(nn.Module):
    """A forward that writes into everything that it can reach."""

    def __init__(self, needs_values: bool) -> None:
        super().__init__()
        self.entry, self.norm, self.exit = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.register_buffer("memory", torch.zeros(4))
        self.cache: dict[int, Any] = {}
        self.history: list[Any] = []
        self.needs_values = needs_values

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x.add_(1)
        x = self.norm(self.entry(x))
        self.memory.mul_(0.9).add_(x.mean((0, 2, 3)).detach())
        self.memory[0] = random.random() + float(np.random.rand()) + torch.rand(())
        self.cache[len(x)], self.last = x, x
        self.history.append(x)
        self.register_buffer("late", torch.ones(2))
        self.train(False)
        with torch.no_grad():
            self.exit.weight.mul_(0.5)
            self.exit.bias.data.add_(1)
        self.entry.weight.requires_grad_(False)
        if self.needs_values:
            x = torch.from_numpy(x.detach().numpy())
        out: torch.Tensor = self.exit(nn.functional.dropout(x.mean((2, 3)), training=True))
        return out


def picture(model: Careless) -> list[Any]:
    """All of its state, and that of the generators."""
    parameters = list(model.parameters())
    return [
        {key: value.clone() for key, value in model.state_dict().items()},
        [(id(p), p._version, p.requires_grad) for p in parameters],
        [(id(p.grad), None if p.grad is None else p.grad.clone()) for p in parameters],
        [(sorted(vars(module)), module.training) for module in model.modules()],
        [dict(model.cache), list(model.history), getattr(model, "last", None)],
        [torch.get_rng_state(), random.getstate(), np.random.get_state()[1]],
    ]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Equality, bit by bit."""
    if isinstance(one, torch.Tensor | np.ndarray):
        return bool((torch.as_tensor(one) == torch.as_tensor(other)).all())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def batch() -> torch.Tensor:
    return torch.arange(2.0 * 3 * 8 * 8).view(2, 3, 8, 8)


EXAMPLES: dict[str, Callable[[torch.Tensor], Any]] = {
    "a tensor": lambda x: x,
    "a tuple": lambda x: (x,),
    "keywords": lambda x: {"x": x},
    "a function": lambda x: lambda model: model(x),
    "a loss that is backpropagated": lambda x: lambda model: model(x).sum().backward(),
}


@pytest.mark.parametrize("needs_values", [False, True], ids=["on meta", "where it lives"])
@pytest.mark.parametrize("form", EXAMPLES)
def test_a_look_leaves_no_trace(form: str, needs_values: bool) -> None:
    if needs_values and form == "a loss that is backpropagated":
        return  # what came back from numpy has no gradient
    model, x = Careless(needs_values), batch()
    model.exit.weight.grad = torch.ones(2, 4)
    before = picture(model)
    infos = parameters_of(model, example=EXAMPLES[form](x))
    assert same(before, picture(model))
    assert torch.equal(x, batch())
    assert {"entry.weight": "conv", "exit.weight": "head"}.items() <= {
        (info.name, role) for info in infos for role in info.roles & {"conv", "head"}
    } or all("conv" in i.roles for i in infos if i.name == "entry.weight")
    assert {str(info.basis) for info in infos} == {
        f"seen in a forward on {'cpu' if needs_values or 'back' in form else 'the meta device'}"
    }


def test_an_example_that_raises_leaves_no_trace() -> None:
    model = Careless(False)
    before = picture(model)

    def example(model: Careless) -> None:
        model(batch())
        raise ValueError("no such batch")

    with pytest.raises(ValueError, match="ValueError: no such batch"):
        parameters_of(model, example=example)
    assert same(before, picture(model))
