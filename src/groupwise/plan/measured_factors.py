"""Factors of measurement: how a learning rate follows what is measured while training.

With w the weights, g the gradient as the step gets it (reduced, unscaled, clipped) and u the update of the group's own
class at a rate of 1, so that lr · u is what it subtracts:

    trust_ratio(c)               c |w| / |u|                       of the update, as LAMB (You et al. 2020, algorithm 2)
    trust_ratio(c, of="gradient")   c |w| / (|g| + λ |w|)          of g + λ w before momentum, as LARS (You et al. 2017)
    update_ratio(t)              what holds |lr · u| / |w| at t    a controller, slow and bounded
    gradient_share(p)            (|g| / mean of |g|)^p             of layers or networks, smoothed and bounded

Such a factor is a value of the plan like any other and multiplies as any other does; but what it comes to is known in
the step alone, where it is evaluated. The rate that stands in a group, in a table and in a schedule is the one without
it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias, get_args

from groupwise._pickling import Public, Reduced
from groupwise._spelling import number, number_from_text, shown
from groupwise.errors import PlanError, ResolutionError, unknown
from groupwise.plan.declarations import Factor, Multiplier, finite
from groupwise.select import ParameterInfo

TrustOf: TypeAlias = Literal["update", "gradient"]
TrustPer: TypeAlias = Literal["parameter", "group"]
SharePer: TypeAlias = Literal["module", "parameter", "group", "network"]


@dataclass(frozen=True)
class MeasuredFactor(Factor):
    """A factor that is evaluated in the step; its first field is what it is mostly about."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """The function that makes it, which is its key in a file."""

    def multiplier(self, info: ParameterInfo, below_top: int, levels: int = 1) -> Multiplier:
        """One, as long as nothing is measured, and itself for the step."""
        return Multiplier(1.0, str(self), measured=self)

    def arguments(self) -> dict[str, Any]:
        """Its arguments: the first always, the others where they are not the default."""
        first, *others = fields(self)
        given = {each.name: getattr(self, each.name) for each in others}
        defaults = {each.name: each.default for each in others}
        return {first.name: getattr(self, first.name)} | {k: v for k, v in given.items() if v != defaults[k]}

    def __str__(self) -> str:
        (_, first), *options = self.arguments().items()
        texts = [f"{name}={_text(value)}" for name, value in options]
        return f"{self.kind}({', '.join([_text(first), *texts])})"

    def __reduce__(self) -> Reduced:
        (_, first), *options = self.arguments().items()
        return Public(f"groupwise.plan:{self.kind}", dict(options)), (first,)


@dataclass(frozen=True)
class TrustRatio(MeasuredFactor):
    """c |w| / |u|, or LARS's c |w| / (|g| + λ |w|)."""

    coefficient: float
    of: TrustOf = "update"
    per: TrustPer = "parameter"
    low: float = 0.0
    high: float | None = None

    @property
    def kind(self) -> str:
        """Its function."""
        return "trust_ratio"


@dataclass(frozen=True)
class UpdateRatio(MeasuredFactor):
    """What holds |update| / |weights| of a group near a target."""

    target: float
    speed: float = 0.01
    low: float = 0.1
    high: float = 10.0

    @property
    def kind(self) -> str:
        """Its function."""
        return "update_ratio"


@dataclass(frozen=True)
class GradientShare(MeasuredFactor):
    """(|g| / mean of |g|)^power over layers or networks."""

    power: float
    per: SharePer = "module"
    smoothing: float = 0.99
    low: float = 0.1
    high: float = 10.0

    @property
    def kind(self) -> str:
        """Its function."""
        return "gradient_share"


