"""Running statistics of frozen norms: what a norm in training mode changes though none of its parameters trains.

`requires_grad_(False)` stops the gradients of a norm, and not its running mean and variance, which every forward pass
in training mode moves. So a backbone that is frozen drifts all the same, and another model is evaluated than was
trained. Seen by values: a buffer that differs, of a module all of whose parameters are frozen and stay as they are. An
averaged copy (EMA) moves its parameters as well, so it is none of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias, final

import torch

Model: TypeAlias = "torch.nn.Module | Mapping[str, torch.nn.Module | torch.Tensor]"

_STATISTICS: Final = ("running_", "moving_", "ema_")
_ITERATED: Final = ("u", "v")  # of spectral norm: the same weight, better known
_LARGEST: Final = 2**20


@final
class Statistics:
    """The running statistics of the frozen norms of a model, as they are now."""

    def __init__(self, model: Model) -> None:
        self._norms = [(path, norm, around) for path, norm, around in _norms(model) if _is_frozen(around)]
        self._before = {path: _held(norm) for path, norm, _ in self._norms}
        self._versions = {path: _versions(around) for path, _, around in self._norms}

    def moved(self) -> tuple[str, ...]:
        """The paths of the norms whose statistics changed while their parameters stayed frozen and as they were."""
        return tuple(
            path
            for path, norm, around in self._norms
            if _is_frozen(around)
            and _versions(around) == self._versions[path]
            and any(_differs(self._before[path].get(name), now) for name, now in _buffers(norm).items())
        )


def _norms(model: Model) -> Iterator[tuple[str, torch.nn.Module, torch.nn.Module]]:
    """Every module that keeps statistics, with its path, and the nearest module around it that has parameters."""
    parts = {"": model} if isinstance(model, torch.nn.Module) else dict(model)
    for key, part in parts.items():
        modules = dict(part.named_modules()) if isinstance(part, torch.nn.Module) else {}
        for path, module in modules.items():
            if _buffers(module):
                yield ".".join(filter(None, (key, path))), module, _around(path, modules)


def _around(path: str, modules: Mapping[str, torch.nn.Module]) -> torch.nn.Module:
    while path and not any(True for _ in modules[path].parameters()):
        path = path.rpartition(".")[0]
    return modules[path]


def _buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The statistics that a module itself keeps: floating buffers, of a norm or named as running ones."""
    norm = any("norm" in base.__name__.lower() for base in type(module).__mro__)
    return {
        name: buffer
        for name, buffer in module.named_buffers(recurse=False)
        if (norm or name.startswith(_STATISTICS))
        and name.strip("_").removeprefix("weight_") not in _ITERATED
        and buffer.is_floating_point()
        and not buffer.is_meta
        and buffer.numel() <= _LARGEST
    }


def _held(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.detach().clone() for name, buffer in _buffers(module).items()}


def _is_frozen(module: torch.nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _versions(module: torch.nn.Module) -> list[tuple[int, int]]:
    return [(id(p), p._version) for p in module.parameters()]


def _differs(before: torch.Tensor | None, now: torch.Tensor) -> bool:
    return before is not None and before.shape == now.shape and not torch.equal(before, now.detach())
