"""The laws of optimizer classes, as shipped, on torch's classes and on classes that break them."""

from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from groupwise.errors import LawBroken
from groupwise.testing import check, laws_of

CLASSES: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.5}),
    "NAdam": (torch.optim.NAdam, {}),
    "ASGD": (torch.optim.ASGD, {}),
}


@pytest.mark.parametrize(("cls", "hyperparameters"), CLASSES.values(), ids=CLASSES)
def test_classes_of_torch_obey_the_laws(cls: type[Optimizer], hyperparameters: dict[str, Any]) -> None:
    check(cls, hyperparameters)


class Descent(Optimizer):
    """Plain descent, to be spoilt."""

    def __init__(self, params: Any, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self.move(p, group["lr"])

    def move(self, p: torch.Tensor, lr: float) -> None:
        p -= lr * p.grad  # type: ignore[operator]


class Counting(Descent):
    """Slows down with a counter that it keeps to itself."""

    steps = 0

    def move(self, p: torch.Tensor, lr: float) -> None:
        type(self).steps += 1
        super().move(p, lr / type(self).steps)


class Opaque(Descent):
    """Keeps an object in its state that no safe load takes."""

    def move(self, p: torch.Tensor, lr: float) -> None:
        self.state[p]["what"] = Descent
        super().move(p, lr)


class Restless(Descent):
    """Decays what has no gradient."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                torch._foreach_mul_(group["params"], 0.9)


def test_plain_descent_obeys_the_laws() -> None:
    check(Descent)


BROKEN: dict[str, tuple[type[Optimizer], str]] = {
    "a counter outside state": (Counting, "Counting breaks the law that .*goes on like the original"),
    "an object in state": (Opaque, "what was saved, as plain data, .*weights_only=True refuses it"),
    "what has no gradient": (Restless, "a parameter without a gradient stays where it is: '1.bias'"),
    "no engine at all": (torch.optim.LBFGS, "treats all parameters as one vector"),
}


@pytest.mark.parametrize(("cls", "words"), BROKEN.values(), ids=BROKEN)
def test_a_class_that_breaks_a_law_is_told_which(cls: type[Optimizer], words: str) -> None:
    with pytest.raises(LawBroken, match=words):
        check(cls)


def test_the_laws_can_parametrize_a_test() -> None:
    laws = laws_of(torch.optim.Adagrad)
    assert str(laws[0]) == "it steps as the class alone"
    for law in laws:
        law()
