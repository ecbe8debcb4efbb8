"""Clipping as a value: what is bounded, by how much, and over which set of gradients.

A rule with `clip=` is a *clip scope*: the parameters that it wins. The algebra and the kernels live with the optimizer;
here is only what a plan can say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from groupwise.errors import PlanError, unknown
from groupwise.plan.declarations import finite

Per = Literal["rule", "network", "module", "parameter"]
Kind = Literal["norm", "value", "adaptive"]


@dataclass(frozen=True)
class Clip:
    """One way of clipping: `kind`, its bound, the set whose norm is joint (`per`), AGC's floor `eps`."""

    kind: Kind
    bound: float
    per: Per = "rule"
    eps: float = 1e-3

    def __str__(self) -> str:
        per = "" if self.per == "rule" else f" per {self.per}"
        return f"{self.kind} {self.bound:g}{per}"


@dataclass(frozen=True)
class ClipScope:
    """A clip together with the rule that declared it: parameters of one scope (and network) share one norm."""

    clip: Clip
    rule: int
    label: str


def clip_norm(max_norm: float, per: Per = "rule") -> Clip:
    """Scale gradients so that their joint 2-norm is at most `max_norm` (`torch.nn.utils.clip_grad_norm_`).

    `per` is the set that shares one norm: all that the rule wins, each network, each owning module or each parameter
    of it. Raises `PlanError` for a bound that is not positive.
    """
    if per not in get_args(Per):
        raise PlanError(unknown("per", str(per), get_args(Per)))
    return Clip("norm", _positive("clip_norm", max_norm), per)


def clip_value(bound: float) -> Clip:
    """Clamp every gradient entry to [-bound, bound] (`torch.nn.utils.clip_grad_value_`)."""
    return Clip("value", _positive("clip_value", bound))


def clip_adaptive(ratio: float, eps: float = 1e-3) -> Clip:
    """Adaptive gradient clipping: a row's gradient norm is at most `ratio` x max(its weight norm, `eps`).

    Source: Brock et al. 2021 (NFNets), which uses 0.01 and leaves the final layer out: `clip=False` unsets it there.
    """
    return Clip("adaptive", _positive("clip_adaptive", ratio), eps=_positive("eps of clip_adaptive", eps))


def _positive(what: str, x: object) -> float:
    bound = finite(what, x)
    if bound <= 0:
        raise PlanError(f"{what} must be positive, got {bound:g}; clip=False unsets clipping")
    return bound
