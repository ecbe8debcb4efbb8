"""The model: a module, or the mapping of networks that a `GroupedOptimizer` takes, as one state by name.

Names are matched as they are, or else seen through wrappers, so what was saved compiled or under DDP loads without
either, and the other way round.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import nn

from groupwise._spelling import shown
from groupwise._wrappers import without_wrappers
from groupwise.checkpoint.part import Part, Undo
from groupwise.errors import StateError, listed

Model: TypeAlias = nn.Module | Mapping[str, nn.Module | torch.Tensor]


@final
class ModelPart(Part):
    """The weights and buffers of a model, and the versions that its modules keep of their own formats."""

    def __init__(self, model: Model) -> None:
        _check_model(model)
        self._model = model if isinstance(model, nn.Module) else _root(model)

    def capture(self) -> Any:
        state = self._model.state_dict()
        return {"state": state, "versions": getattr(state, "_metadata", {})}

    def check(self, saved: Any) -> None:
        here, there = self._model.state_dict(), self._named(saved)
        missing = [name for name in here if name not in there]
        unexpected = [name for name in there if name not in here]
        differing = [
            f"{name} {_shape(value)} and here {_shape(here[name])}"
            for name, value in there.items()
            if name in here and _shape(value) != _shape(here[name])
        ]
        faults = ((missing, "not in the file"), (unexpected, "not in this model"), (differing, "of another shape"))
        wrong = [f"{len(names)} {what} ({listed(names, 3)})" for names, what in faults if names]
        if wrong:
            raise StateError(f"of another architecture: of {len(here)} entries, " + "; ".join(wrong))

    def snapshot(self) -> Undo:
        live = self._model.state_dict()
        tensors = {name: value.clone() for name, value in live.items() if isinstance(value, torch.Tensor)}
        extras = {name: value for name, value in live.items() if name not in tensors}

        def undo() -> None:
            with torch.no_grad():
                for name, value in tensors.items():
                    live[name].copy_(value)
            if extras:
                self._model.load_state_dict(extras, strict=False)

        return undo

    def apply(self, saved: Any) -> bool:
        state = OrderedDict(self._named(saved))
        modules = {without_wrappers(name): name for name, _ in self._model.named_modules()}
        versions = {modules.get(without_wrappers(name), name): version for name, version in saved["versions"].items()}
        setattr(state, "_metadata", versions)  # noqa: B010  where torch looks for it
        self._model.load_state_dict(state)
        return True

    def _named(self, saved: Any) -> dict[str, Any]:
        """The saved entries by the names that they have in this model."""
        held = isinstance(saved, dict) and all(isinstance(saved.get(key), dict) for key in ("state", "versions"))
        if not held:
            raise StateError("is not the state of a model")
        return _matched(saved["state"], self._model.state_dict())


def _matched(saved: Mapping[str, Any], live: Iterable[str]) -> dict[str, Any]:
    own = set(live)
    bare = {without_wrappers(name): name for name in own}
    named: dict[str, Any] = {}
    for name, value in saved.items():
        known = name if name in own else bare.get(without_wrappers(name), name)
        if known in named:
            raise StateError(f"ambiguous: {name!r} and another entry of the file are both {known!r} here")
        named[known] = value
    return named


def _check_model(model: object) -> None:
    parts = isinstance(model, Mapping) and all(isinstance(part, nn.Module | torch.Tensor) for part in model.values())
    if not parts and not isinstance(model, nn.Module):
        raise StateError(f"model= is a module, or several networks by name, not {shown(model)}")


def _root(networks: Mapping[str, nn.Module | torch.Tensor]) -> nn.Module:
    """A module that holds the networks under their names, and nothing else."""
    root = nn.Module()
    for name, network in networks.items():
        if isinstance(network, nn.Module):
            root.add_module(name, network)
        elif isinstance(network, nn.Parameter):
            root.register_parameter(name, network)
        else:
            root.register_buffer(name, network)
    return root


def _shape(value: Any) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else "which is no tensor"
