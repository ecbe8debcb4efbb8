"""What layers put out: its size, and the units that never fire.

A unit is a feature (the last dimension) or a channel (dimension 1 of a convolution's output). It is dead on a batch if
it is exactly 0 for every sample and place there, after what follows the layer: a module without parameters and children
(`nn.ReLU`), or else whatever the next layer receives, if that has as many units, so `F.relu` is seen as well. A unit
that lives half of the time is 0 on n entries in one of 2^n draws; so batches count together until there are `ENTRIES`
of a unit (a batch of one sample says nothing of its units by itself), and what was seen of fewer is not told.

Forward hooks look at the first forward of each layer in an update that is due, while it trains. They reduce at once to
two numbers a layer and keep no activation: one reduction of what a layer puts out, two operations on what it is given
and on what a module without parameters puts out. An update that is not due costs one look at a flag for each of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import nn

from groupwise.observe.layers import Model, layers_in

ENTRIES: Final = 32
"""How many entries of a unit have to be 0 for it to count as dead."""


@final
@dataclass
class Activation:
    """One layer's output on one batch.

    Attributes:
        norm: its norm, 0-dim, on its device.
        entries: how many entries it has.
        axis: the dimension of its units.
        units: how many units it has.
        alive: which of them are not exactly 0 throughout, [units]; None until what follows is seen.
        dead: how many of them are exactly 0 throughout, 0-dim; None as long as too few entries were seen.
    """

    norm: torch.Tensor
    entries: int
    axis: int
    units: int
    alive: torch.Tensor | None = None
    dead: torch.Tensor | None = None


@final
class Activations:
    """Looks at the layers of a model, or of networks by name; keeps neither alive.

    Attributes:
        active: whether the next forward is looked at.
    """

    def __init__(self, model: Model) -> None:
        self.active = False
        self._found: dict[str, Activation] = {}
        self._open: Activation | None = None
        self._alive: dict[str, tuple[int, torch.Tensor]] = {}
        self._names: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._handles: list[Any] = []
        for name, module in layers_in(model):
            self._names[module] = name
            if name:
                self._handles.append(module.register_forward_pre_hook(_Hook(weakref.ref(self), "before")))
            self._handles.append(module.register_forward_hook(_Hook(weakref.ref(self), "after")))

    def take(self) -> Mapping[str, Activation]:
        """What was seen since the last call, by layer."""
        found, self._found, self._open = self._found, {}, None
        for name, each in found.items():
            if each.alive is not None:
                each.dead = self._dead(name, each.alive, each.entries // each.units)
        return found

    def close(self) -> None:
        """Look no more."""
        self.active = False
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before(self, module: nn.Module, given: Any) -> None:
        """A layer is about to see its input: what the layer before it, and a function after that, put out."""
        if isinstance(given, tuple) and given and isinstance(given[0], torch.Tensor):
            self._count(given[0])
        self._open = None

    def after(self, module: nn.Module, given: Any, out: Any) -> None:
        """A layer, or a module without parameters after it, has run."""
        name = self._names[module]
        out = out[0] if isinstance(out, tuple) and out else out
        if not isinstance(out, torch.Tensor) or not out.is_floating_point() or not out.numel() or not out.ndim:
            return
        if not name:
            self._count(out)
        elif name not in self._found:
            axis = _axis(module, out)
            norm = torch.linalg.vector_norm(out.detach(), dtype=_wide(out))
            self._found[name] = self._open = Activation(norm, out.numel(), axis, out.shape[axis])

    def looks_at(self, module: nn.Module) -> bool:
        """Whether a module is looked at now; a copy of one that is has the hooks, and is not."""
        return self.active and module.training and torch.is_grad_enabled() and module in self._names

    def _count(self, out: torch.Tensor) -> None:
        """Count the units that are 0 throughout in what follows the last layer."""
        layer_state = self._open
        if layer_state is None or out.ndim <= layer_state.axis or out.shape[layer_state.axis] != layer_state.units:
            return
        others = [axis for axis in range(out.ndim) if axis != layer_state.axis]
        largest = torch.linalg.vector_norm(out.detach(), float("inf"), dim=others) if others else out.detach().abs()
        layer_state.alive = largest != 0

    def _dead(self, layer: str, alive: torch.Tensor, entries: int) -> torch.Tensor | None:
        """How many units are 0 on this batch, and on those before it that make up the number of entries."""
        if entries < ENTRIES:
            before = self._alive.get(layer)
            if before is not None and before[1].shape == alive.shape:
                entries, alive = entries + before[0], alive | before[1]
            if entries < ENTRIES:
                self._alive[layer] = entries, alive
                return None
            self._alive.pop(layer, None)
        return alive.numel() - torch.count_nonzero(alive)


@final
class _Hook:
    """A forward hook that keeps nobody alive; a copy or a pickle of its model has one that does nothing."""

    def __init__(self, owner: Callable[[], Activations | None], what: str) -> None:
        self._owner, self._what = owner, what

    def __call__(self, module: nn.Module, *args: Any) -> None:
        owner = self._owner()
        if owner is not None and owner.looks_at(module):
            getattr(owner, self._what)(module, *args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (_nobody, self._what)


def _nobody() -> None:
    return None


def _axis(module: nn.Module, out: torch.Tensor) -> int:
    """The dimension of a layer's units: the last, or that of channels."""
    weight, last = getattr(module, "weight", None), out.ndim - 1
    if not isinstance(weight, torch.Tensor) or out.ndim < 2:
        return last
    channels = weight.ndim == 1 and out.shape[1] == weight.numel() != out.shape[last]
    return 1 if weight.ndim > 2 or channels else last


def _wide(out: torch.Tensor) -> torch.dtype | None:
    return torch.float32 if out.dtype in (torch.float16, torch.bfloat16) else None
