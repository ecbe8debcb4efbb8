"""Clipping as a value: what is bounded, by how much, and over which set of gradients.

A rule with `clip=` is a *clip scope*: the parameters that it wins. The algebra and the kernels live with the optimizer;
here is only what a plan can say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from groupwise._misuse import explained
from groupwise.errors import PlanError, unknown
from groupwise.plan.declarations import finite

Per = Literal["rule", "network", "module", "parameter"]
Kind = Literal["norm", "value", "adaptive"]
NonFinite = Literal["pass", "skip_step", "raise"]


@dataclass(frozen=True)
class Clip:
    """One way of clipping: `kind`, its bound, the set whose norm is joint (`per`), AGC's floor `eps`, and what becomes
    of a step whose norm is not finite.
    """

    kind: Kind
    bound: float
    per: Per = "rule"
    eps: float = 1e-3
    nonfinite: NonFinite = "pass"

    def __str__(self) -> str:
        per = "" if self.per == "rule" else f" per {self.per}"
        nonfinite = "" if self.nonfinite == "pass" else f", nonfinite {self.nonfinite}"
        return f"{self.kind} {self.bound:g}{per}{nonfinite}"


@dataclass(frozen=True)
class ClipScope:
    """A clip together with the rule that declared it: parameters of one scope (and network) share one norm."""

    clip: Clip
    rule: int
    label: str


_OF_TORCH: Final = {
    "norm_type": "it is the 2-norm. clip_value(…) bounds every entry",
    "error_if_nonfinite": 'nonfinite="raise" does that',
    "foreach": "how norms are taken is not a matter of the plan",
}


@explained(PlanError, "clip_norm", _OF_TORCH)
def clip_norm(max_norm: float, per: Per = "rule", nonfinite: NonFinite = "pass") -> Clip:
    """Scale gradients so that their joint 2-norm is at most `max_norm` (`torch.nn.utils.clip_grad_norm_`).

    Args:
        max_norm: the bound.
        per: the set that shares one norm: all that the rule wins, each network, each owning module (what the root
            holds is the root's) or each parameter of it.
        nonfinite: what becomes of a step in which a norm is nan or infinite, so that clipping would spread it to every
            gradient of the set: "pass" does as torch does and says so once, on a CPU; "skip_step" leaves the whole step
            out, "raise" raises `OptimizerError`. The last two wait for the device at each step.

    Raises:
        PlanError: a bound that is not positive, or another word.
    """
    _one_of("per", per, get_args(Per))
    _one_of("nonfinite", nonfinite, get_args(NonFinite))
    return Clip("norm", _positive("clip_norm", max_norm), per, nonfinite=nonfinite)


def clip_value(bound: float) -> Clip:
    """Clamp every gradient entry to [-bound, bound] (`torch.nn.utils.clip_grad_value_`)."""
    return Clip("value", _positive("clip_value", bound))


def clip_adaptive(ratio: float, eps: float = 1e-3) -> Clip:
    """Adaptive gradient clipping: a row's gradient norm is at most `ratio` x max(its weight norm, `eps`).

    Source: Brock et al. 2021 (NFNets), which uses 0.01 and leaves the final layer out: `clip=False` unsets it there.
    """
    return Clip("adaptive", _positive("clip_adaptive", ratio), eps=_positive("eps of clip_adaptive", eps))


def _one_of(what: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        raise PlanError(unknown(what, str(given), known))


def _positive(what: str, x: object) -> float:
    bound = finite(what, x)
    if bound <= 0:
        raise PlanError(f"{what} must be positive, got {bound:g}; clip=False unsets clipping")
    return bound
