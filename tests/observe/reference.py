"""The statistics once more, one parameter at a time, in float64, from whole copies: slow and plain."""

from dataclasses import dataclass, field
from typing import Any

import torch

Tensors = list[torch.Tensor | None]


def dense(t: torch.Tensor | None) -> torch.Tensor | None:
    return None if t is None else (t.to_dense() if t.layout != torch.strided else t).detach().double().clone()


@dataclass
class Reference:
    """Copies of one group before and after a step."""

    rate: float
    before: list[torch.Tensor]
    after: list[torch.Tensor]
    gradients: Tensors
    clipped: Tensors = field(default_factory=list)

    def statistics(self, previous: "Reference | None", following: "Reference | None") -> dict[str, float]:
        """Everything that a record says of the group."""
        flat = torch.cat([w.flatten() for w in self.before])
        update = torch.cat([(b - a).flatten() for a, b in zip(self.before, self.after, strict=True)])
        found = {
            "weight_norm": float(flat.norm()),
            "update_norm": float(update.norm()),
            "update_ratio": float(update.norm() / flat.norm()),
            "contribution": -self._along(self.gradients),
        }
        if following is not None:
            found["path_contribution"] = -(self._along(self.gradients) + self._along(following.gradients)) / 2
        missing = sum(g is None for g in self.gradients)
        found |= {"no_grad": missing} if missing else {}
        if missing == len(self.gradients):
            return found
        gradient = torch.cat([g.flatten() for g in self.gradients if g is not None])
        moved = torch.cat(
            [
                (b - a).flatten()
                for a, b, g in zip(self.before, self.after, self.gradients, strict=True)
                if g is not None
            ]
        )
        found |= {
            "grad_norm": float(gradient.norm()),
            "relative_gradient": float(gradient.norm() / flat.norm()),
            "zero": float((gradient == 0).double().mean()),
            "step_size": float(moved.square().mean().sqrt() / self.rate),
        }
        if previous is not None:
            pairs = [(a, b) for a, b in zip(self.gradients, previous.gradients, strict=True) if None not in (a, b)]
            one = torch.cat([a.flatten() for a, _ in pairs])
            other = torch.cat([b.flatten() for _, b in pairs])
            found["gradient_cosine"] = float(torch.dot(one, other) / one.norm() / other.norm())
        norm_after = torch.cat([g.flatten() for g in self.clipped if g is not None]).norm()
        return found | {"clip_factor": float(norm_after / gradient.norm())}

    def _along(self, gradients: Tensors) -> float:
        zipped = zip(self.before, self.after, gradients, strict=True)
        return float(sum(torch.sum(g * (b - a)) for a, b, g in zipped if g is not None))


class Camera:
    """Takes references of every group around each step."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self.taken: list[dict[str, Reference]] = []

    def step(self) -> None:
        """One step of the optimizer, with copies before and after."""
        groups: list[dict[str, Any]] = self._optimizer.param_groups
        before = {g["name"]: [p.detach().double().clone() for p in g["params"]] for g in groups}
        gradients = {g["name"]: [dense(p.grad) for p in g["params"]] for g in groups}
        rates = {g["name"]: float(g["lr"]) for g in groups}
        self._optimizer.step()
        self.taken.append(
            {
                g["name"]: Reference(
                    rates[g["name"]],
                    before[g["name"]],
                    [p.detach().double().clone() for p in g["params"]],
                    gradients[g["name"]],
                    [dense(p.grad) for p in g["params"]],
                )
                for g in groups
            }
        )
