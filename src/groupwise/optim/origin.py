"""The model that an optimizer was built from, remembered without keeping it alive.

Whoever replaces a head or adds an adapter changes the model and not the optimizer, and nothing fails: the old tensors lie
idle in their groups, the new ones keep their initial values. The optimizer can see that, as long as the model is there.
It is seen in two signs, either of which is certain: a tensor that the plan was resolved on, still stands in its group and
is no longer the model's; and a trainable tensor of the model that neither a group nor the plan has ever seen. Tensors
that a trainer has put into the groups or taken out of them (shards, master copies) are no sign.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from groupwise.errors import SelectorError, listed
from groupwise.plan import Resolution
from groupwise.select import ParameterInfo, parameters_of


class Origin:
    """Weak references to the module, or to the named modules and parameters, that a plan was resolved on."""

    def __init__(self, model: object) -> None:
        parts = dict(model) if isinstance(model, Mapping) else {"": model}
        sound = all(isinstance(part, torch.nn.Module | torch.Tensor) for part in parts.values())
        self._parts: dict[str, weakref.ref[Any]] = {k: weakref.ref(part) for k, part in parts.items()} if sound else {}
        self._said: set[str] = set()

    def is_news(self, sentence: str) -> bool:
        """Whether a sentence about this model has not been said yet."""
        news = bool(sentence) and sentence not in self._said
        self._said.add(sentence)
        return news

    def model(self) -> Any:
        """The module or the mapping again; None once any part of it is gone, or if it was never known."""
        parts = {name: part() for name, part in self._parts.items()}
        if not parts or any(part is None for part in parts.values()):
            return None
        return parts[""] if "" in parts else parts

    def infos(self) -> tuple[ParameterInfo, ...]:
        """The model's parameters as they are now; none if it is gone or cannot be walked."""
        model = self.model()
        if model is None:
            return ()
        try:
            return parameters_of(model)
        except SelectorError:
            return ()

    def tensors(self) -> Iterator[torch.Tensor]:
        """The model's parameters, without their names, which take longer."""
        for part in (part() for part in self._parts.values()):
            if isinstance(part, torch.nn.Module):
                yield from part.parameters()
            elif part is not None:
                yield part


def drift(origin: Origin, resolution: Resolution, groups: Sequence[Mapping[str, Any]]) -> str:
    """How the model has changed under its optimizer, as a sentence with the way out; empty if it has not."""
    if origin.model() is None:
        return ""
    here = {id(p): p for p in origin.tensors()}
    held = {id(p) for group in groups for p in group["params"]}
    planned = {id(info.parameter): info.name for info in resolution.parameters}
    unowned = {id(info.parameter) for info in _frozen_by_hand(resolution)}
    free = {key for key, p in here.items() if p.requires_grad and key not in held}
    fresh = {key for key in free if key not in planned or key in unowned}
    stale = [planned[key] for key in held if key in planned and key not in here]
    if not fresh and not stale:
        return ""
    told = []
    if fresh:
        told.append(f"it trains {listed(_names(origin, fresh), 4)}, which no group holds")
    if stale:
        told.append(f"{listed(stale, 4)}, as the groups hold {'it' if len(stale) == 1 else 'them'}, is no longer in it")
    return (
        f"the model has changed since the plan was resolved: {'; '.join(told)}. Call optimizer.regroup(model=model): it "
        "walks the model again, and state follows by name"
    )


def _frozen_by_hand(resolution: Resolution) -> Iterator[ParameterInfo]:
    """Parameters that were frozen when the plan was resolved, and that it says nothing about."""
    for group in resolution.groups:
        if group.algorithm is None and group.timeline is None:
            yield from group.parameters


def _names(origin: Origin, tensors: set[int]) -> list[str]:
    return [info.name for info in origin.infos() if id(info.parameter) in tensors] or [f"{len(tensors)} tensors"]
