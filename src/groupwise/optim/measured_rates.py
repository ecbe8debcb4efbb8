"""A step under factors that are measured in it.

Whatever the class, its own step runs at the group's own rate. Where a factor is of the update, what the step subtracted
is then multiplied by it: with w before and w' after, the weights become w' + (1 - f) (w - w'), which is w' itself where
f is 1. For a class whose update is proportional to its rate (`measured_checks` tries that out) this is the step at f
times the rate, and who writes the rate (a schedule, torch's schedulers, a hand) need not know. LARS's ratio is of the
gradient: the class is given f (g + λ w) for it, and no decay.

It costs a copy of the weights, their norms and the norms of the updates: about what a step of Adam costs. Nothing waits
for the device. What a controller knows is kept in the state of each parameter, in float32, so it goes with the
parameter through checkpoints, loads and regroups; it is written after the class's step, which makes its own state where
there is none. The factor in force stands in the live group as `rate_factor`, a mean over tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from groupwise import _torch
from groupwise._shards import is_sharded, local, sharded_like
from groupwise.optim.gradients import Alike, values_of
from groupwise.optim.live import names_of
from groupwise.optim.measured_checks import check_steppable
from groupwise.optim.measured_formulas import corrected, denominator, trusted
from groupwise.optim.measured_shares import Shares, averaged_in
from groupwise.optim.probe import RATE_FACTOR
from groupwise.plan import GradientShare, MeasuredFactor, Resolution, ResolvedPart, TrustRatio, UpdateRatio
from groupwise.select import Part

State: TypeAlias = MutableMapping[Any, Any]
Groups: TypeAlias = Sequence[dict[str, Any]]

LOG: str = "update_ratio_log"
"""In the state of a parameter: the logarithm of its group's controller."""
_MANY = 64


@dataclass(frozen=True)
class Rate:
    """The measured factors of a planned group's rate, the rate's peak, and the parts of its parameters."""

    factors: tuple[MeasuredFactor, ...]
    peak: Any
    parts: Mapping[str, tuple[ResolvedPart, ...]]

    def of(self, kind: type[Any]) -> Any:
        """Its factor of a kind; None if it has none."""
        return next((factor for factor in self.factors if isinstance(factor, kind)), None)

    @property
    def of_gradient(self) -> TrustRatio | None:
        """LARS's ratio, if that is among them."""
        ratio: TrustRatio | None = self.of(TrustRatio)
        return ratio if ratio is not None and ratio.of == "gradient" else None

    @property
    def of_update(self) -> bool:
        """Whether any of them multiplies what the class's step has done."""
        return len(self.factors) > (self.of_gradient is not None)


@dataclass
class Rated:
    """A live group in a step, and those of its parameters that have a gradient. `pieces` are these, or in the place of
    one that is taken apart its matrices; `owners` says of each piece which parameter it is of, `rates` its rate where
    parts have rates of their own, `span` where the pieces lie among all."""

    group: dict[str, Any]
    rate: Rate
    names: list[str]
    params: list[torch.Tensor]
    pieces: list[Any]
    gradients: list[Any]
    owners: list[int]
    rates: list[Any]
    span: slice


