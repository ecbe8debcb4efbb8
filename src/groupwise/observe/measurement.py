"""What is taken of one step, on the device, in the order in which it can be seen.

Before the step: the weights, and the gradients before clipping (a closure makes them inside the step, a loop that clips
by itself shows them with `before_clip`). After it: the update, and what clipping did. With the gradients of the step
that follows: the other end of the path. Nothing here waits for an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias, final

import torch

from groupwise.observe.grouping import Grouping, GroupSnapshot
from groupwise.observe.programs import UNSCALED
from groupwise.observe.sample import sample
from groupwise.observe.scopes import factor_of
from groupwise.observe.sums import Sums
from groupwise.observe.tensors import entries, gathered, gradient_of, local, precision, replicas, squares
from groupwise.observe.update import Compared, Copy, compare, copied, inner, product

SPREAD: Final = 256
"""How many entries of a tensor are looked at for the spread of step sizes."""

Samples: TypeAlias = dict[int, torch.Tensor]
"""Samples of gradients, by the identity of their parameter."""

_ROWS: Final = {
    "gradients": ("gg", "nonfinite", "clip"),
    "weights": ("gg", "ww", "zeros", "nonfinite"),
    "cosines": ("aa", "ab", "bb"),
    "updates": ("ww", "dd", "gd", "ss", "moved", "low", "high"),
}
"""The rows that ranks which hold parts of tensors exchange, whatever each of them saw."""


@final
class Measurement:
    """What is taken of one step.

    Args:
        seen: the groups.
        due: the families that are due.
        world: the number of ranks over which tensors may be split.

    Attributes:
        sums: the rows of sums.
        known: for a row that is of some groups only, which.
        samples: of the gradients, for the step that follows.
        path: −Σ g·Δ of these gradients and the update before, [n] for its n groups.
    """

    def __init__(self, snapshot: GroupSnapshot, due: frozenset[str], world: int) -> None:
        self.snapshot, self.due = snapshot, due
        self.device = snapshot.params[0].device if snapshot.params else torch.device("cpu")
        self.sums = Sums(len(snapshot.names), self.device, exchanged=snapshot.sharded)
        self.sharded = snapshot.sharded
        self.samples: Samples = {}
        self.known: dict[str, frozenset[int]] = {}
        self.path: torch.Tensor | None = None
        self.has_gradients = False
        self._shares = [1 / replicas(p, world) for p in snapshot.params] if self.sharded else []
        self._copies: list[Copy] = []
        self._found: list[torch.Tensor | None] = []
        self._unscale: Any = UNSCALED
        self._world = world
        self._rates_of = snapshot.rates if "updates" in due else []

    def measure_weights(self, closure: bool) -> None:
        """Before the step: w²; for updates a copy of what has a gradient, or may get one in a closure."""
        if self.due & {"weights", "updates"} and self.snapshot.params:
            self._add("ww", range(len(self.snapshot.params)), squares([local(p) for p in self.snapshot.params]))
        if "updates" in self.due:
            moving = [(i, p) for i, p in enumerate(self.snapshot.params) if p.requires_grad]
            self._copies = [copied(p, i) for i, p in moving if closure or p.grad is not None]

    def measure_gradients(self, before: Samples, unscale: Any, clone: bool, sampled: bool) -> None:
        """The gradients, before clipping.

        Args:
            before: samples of the gradients of the update before.
            unscale: what the step multiplies gradients by before it uses them.
            clone: whether the step, or whoever clips before it, may write into them.
            sampled: whether the next update is to be compared with this one.
        """
        self._found, self._unscale = [gradient_of(p) for p in self.snapshot.params], unscale
        self.has_gradients = True
        where = [i for i, gradient in enumerate(self._found) if gradient is not None]
        held = [entries(gradient) for gradient in self._found if gradient is not None]
        if held and self.due & {"gradients", "weights"}:
            norms = squares(held)
            self._add("gg", where, norms if unscale is UNSCALED else norms * unscale**2)
            self._nonfinite(where, held, norms)
        if held and "weights" in self.due:
            self._add("zeros", where, self._zeros(where, held))
        self._cosines(where, before, sampled)
        for copy in self._copies:
            gradient = self._found[copy.place]
            copy.gradient = gradient.clone() if clone and gradient is not None else gradient

    def measure_clipped(self) -> None:
        """The gradients as the caller's own clipping left them."""
        where = [i for i, p in enumerate(self.snapshot.params) if p.grad is not None]
        found = [gradient_of(self.snapshot.params[i]) for i in where]
        if where and "gradients" in self.due:
            self._add("clipped", where, squares([entries(g) for g in found if g is not None]))

    def measure_first(self, params: Sequence[torch.Tensor], first: torch.Tensor) -> None:
        """Σ g² of the first micro-batch, [k] of k parameters."""
        places = {id(p): i for i, p in enumerate(self.snapshot.params)}
        if all(id(p) in places for p in params):
            self._add("first", [places[id(p)] for p in params], first)

    def measure_update(self, grouping: Grouping, measured: Any) -> None:
        """After the step: the update, and the factors that the optimizer says it clipped by."""
        if measured and "gradients" in self.due:
            factors = [factor_of(members, grouping, measured) for members in self.snapshot.members]
            self._whole("clip", {i: factor for i, factor in enumerate(factors) if factor is not None})
        if "updates" in self.due:
            self.sums.reserve(("dd", "gd", "ss", "moved"))
            if (compared := compare(self._copies)) is not None:
                self._compared(compared)
                self._spread()
        if self.sharded:
            self.sums.reserve(key for family, keys in _ROWS.items() if family in self.due for key in keys)

    def measure_path(self, before: Measurement) -> None:
        """With these gradients the path of the step before, by its groups, if it moved the same parameters."""
        here = {id(p): gradient for p, gradient in zip(self.snapshot.params, self._found, strict=True)}
        copies = before._copies
        if all(id(copy.param) in here for copy in copies):
            before.sums = Sums(len(before.snapshot.names), before.device, exchanged=before.sharded)
            found = product(copies, [here[id(copy.param)] for copy in copies])
            if found is not None:
                before._add("pd", found.places, found.products * self._unscale)
            self.path = before.sums.row("pd")

    def facts(self) -> list[dict[str, float]]:
        """What the host knows of each group."""
        if self._found and all(gradient is not None for gradient in self._found):
            return [{"missing": 0.0, "present": float(entries)} for entries in self.snapshot.entries]
        facts = [{"missing": 0.0, "present": 0.0} for _ in self.snapshot.names]
        gradients = self._found or [None] * len(self.snapshot.params)
        for group, size, gradient in zip(self.snapshot.index, self.snapshot.sizes, gradients, strict=True):
            facts[group]["missing" if gradient is None else "present"] += 1 if gradient is None else size
        return facts

    def release(self, path: bool) -> None:
        """Let go of gradients, and of the update unless its path is still to come."""
        self._found = []
        for copy in self._copies:
            copy.gradient = None
        if not path:
            self._copies = []

    def _add(self, key: str, places: Sequence[int], values: torch.Tensor) -> None:
        """Add [k] values that are of the parameters at these places; of what several ranks hold, a share."""
        if self._shares:
            values = values * torch.tensor([self._shares[i] for i in places]).to(values)
        index = self.snapshot.index
        self.sums.add(key, values, index if len(places) == len(index) else [index[i] for i in places])

    def _whole(self, key: str, values: dict[int, torch.Tensor]) -> None:
        """Values of whole groups, the same on every rank."""
        if values:
            share = 1 / self._world if self.sharded else 1.0
            self.sums.add(key, gathered(values.values()) * share, list(values))
            self.known[key] = frozenset(values)

    def _nonfinite(self, where: Sequence[int], held: Sequence[torch.Tensor], norms: torch.Tensor) -> None:
        """Counted where the norms, which a CPU can look at, show some; elsewhere with the weights."""
        on_host = self.device.type == "cpu"
        if math.isfinite(sum(norms.tolist())) if on_host else "weights" not in self.due:
            return
        self._add("nonfinite", where, gathered(t.numel() - torch.isfinite(t).sum() for t in held))

    def _zeros(self, where: Sequence[int], held: Sequence[torch.Tensor]) -> torch.Tensor:
        """The entries that are exactly 0; those that a sparse gradient leaves out are."""
        entries_of = torch.tensor([local(self.snapshot.params[i]).numel() for i in where])
        others = gathered(torch.count_nonzero(t.bool()) for t in held)  # twice as fast as of numbers
        return entries_of.to(others) - others

    def _cosines(self, where: Sequence[int], before: Samples, sampled: bool) -> None:
        """Of dense gradients: the entries of a sparse one are others each time."""
        due = "cosines" in self.due
        for i in where if sampled or (due and before) else ():
            gradient = self._found[i]
            if gradient is not None and gradient.layout == torch.strided and gradient.numel():
                self.samples[id(self.snapshot.params[i])] = sample(gradient)
        keys = {i: id(self.snapshot.params[i]) for i in where} if due else {}
        both = [(i, self.samples[key], before[key]) for i, key in keys.items() if key in self.samples and key in before]
        alike = [(i, a, b) for i, a, b in both if a.shape == b.shape]
        if alike:
            places = [i for i, _, _ in alike]
            self._add("aa", places, squares([a for _, a, _ in alike]))
            self._add("ab", places, gathered(inner(a, b) for _, a, b in alike))
            self._add("bb", places, squares([b for _, _, b in alike]))

    def _compared(self, compared: Compared) -> None:
        """Σ Δ², −Σ g·Δ, Σ (Δ / lr)², and the entries that have a learning rate."""
        places = [copy.place for copy in self._copies]
        rates, each = self._rates(places), self._rates(compared.places)
        entries_of = torch.tensor([copy.weights.numel() for copy in self._copies]).to(rates)
        shares = torch.tensor([self._shares[i] for i in places]).to(rates) if self._shares else 1.0
        self._add("dd", compared.places, compared.squares)
        self._add("gd", compared.places, compared.products * self._unscale)
        self._add("ss", compared.places, compared.squares * torch.where(each > 0, each.pow(-2), 0.0))
        self.sums.add("moved", entries_of * (rates > 0) * shares, [self.snapshot.index[i] for i in places])

    def _spread(self) -> None:
        """Percentiles of |Δ| / lr; where tensors are split, the mean of the ranks' own."""
        alike: dict[tuple[int, int, torch.device], tuple[Any, list[torch.Tensor]]] = {}
        for copy in self._copies:
            rate = self._rates_of[copy.place]
            if copy.weights.numel() and (isinstance(rate, torch.Tensor) or rate):
                key = self.snapshot.index[copy.place], id(rate), copy.weights.device
                alike.setdefault(key, (rate, []))[1].append(sample(copy.weights, SPREAD))
        found: dict[int, list[torch.Tensor]] = {}
        for (i, _, _), (rate, updates) in alike.items():
            found.setdefault(i, []).append((torch.cat(updates).abs_() / rate).to(self.device))
        quantiles = {i: _percentiles(torch.cat(steps)) for i, steps in found.items()}
        self._whole("low", {i: q[0] for i, q in quantiles.items()})
        self._whole("high", {i: q[1] for i, q in quantiles.items()})

    def _rates(self, places: Sequence[int]) -> torch.Tensor:
        rates = [0.0 if self._rates_of[i] is None else self._rates_of[i] for i in places]
        if any(isinstance(rate, torch.Tensor) for rate in rates):
            return gathered(torch.as_tensor(rate, device=self.device) for rate in rates)
        return torch.tensor(rates, dtype=precision(self.device), device=self.device)


def _percentiles(steps: torch.Tensor) -> torch.Tensor:
    """The 10th and the 90th: [2]."""
    ordered = steps.sort().values
    last = len(steps) - 1
    return torch.stack([ordered[round(0.1 * last)], ordered[round(0.9 * last)]])
