"""The one transfer of a backward: everything the CPU needs to know comes in a single vector."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import torch
from torch import Tensor

from groupwise.balance.engine.finite import Facts
from groupwise.balance.engine.routes.route import Route


def transfer(losses: Mapping[str, Tensor], route: Route, scale: Tensor | None) -> tuple[Facts, float]:
    """Losses, Gramian and task-only norms, unscaled, float64 on the CPU; and the scale."""
    count = len(losses)
    gramian, own = route.gramian(), route.task_specific_sums()
    if gramian is None and own is None and scale is None:
        return Facts(_on_cpu(losses), None, None), 1.0
    scalars = _stacked(losses)
    parts = [scalars, torch.ones_like(scalars[:1]) if scale is None else scale.reshape(1)]
    parts += [part.flatten() for part in (gramian, own) if part is not None]
    moved = torch.cat([part.to(device=scalars.device, dtype=torch.float64) for part in parts]).cpu()
    s = float(moved[count])
    rest = moved[count + 1 :]
    table = None if gramian is None else rest[: count * count].view(count, count)
    if table is not None:
        table = route.rescaled(table)
    norms = None if own is None else rest[len(rest) - count :]
    return Facts(moved[:count], None if table is None else table / s**2, norms), s


def _on_cpu(losses: Mapping[str, Tensor]) -> Tensor:
    """[t] float64; each is read by itself where it is on the CPU already, which takes less than to stack them."""
    if not all(loss.is_cpu for loss in losses.values()):
        return _stacked(losses).cpu()
    return torch.frombuffer(array("d", [loss.item() for loss in losses.values()]), dtype=torch.float64)


def _stacked(losses: Mapping[str, Tensor]) -> Tensor:
    """[t] float64 on the device of the first loss."""
    scalars = [loss.detach() for loss in losses.values()]
    alike = all(scalar.device == scalars[0].device and scalar.dtype == scalars[0].dtype for scalar in scalars)
    if not alike:
        scalars = [scalar.to(device=scalars[0].device, dtype=torch.float64) for scalar in scalars]
    return torch.stack(scalars).double()
