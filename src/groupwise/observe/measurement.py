"""What is measured of one step, on the device, in the order in which it can be seen.

Before the step: the weights, and the gradients before clipping (a closure makes them inside the step, a loop that clips
by itself shows them with `before_clip`). After it: the update, and what clipping did. With the gradients of the step
that follows: the other end of the path. Nothing here waits for an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, Final, final

import torch

from groupwise._shards import local
from groupwise.observe.activations import Activation
from groupwise.observe.grouping import Grouping, GroupSnapshot
from groupwise.observe.programs import UNSCALED
from groupwise.observe.sample import Samples, common, sample, sampled
from groupwise.observe.scopes import factor_of
from groupwise.observe.sums import Sums
from groupwise.observe.tensors import entries, gathered, gradient_of, gradients_of, norms_of, precision, replicas
from groupwise.observe.update import Compared, Copy, compare, copied, product

SPREAD: Final = 256
"""How many entries of a tensor are looked at for the spread of step sizes."""

_ROWS: Final = {
    "gradients": ("gg", "nonfinite", "clip"),
    "weights": ("gg", "ww", "zeros", "nonfinite"),
    "cosines": ("aa", "ab", "bb"),
    "updates": ("ww", "dd", "gd", "ss", "moved", "low", "high"),
}
"""The rows that ranks which hold parts of tensors exchange, whatever each of them saw."""


@final
class Measurement:
    """What is measured of one step.

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
        self.samples: Samples | None = None
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
            norms = norms_of([local(p).detach() for p in self.snapshot.params])
            self._add("ww", range(len(self.snapshot.params)), norms, root=True)
        if "updates" in self.due:
            moving = [(i, p) for i, p in enumerate(self.snapshot.params) if p.requires_grad]
            self._copies = [copied(p, i) for i, p in moving if closure or p.grad is not None]

    def measure_gradients(self, before: Samples | None, unscale: Any, clone: bool, keep: bool) -> None:
        """The gradients, before clipping.

        Args:
            before: samples of the gradients of the update before.
            unscale: what the step multiplies gradients by before it uses them.
            clone: whether the step, or whoever clips before it, may write into them.
            keep: whether the next update is to be compared with this one.
        """
        self._found, self._unscale = gradients_of(self.snapshot.params), unscale
        self.has_gradients = True
        where, held = _held(self._found)
        if held and self.due & {"gradients", "weights"}:
            norms = norms_of(held)
            known = self._add("gg", where, norms if unscale is UNSCALED else norms * unscale, root=True)
            self._nonfinite(where, held, known)
        if held and "weights" in self.due:
            self._add("zeros", where, self._zeros(where, held))
        self._cosines(where, before, keep)
        for copy in self._copies:
            gradient = self._found[copy.place]
            copy.gradient = gradient.clone() if clone and gradient is not None else gradient

    def measure_activations(self, found: Mapping[str, Activation]) -> None:
        """What layers put out, by the names of the groups."""
        places = {name: i for i, name in enumerate(self.snapshot.names) if name in found}
        if not places or "weights" not in self.due:
            return
        layers = [(i, found[name]) for name, i in places.items()]
        self.sums.add("as", gathered(each.norm for _, each in layers), [i for i, _ in layers], root=True)
        self._counted("an", {i: float(each.entries) for i, each in layers})
        counted = [(i, each) for i, each in layers if each.dead is not None]
        if counted:
            dead = gathered(each.dead for _, each in counted if each.dead is not None)
            self.sums.add("du", dead, [i for i, _ in counted])
            self._counted("dn", {i: float(each.units) for i, each in counted})
            self.known["du"] = frozenset(i for i, _ in counted)
        self.known["as"] = frozenset(i for i, _ in layers)

    def _counted(self, key: str, values: dict[int, float]) -> None:
        self.sums.add_known(key, list(values.values()), list(values))
        self.known[key] = frozenset(values)

    def measure_clipped(self) -> None:
        """The gradients as the caller's own clipping left them."""
        where = [i for i, p in enumerate(self.snapshot.params) if p.grad is not None]
        found = [gradient_of(self.snapshot.params[i]) for i in where]
        if where and "gradients" in self.due:
            self._add("clipped", where, norms_of([entries(g) for g in found if g is not None]), root=True)

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
        """Let go of gradients, and of parameters and the update unless its path is still to come."""
        self._found = []
        for copy in self._copies:
            copy.gradient = None
        if not path:
            self._copies, self._rates_of, self.snapshot = [], [], self.snapshot.names_only

    def _add(self, key: str, places: Sequence[int], values: torch.Tensor, root: bool = False) -> list[float] | None:
        """Add [k] values that are of the parameters at these places; of what several ranks hold, a share."""
        if self._shares:
            shares = torch.tensor([self._shares[i] for i in places])
            wide = values.to(precision(values.device))
            values, root = (wide.square() if root else wide) * shares.to(wide), False
        index = self.snapshot.index
        return self.sums.add(key, values, index if len(places) == len(index) else [index[i] for i in places], root=root)

    def _whole(self, key: str, values: dict[int, torch.Tensor]) -> None:
        """Values of whole groups, the same on every rank."""
        if values:
            share = 1 / self._world if self.sharded else 1.0
            self.sums.add(key, gathered(values.values()) * share, list(values))
            self.known[key] = frozenset(values)

    def _nonfinite(self, where: Sequence[int], held: Sequence[torch.Tensor], norms: list[float] | None) -> None:
        """Counted where the norms, where they are at hand, show some; elsewhere with the weights."""
        if math.isfinite(sum(norms)) if norms is not None else "weights" not in self.due:
            return
        self._add("nonfinite", where, gathered(t.numel() - torch.isfinite(t).sum() for t in held))

    def _zeros(self, where: Sequence[int], held: Sequence[torch.Tensor]) -> torch.Tensor:
        """The entries that are exactly 0; those that a sparse gradient leaves out are."""
        entries_of = torch.tensor([local(self.snapshot.params[i]).numel() for i in where])
        others = gathered(torch.count_nonzero(t.bool()) for t in held)  # twice as fast as of numbers
        return entries_of.to(others) - others

    def _cosines(self, where: Sequence[int], before: Samples | None, keep: bool) -> None:
        """Of dense gradients: the entries of a sparse one are others each time."""
        due = "cosines" in self.due and before is not None
        if not (keep or due):
            return
        held = [(self.snapshot.params[i], g) for i in where if (g := self._found[i]) is not None]
        self.samples = sampled([p for p, _ in held], [g for _, g in held])
        both = common(self.samples, before) if due and before is not None and self.samples is not None else None
        if both is not None:
            now, then = both
            for key, a, b in (("aa", now, now), ("ab", now, then), ("bb", then, then)):
                self._products(key, a, b)

    def _products(self, key: str, a: Samples, b: Samples) -> None:
        """Add Σ a·b: by group, or by parameter where these count for a share."""
        place_of = {id(p): i for i, p in enumerate(self.snapshot.params)}
        ends = list(accumulate(a.sizes))
        spans = [(place_of[k], end - size, end) for k, size, end in zip(a.keys, a.sizes, ends, strict=True)]
        if self._shares:
            dots = [torch.dot(a.entries[begin:end], b.entries[begin:end]) for _, begin, end in spans]
            self._add(key, [place for place, _, _ in spans], gathered(dots))
            return
        groups = [(i, list(part)) for i, part in groupby(spans, key=lambda span: self.snapshot.index[span[0]])]
        dots = [
            torch.dot(a.entries[part[0][1] : part[-1][2]], b.entries[part[0][1] : part[-1][2]]) for _, part in groups
        ]
        self.sums.add(key, gathered(dots), [i for i, _ in groups])

    def _compared(self, compared: Compared) -> None:
        """Σ Δ², −Σ g·Δ, Σ (Δ / lr)², and the entries that have a learning rate."""
        unscaled = self._unscale is UNSCALED
        norms = self._add("dd", compared.places, compared.norms, root=True)
        self._add("gd", compared.places, compared.products if unscaled else compared.products * self._unscale)
        index, places = self.snapshot.index, [copy.place for copy in self._copies]
        if norms is not None:
            rates = {i: float(self._rates_of[i] or 0.0) for i in places}
            steps = [
                (norm / rates[i]) ** 2 if rates[i] > 0 else 0.0 for i, norm in zip(compared.places, norms, strict=True)
            ]
            self.sums.add_known("ss", steps, [index[i] for i in compared.places])
            moved = [float(copy.weights.numel() * (rates[copy.place] > 0)) for copy in self._copies]
            self.sums.add_known("moved", moved, [index[i] for i in places])
            return
        each, rates_of = self._rates(compared.places), self._rates(places)
        self._add("ss", compared.places, compared.norms.to(each).square() * torch.where(each > 0, each.pow(-2), 0.0))
        entries_of = torch.tensor([copy.weights.numel() for copy in self._copies]).to(rates_of)
        self._add("moved", places, entries_of * (rates_of > 0))

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


def _held(gradients: Sequence[torch.Tensor | None]) -> tuple[Sequence[int], list[torch.Tensor]]:
    """The places that have a gradient, and the entries of each."""
    held = [entries(gradient) for gradient in gradients if gradient is not None]
    if len(held) == len(gradients):
        return range(len(held)), held
    return [i for i, gradient in enumerate(gradients) if gradient is not None], held


def _percentiles(steps: torch.Tensor) -> torch.Tensor:
    """The 10th and the 90th: [2]."""
    ordered = steps.sort().values
    last = len(steps) - 1
    return torch.stack([ordered[round(0.1 * last)], ordered[round(0.9 * last)]])
