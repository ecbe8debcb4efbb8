"""The model that an optimizer was built from, remembered without keeping it alive.

Whoever replaces a head or adds an adapter changes the model and not the optimizer, and nothing fails: the old tensors
lie idle in their groups, the new ones keep their initial values. The optimizer can see that, as long as the model is
there, by three signs, each of which is certain: a tensor that the plan was resolved on still stands in its group and is
no longer the model's; a trainable tensor of the model has never been in a group or in the plan; and a tensor goes by
another name than it did (layers that were swapped or wrapped), so that a checkpoint would take its state for another's.
Tensors that a trainer has put into the groups or taken out of them (shards, master copies) are no sign.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from groupwise._wrappers import without_wrappers
from groupwise.errors import SelectorError, listed
from groupwise.optim.contents import Contents
from groupwise.plan import Resolution
from groupwise.select import ParameterInfo, parameters_of


class Origin:
    """What a plan was resolved on: the module, or the named modules and parameters, and each tensor.

    Modules are referred to weakly. Tensors are not, since `torch.utils.swap_tensors`, which `Module.to` may use,
    refuses one that has a weak reference: `let_go` forgets those that nobody needs any more.

    Args:
        model: what the optimizer was built from; what is neither module nor parameter (infos of a walk) is not known.
        parameters: what a walk of it found.
    """

    def __init__(self, model: object, parameters: Iterable[ParameterInfo] = ()) -> None:
        parts: dict[str, Any] = dict(model) if isinstance(model, Mapping) else {"": model}
        sound = all(isinstance(part, torch.nn.Module | torch.Tensor) for part in parts.values())
        self._parts = {name: _reference(part) for name, part in parts.items()} if sound else {}
        self._known = {id(i.parameter): (i.parameter, i.name) for i in parameters} if sound else {}
        self.said: set[str] = set()
        self._sound: tuple[Sequence[int], Contents] | None = None

    def name_of(self, p: torch.Tensor) -> str:
        """The name of a tensor that the plan was resolved on; empty for any other."""
        known, name = self._known.get(id(p), (None, ""))
        return str(name) if known is p else ""

    def is_as_it_was(self, held: Sequence[int]) -> bool:
        """Whether nothing has changed since `keep`, in the model or among the tensors that are `held`, by identity."""
        return self._sound is not None and self._sound[0] == held and self._sound[1].are_those_of(self._modules())

    def keep(self, held: Sequence[int]) -> None:
        """Remember that the model and the tensors that are `held` fit each other as they are now."""
        self._sound = held, Contents(self._modules())

    def let_go(self, groups: Sequence[Mapping[str, Any]]) -> set[str]:
        """Forget the tensors that neither a group nor the model holds any more; return their names."""
        if self.model() is None:
            return set()
        needed = {id(p) for p in self.tensors()} | {id(p) for group in groups for p in group["params"]}
        gone = {name for key, (_, name) in self._known.items() if key not in needed}
        self._known = {key: known for key, known in self._known.items() if key in needed}
        return gone

    def is_gone(self, p: torch.Tensor) -> bool:
        """Whether a tensor that the plan was resolved on is certain not to be the model's any more."""
        known = self.model() is not None and bool(self.name_of(p))
        return known and all(p is not other for other in self.tensors())

    def model(self) -> Any:
        """The module or the mapping again; None once any part of it is gone, or if it was never known."""
        parts = {name: part() for name, part in self._parts.items()}
        if not parts or any(part is None for part in parts.values()):
            return None
        return parts.get("", parts)

    def infos(self) -> tuple[ParameterInfo, ...]:
        """The model's parameters as they are now; none if it is gone or cannot be walked."""
        model = self.model()
        if model is None:
            return ()
        try:
            return parameters_of(model)
        except SelectorError:
            return ()

    def named(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The model's names for its parameters now, several for a tied one."""
        for key, part in ((key, part()) for key, part in self._parts.items()):
            if isinstance(part, torch.nn.Module):
                for name, p in part.named_parameters(remove_duplicate=False):
                    yield (f"{key}.{name}" if key else name), p
            elif part is not None:
                yield key, part

    def tensors(self) -> Iterator[torch.Tensor]:
        """The model's parameters, without their names, which take longer."""
        for part in (part() for part in self._parts.values()):
            if isinstance(part, torch.nn.Module):
                yield from part.parameters()
            elif part is not None:
                yield part

    def _modules(self) -> list[torch.nn.Module]:
        return [part for part in (part() for part in self._parts.values()) if isinstance(part, torch.nn.Module)]


def _reference(part: torch.nn.Module | torch.Tensor) -> Callable[[], Any]:
    """A module weakly; a lone parameter as it is, since the groups hold it anyway."""
    return weakref.ref(part) if isinstance(part, torch.nn.Module) else lambda: part


@dataclass(frozen=True)
class Drift:
    """How a model has changed under its optimizer, by name.

    `unowned` are trainable parameters that no group holds, `stale` are held and no longer the model's, `renamed` are
    held and go by another name now.
    """

    unowned: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A sentence with the way out; empty if nothing has changed."""
        changes = []
        if self.unowned:
            changes.append(f"it has trainable parameters that no group holds ({listed(self.unowned, 4)})")
        if self.stale:
            changes.append(f"the groups hold tensors that it no longer has ({listed(self.stale, 4)})")
        if self.renamed:
            changes.append(
                f"parameters that the groups hold go by other names now ({listed(self.renamed, 4)}), so a checkpoint "
                "would take their state for others'"
            )
        if not changes:
            return ""
        return (
            f"the model has changed since the plan was resolved: {', and '.join(changes)}. Call "
            "optimizer.regroup(model=model): it walks the model again, and state follows by name"
        )


def drift(origin: Origin, resolution: Resolution, groups: Sequence[Mapping[str, Any]]) -> Drift:
    """How the model has changed under its optimizer; nothing if it is not known any more."""
    if origin.model() is None:
        return Drift()
    ids = [*map(id, chain.from_iterable([group["params"] for group in groups]))]
    if origin.is_as_it_was(ids):
        return Drift()
    named = list(origin.named())
    here = {id(p): p for _, p in named}
    held = {id(p): p for group in groups for p in group["params"]}
    unfrozen = {id(info.parameter) for info in _frozen_by_hand(resolution)}
    free = {key: p for key, p in here.items() if p.requires_grad and key not in held}
    unowned = {key for key, p in free.items() if not origin.name_of(p) or key in unfrozen}
    stale = tuple(origin.name_of(p) for key, p in held.items() if key not in here and origin.name_of(p))
    found = Drift(tuple(_names(origin, unowned)), stale, tuple(_renamed(origin, held.values(), named)))
    if found == Drift() and here.keys() <= held.keys():
        origin.keep(ids)
    return found


def _renamed(origin: Origin, held: Iterable[torch.Tensor], named: Sequence[tuple[str, torch.Tensor]]) -> Iterator[str]:
    """`old (now new)` of each tensor that the model calls otherwise than it did; `named` are all of its names now."""
    same = {id(p) for name, p in named if origin.name_of(p) == name}
    strange = [(p, before) for p in held if id(p) not in same and (before := origin.name_of(p))]
    now: dict[int, set[str]] = defaultdict(set)
    for name, p in named if strange else ():
        now[id(p)].add(without_wrappers(name))
    for p, before in strange:
        names = now.get(id(p))
        if names and without_wrappers(before) not in names:
            yield f"{before} (now {min(names)})"


def _frozen_by_hand(resolution: Resolution) -> Iterator[ParameterInfo]:
    """Parameters that were frozen when the plan was resolved, and that it says nothing about."""
    for group in resolution.groups:
        if group.algorithm is None and group.timeline is None:
            yield from group.parameters


def _names(origin: Origin, tensors: set[int]) -> list[str]:
    if not tensors:
        return []
    return [info.name for info in origin.infos() if id(info.parameter) in tensors] or [f"{len(tensors)} tensors"]