class MeasuredRates:
    """The rates of a resolution that follow measurements."""

    def __init__(self, resolution: Resolution) -> None:
        self.rates: dict[str, Rate] = {}
        for group in resolution.groups:
            factors = [f for s in group.settings.values() for f in s.measured if isinstance(f, MeasuredFactor)]
            if factors and group.algorithm is not None:
                rate = next(setting for setting in group.settings.values() if setting.measured)
                self.rates[group.name] = Rate(tuple(factors), rate.peak, group.parts)
        self._alike: dict[tuple[str, ...], Alike] = {}
        self._shares = Shares({name: rate.of(GradientShare) for name, rate in self.rates.items()})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_alike": {}}

    def step(self, groups: Groups, everything: Groups, state: State, call: Callable[[], None]) -> None:
        """`call()`, which steps `groups`, at their rates times their factors.

        Args:
            groups: those that are stepped now.
            everything: the live groups of all networks, which gradient shares compare.
            state: the owner's.
            call: the step of the classes.

        Raises:
            OptimizerError: gradients or weights that cannot be measured so; nothing has been stepped then.
        """
        rated = self._rated(groups)
        if not rated:
            call()
            return
        weights = self._norms("weights", rated, [t for own in rated for t in own.pieces])
        gradients = self._gradients(rated)
        shares = self._shares.found(rated, everything, state, gradients)
        before = [t.clone() for own in rated if own.rate.of_update for t in map(local, own.pieces)]
        ratios = [_of_gradient(own, weights, gradients) for own in rated]
        with _in_place_of_gradients(rated, ratios):
            call()
        moved = self._moved(rated, before)
        for own, ratio in zip(rated, ratios, strict=True):
            found, factor = iter(()) if ratio is None else iter([ratio]), None
            if own.rate.of_update:
                factor = _factor(own, weights[own.span], moved[own.span], shares.of(own), state)
                _rescale(own, factor, before)
            _note(own.group, _product([*found, *([] if factor is None else [factor])]))
        shares.keep(state)

    def _rated(self, groups: Groups) -> list[Rated]:
        rated: list[Rated] = []
        end = 0
        for group in groups:
            rate = self.rates.get(group.get("name", ""))
            if rate is None or all(p.grad is None for p in group["params"]):
                continue
            check_steppable(group, rate.of_update, bool(rate.parts))
            held = [(n, p) for n, p in zip(names_of(group), group["params"], strict=True) if p.grad is not None]
            rated.append(_opened(group, rate, held, end))
            end = rated[-1].span.stop
        return rated

    def _norms(
        self, kind: str, rated: Sequence[Rated], tensors: Sequence[torch.Tensor], dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """The norms of whole tensors, [tensors]."""
        if torch.compiler.is_compiling():
            return Alike().norms_of(tensors, dtype)
        key = kind, *(str(own.group["name"]) for own in rated)
        if key not in self._alike:
            if len(self._alike) >= _MANY:
                self._alike.clear()
            self._alike[key] = Alike()
        return self._alike[key].norms_of(tensors, dtype)

    def _gradients(self, rated: Sequence[Rated]) -> torch.Tensor | None:
        """The norms of the gradients, [pieces], if any factor reads them."""
        if not any(own.rate.of_gradient or own.rate.of(GradientShare) for own in rated):
            return None
        gradients = [t for own in rated for t in own.gradients]
        dtype = averaged_in(gradients[0].device) if any(own.rate.of(GradientShare) for own in rated) else None
        return self._norms("gradients", rated, gradients, dtype)

    def _moved(self, rated: Sequence[Rated], before: list[torch.Tensor]) -> torch.Tensor:
        """The norms of the updates, [pieces]; `before` becomes what was subtracted."""
        pieces = [t for own in rated if own.rate.of_update for t in own.pieces]
        if not pieces:
            return torch.empty(0)
        _torch.subtract(before, [local(t) for t in pieces])
        wrapped = [sharded_like(e, t) if is_sharded(t) else e for e, t in zip(before, pieces, strict=True)]
        norms = self._norms("updates", [own for own in rated if own.rate.of_update], wrapped)
        spread, start = list[torch.Tensor](), 0
        for own in rated:  # groups without an update to rescale keep their places
            size = len(own.pieces)
            spread.append(norms[start : start + size] if own.rate.of_update else norms.new_zeros(size))
            start += size if own.rate.of_update else 0
        return torch.cat(spread)


def measured_rates(resolution: Resolution) -> MeasuredRates | None:
    """The rates of a resolution that follow measurements; None where there are none."""
    found = MeasuredRates(resolution)
    return found if found.rates else None


def _opened(group: dict[str, Any], rate: Rate, held: Sequence[tuple[str, torch.Tensor]], start: int) -> Rated:
    """A group as it is about to be stepped."""
    params, lr, rates = [p for _, p in held], group["lr"], list[Any]()
    own = Rated(group, rate, [name for name, _ in held], params, [], [], [], [], slice(start, start))
    gradients = [*map(values_of, params)]
    for i, (name, p, gradient) in enumerate(zip(own.names, params, gradients, strict=True)):
        for resolved in rate.parts.get(name) or (None,):
            cuts = [(p, gradient)] if resolved is None else _matrices(resolved.part, p.detach(), gradient)
            factor = None if resolved is None else resolved.factors.get("lr")
            own.pieces += [weight for weight, _ in cuts]
            own.gradients += [cut for _, cut in cuts]
            own.owners += [i] * len(cuts)
            rates += [lr if factor is None else factor.of(lr)] * len(cuts)
            own.rates = rates if factor is not None else own.rates
    own.span = slice(start, start + len(own.pieces))
    return own


def _matrices(part: Part, weight: torch.Tensor, gradient: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The matrices of a part, of the weight and of the gradient, as views."""
    cuts = [(part.of(weight), part.of(gradient))]
    for _ in range(weight.ndim - 2 if part.stack else 0):
        cuts = [pair for a, b in cuts for pair in zip(a.unbind(0), b.unbind(0), strict=True)]
    return cuts


def _of_gradient(own: Rated, weights: torch.Tensor, gradients: torch.Tensor | None) -> torch.Tensor | None:
    """LARS's ratio of each tensor, or of the group."""
    factor = own.rate.of_gradient
    if factor is None or gradients is None:
        return None
    held = weights[own.span]
    return trusted(
        factor, held, denominator(factor, held, gradients[own.span].to(held.dtype), own.group.get("weight_decay", 0.0))
    )


@contextmanager
def _in_place_of_gradients(rated: Sequence[Rated], ratios: Sequence[torch.Tensor | None]) -> Iterator[None]:
    """Inside, the gradients of groups with a ratio are f (g + λ w), and their decay is 0."""
    kept: list[tuple[torch.Tensor, Any]] = []
    decays: list[tuple[dict[str, Any], Any]] = []
    try:
        for own, ratio in zip(rated, ratios, strict=True):
            if ratio is None:
                continue
            decay = own.group.get("weight_decay", 0.0)
            for p, gradient, f in zip(own.params, own.gradients, ratio.expand(len(own.params)).unbind(), strict=True):
                scaled = (local(gradient) + decay * local(p)).mul_(f)
                kept.append((p, p.grad))
                p.grad = sharded_like(scaled, p) if is_sharded(p) else scaled
            if "weight_decay" in own.group:
                decays.append((own.group, decay))
                own.group["weight_decay"] = 0.0
        yield
    finally:
        for p, gradient in kept:
            p.grad = gradient
        for group, decay in decays:
            group["weight_decay"] = decay


def _factor(
    own: Rated, weights: torch.Tensor, moved: torch.Tensor, share: torch.Tensor | None, state: State
) -> torch.Tensor:
    """What the update is multiplied by: [pieces], or one number. The controller takes a step."""
    factors = [] if share is None else [share]
    ratio: TrustRatio | None = own.rate.of(TrustRatio)
    if ratio is not None and ratio.of == "update":
        rate = own.group["lr"]
        if own.rates:
            rate = torch.stack([torch.as_tensor(each, dtype=moved.dtype, device=moved.device) for each in own.rates])
        factors.append(trusted(ratio, weights * rate, moved))
    factor = _product(factors)
    controller: UpdateRatio | None = own.rate.of(UpdateRatio)
    if controller is None:
        return factor
    log = _log_of(own, state, moved.device)
    factor = factor.to(moved.device) * torch.exp(log)
    lr, peak = own.group["lr"], own.rate.peak
    ratio_now = torch.linalg.vector_norm(moved * factor) / torch.linalg.vector_norm(weights)
    if isinstance(lr, torch.Tensor) or lr != 0:
        log = corrected(controller, log, (ratio_now * (peak / lr)).float())
    _keep_log(own, state, log)
    return factor


def _log_of(own: Rated, state: State, device: torch.device) -> torch.Tensor:
    """The controller of a group: where groups have come together, the one of the lowest rate; 0 for a new one."""
    held = [t for p in own.group["params"] if (t := (state.get(p) or {}).get(LOG)) is not None]
    if not held:
        return torch.zeros((), device=device)
    logs = [t.to(device, torch.float32) for t in held]
    return logs[0] if len(logs) == 1 else torch.stack(logs).amin()


def _keep_log(own: Rated, state: State, log: torch.Tensor) -> None:
    """Write the controller to all that were stepped, and where it stands already: else one whose gradient comes now and
    then would bring back what was true at its last step."""
    stepped = {id(p) for p in own.params}
    for p in own.group["params"]:
        if id(p) not in stepped and LOG not in (state.get(p) or {}):
            continue
        held = state.setdefault(p, {})
        if LOG in held and held[LOG].dtype == log.dtype and held[LOG].device == log.device:
            held[LOG].copy_(log)
        else:
            held[LOG] = log.clone()


def _rescale(own: Rated, factor: torch.Tensor, before: list[torch.Tensor]) -> None:
    """Multiply what was subtracted, the first of `before`, and drop it."""
    subtracted = before[: len(own.pieces)]
    del before[: len(own.pieces)]
    for t, e, rest in zip(
        map(local, own.pieces), subtracted, (1 - factor).expand(len(subtracted)).unbind(), strict=True
    ):
        t.detach().addcmul_(e, rest.to(t.device, t.dtype))


def _product(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    product = torch.ones(()) if not factors else factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product


def _note(group: dict[str, Any], factor: torch.Tensor) -> None:
    """Say in the live group what was in force."""
    mean, held = factor.mean(), group.get(RATE_FACTOR)
    if isinstance(held, torch.Tensor) and held.device == mean.device:
        held.copy_(mean)
    else:
        group[RATE_FACTOR] = mean.float()