def trust_ratio(
    coefficient: float = 1.0,
    *,
    of: TrustOf = "update",
    per: TrustPer = "parameter",
    low: float = 0.0,
    high: float | None = None,
) -> Factor:
    """The ratio of LARS and LAMB as a factor on the rate of any class whose update is proportional to its rate.

    With `of="update"` a step moves each tensor by lr · coefficient · |w|, whatever the class makes of the gradient:
    AdamW with `trust_ratio()` is LAMB (You et al. 2020, arXiv:1904.00962, with φ the identity). With `of="gradient"`
    what the class gets is the gradient with its decay, times coefficient |w| / (|g| + λ|w|): SGD with momentum and
    `trust_ratio(0.001, of="gradient")` is LARS (You et al. 2017, arXiv:1708.03888). Where a norm is 0 the ratio is 1,
    as they have it.

    Args:
        coefficient: a number above 0; LARS has 0.001, LAMB 1.
        of: the norm of what the weights are compared with.
        per: each tensor (a part of one that the plan takes apart) by itself, or the norms of all of a group.
        low, high: bounds of the ratio; without `high` there is none. timm's `trust_clip` of LAMB is `high=1`.

    Raises:
        PlanError: a value out of bounds. When it meets a class, `ResolutionError` where its update is not proportional
            to the rate (Rprop, ASGD), or with `of="gradient"` to the gradient (Adam, Muon).

    Example:
        Weights of norm 2, a gradient of norm 0.5, SGD at lr=0.1 without decay: the update has norm 0.1 · 2 = 0.2.

        >>> from groupwise.plan import Rule, trust_ratio
        >>> print(Rule("*", lr=trust_ratio(0.001, of="gradient")).declarations["lr"])
        trust_ratio(0.001, of=gradient)
    """
    kind = "trust_ratio"
    _choice(kind, "of", of, get_args(TrustOf))
    _choice(kind, "per", per, get_args(TrustPer))
    least = finite(f"{kind}'s low", low)
    most = None if high is None else finite(f"{kind}'s high", high)
    if least < 0 or (most is not None and most <= least):
        raise PlanError(f"{kind}'s bounds are 0 <= low < high, not low={shown(low)} and high={shown(high)}")
    return TrustRatio(_above_zero(kind, "coefficient", coefficient), of, per, least, most)


def update_ratio(target: float = 1e-3, *, speed: float = 0.01, low: float = 0.1, high: float = 10.0) -> Factor:
    """A controller that holds |update| / |weights| of a group near a target, slowly and within bounds.

    With ρ = |lr · u · f| / |w| of the update just made, at the peak of the rate, the factor f of the next one is

        log f ← log f + speed · (log target − log ρ),     low ≤ f ≤ high,     from f = 1

    A schedule, a warmup, another scheduler are obeyed and not undone: ρ is taken as it would be at the rate's peak, so
    the target is that of the peak. An update that moves nothing changes nothing.

    Args:
        target: about 1e-3 is often said to be usual; it is not a law.
        speed: the share of the error, in logarithms, that an update corrects, 0 < speed <= 1: about 1 / speed updates.
        low, high: bounds of the factor, around 1.

    Raises:
        PlanError: a value out of bounds. When it meets a class, as `trust_ratio`.

    Example:
        ρ = 4e-3 where 1e-3 is wanted, speed 0.5: the next update has half the rate, the one after it (if the class goes
        on as it did) 0.354 of it, and so on to 0.25.
    """
    kind = "update_ratio"
    share = finite(f"{kind}'s speed", speed)
    if not 0 < share <= 1:
        raise PlanError(f"{kind}'s speed is above 0 and at most 1, not {shown(speed)}")
    return UpdateRatio(_above_zero(kind, "target", target), share, *_around_one(kind, low, high))


