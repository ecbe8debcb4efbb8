"""What an update is, from plain torch: one forward and one `backward()` for each task, by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.balance.engine.models import MultiTask, built


@dataclass(frozen=True)
class Reference:
    """The gradient of every leaf from every task, dense, by the leaf's name."""

    tasks: tuple[str, ...]
    losses: Tensor
    gradients: Mapping[str, Mapping[str, Tensor]]

    @property
    def shared(self) -> list[str]:
        """The leaves that two tasks reach."""
        names = [name for by_leaf in self.gradients.values() for name in by_leaf]
        return sorted({name for name in names if names.count(name) >= min(2, len(self.tasks))})

    def jacobian(self, names: Sequence[str] | None = None) -> Tensor:
        """[t, n] over the shared leaves, or over those named; zero where a task does not reach one."""
        chosen = self.shared if names is None else names
        like = {name: gradient for by_leaf in self.gradients.values() for name, gradient in by_leaf.items()}
        rows = []
        for task in self.tasks:
            pieces = [self.gradients[task].get(name, torch.zeros_like(like[name])).flatten() for name in chosen]
            rows.append(torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.float64))
        return torch.stack(rows)

    def gramian(self, names: Sequence[str] | None = None) -> Tensor:
        """[t, t]."""
        jacobian = self.jacobian(names)
        return jacobian @ jacobian.T

    def update(self, weights: Tensor, own: Tensor | None = None) -> dict[str, Tensor]:
        """`.grad` by name: shared leaves see the weights, the others `own` (1 by default)."""
        found: dict[str, Tensor] = {}
        shared = set(self.shared)
        for i, task in enumerate(self.tasks):
            for name, gradient in self.gradients[task].items():
                factor = weights[i] if name in shared else (1.0 if own is None else own[i])
                found[name] = found.get(name, torch.zeros_like(gradient)) + factor * gradient
        return found


def leaves(model: MultiTask) -> dict[str, Tensor]:
    """Parameters, and other attributes that require grad, by name."""
    others = {name: value for name, value in vars(model).items() if isinstance(value, Tensor) and value.is_leaf}
    return {**dict(model.named_parameters()), **{name: t for name, t in others.items() if t.requires_grad}}


def gradients(model: MultiTask) -> dict[str, Tensor]:
    """A dense copy of every `.grad` that is there."""
    return {
        name: (leaf.grad.to_dense() if leaf.grad.is_sparse else leaf.grad).clone()
        for name, leaf in leaves(model).items()
        if leaf.grad is not None
    }


def reference(kind: str, tasks: Sequence[str] | None = None) -> Reference:
    """Each task alone, on a model of its own."""
    names = tuple(tasks or built(kind).losses())
    found, values = {}, []
    for task in names:
        model = built(kind)
        loss = model.losses()[task]
        loss.backward()
        values.append(loss.detach())
        found[task] = gradients(model)
    return Reference(names, torch.stack(values), found)


def assert_same(model: MultiTask, expected: Mapping[str, Tensor], tolerance: float = 1e-12) -> None:
    """Every `.grad` of the model, and no other."""
    found = gradients(model)
    assert sorted(found) == sorted(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def crooked(gramian: Tensor) -> Tensor:
    """Weights of either sign that depend smoothly on all of the matrix."""
    scale = gramian.trace() + 1e-3
    return gramian.sum(1) / scale - 0.4 * gramian.diagonal() / scale + 0.1 * torch.arange(1.0, len(gramian) + 1)


Gramian = Callable[[Tensor], Tensor]