def gradient_share(
    power: float = -1.0,
    *,
    per: SharePer = "module",
    smoothing: float = 0.99,
    low: float = 0.1,
    high: float = 10.0,
) -> Factor:
    """A factor (|g| / mean of |g|)^power of layers or networks, smoothed and bounded.

    |g| is the root of the exponential average of a unit's squared gradient norm; the mean is geometric, over all units
    whose rates have this very factor, so that a rate in the middle is as declared. `power=-1` gives units with small
    gradients larger rates, till lr · |g| is equal (networks in one optimizer, of which one would starve the other);
    `power=1` gives them smaller ones (the "dynamic" rates of tutorials; Auto-RGN, Lee et al. 2023, divides by |w| too).
    Under Adam and its kin an update does not depend on the size of the gradient, so that there is nothing to equalise.

    Args:
        power: of the ratio; not 0.
        per: what is compared: layers ("module"), tensors, groups or networks.
        smoothing: how much of the average an update keeps, 0 <= smoothing < 1.
        low, high: bounds of the factor, around 1.

    Raises:
        PlanError: a value out of bounds. When it meets a model, `ResolutionError` where there is but one unit.

    Example:
        Two networks with |g| = 0.1 and 10, `gradient_share(per="network")`: the mean is 1, the factors are 10 and 0.1.
    """
    kind = "gradient_share"
    _choice(kind, "per", per, get_args(SharePer))
    kept = finite(f"{kind}'s smoothing", smoothing)
    if not 0 <= kept < 1:
        raise PlanError(f"{kind}'s smoothing is at least 0 and below 1, not {shown(smoothing)}")
    exponent = finite(f"{kind}'s power", power)
    if exponent == 0:
        raise PlanError(f"{kind}'s power is not 0, at which every factor is 1")
    return GradientShare(exponent, per, kept, *_around_one(kind, low, high))


_MAKERS: Final[Mapping[str, tuple[Callable[..., Factor], type[MeasuredFactor]]]] = {
    "trust_ratio": (trust_ratio, TrustRatio),
    "update_ratio": (update_ratio, UpdateRatio),
    "gradient_share": (gradient_share, GradientShare),
}
MEASURED: Final = (*_MAKERS,)
"""The keys of such factors in a file."""


def decoded(kind: str, data: object) -> Factor:
    """A factor from its form in a file: the first argument, or a table of arguments. Raises `PlanError`."""
    make, cls = _MAKERS[kind]
    if not isinstance(data, Mapping):
        return make(number_from_text(data))
    names = [each.name for each in fields(cls)]
    for key in data:
        if key not in names:
            raise PlanError(unknown(f"argument of {kind}", str(key), names))
    given = {key: number_from_text(value) for key, value in data.items()}
    return make(given.pop(names[0]), **given) if names[0] in given else make(**given)


def encoded(factor: MeasuredFactor) -> object:
    """What `decoded` reads back."""
    arguments = factor.arguments()
    return arguments if len(arguments) > 1 else next(iter(arguments.values()))


def check_rate(factors: Sequence[Multiplier], slot: str, rate: str | None) -> None:
    """Raise `ResolutionError` for measured factors of anything but a learning rate, or two of a kind."""
    measured = [m.measured for m in factors if isinstance(m.measured, MeasuredFactor)]
    if measured and slot != rate:
        raise ResolutionError(
            f"{measured[0]} follows an update, so it multiplies a learning rate, and {slot} is none: a factor for "
            f"{slot} is scale(…)"
        )
    kinds = [factor.kind for factor in measured]
    twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
    if twice is not None:
        both = " and ".join(str(factor) for factor in measured if factor.kind == twice)
        raise ResolutionError(
            f"{both} would both multiply one rate: a rate follows one {twice}. Let their rules match different "
            "parameters, or declare the rate anew with lr=exact(…) between them, which ends the factors before it"
        )


def _text(value: object) -> str:
    return number(value) if isinstance(value, float) else shown(value)


def _choice(kind: str, name: str, given: object, choices: Sequence[str]) -> None:
    if given not in choices:
        raise PlanError(unknown(f"choice for {kind}'s {name}", str(given), choices))


def _above_zero(kind: str, name: str, x: object) -> float:
    if finite(f"{kind}'s {name}", x) <= 0:
        raise PlanError(f"{kind}'s {name} is above 0, not {shown(x)}")
    return finite(f"{kind}'s {name}", x)


def _around_one(kind: str, low: object, high: object) -> tuple[float, float]:
    least, most = finite(f"{kind}'s low", low), finite(f"{kind}'s high", high)
    if not 0 < least <= 1 <= most or least == most:
        raise PlanError(f"{kind}'s bounds are 0 < low <= 1 <= high, not low={shown(low)} and high={shown(high)}")
    return least, most
