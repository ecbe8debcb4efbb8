"""The formulas of the methods that look at losses alone, over any array library: written once for torch and Keras.

Each takes [t] losses, or what was learnt from them, and gives [t] weights. What an array library has to offer is a
`Namespace`; how state is kept, and what is refused, is each side's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, final

Array: TypeAlias = Any
Variant: TypeAlias = Literal["paper", "softplus"]

BETA1: Final = 0.9
BETA2: Final = 0.999
EPS: Final = 1e-8


@final
@dataclass(frozen=True)
class Namespace:
    """Functions of an array library, elementwise but for `mean` (of all) and `softmax` (over the first axis)."""

    exp: Callable[[Array], Array]
    log: Callable[[Array], Array]
    mean: Callable[[Array], Array]
    sigmoid: Callable[[Array], Array]
    softmax: Callable[[Array], Array]
    softplus: Callable[[Array], Array]
    sqrt: Callable[[Array], Array]
    where: Callable[[Array, Array, Array], Array]


def geometric_mean(np: Namespace, losses: Array) -> Array:
    """exp(mean(log L) - log L_i) / t, the derivative of (prod L)^(1/t); nothing is ever multiplied up."""
    logs = np.log(losses)
    return np.exp(np.mean(logs) - logs) / losses.shape[0]


def log_sum(losses: Array) -> Array:
    """1 / L_i, the derivative of sum log L."""
    return 1.0 / losses


def uncertainty(np: Namespace, losses: Array, log_variances: Array, variant: Variant) -> tuple[Array, Array]:
    """The weights e^(-s) / 2, and the gradient (1 - e^(-s) L) / 2 of the log-variances s.

    "softplus" puts log(1 + e^L) in the place of L, and so multiplies the weights by sigmoid(L).
    """
    precision = np.exp(-log_variances)
    inner = losses if variant == "paper" else np.softplus(losses)
    weights = 0.5 * precision if variant == "paper" else 0.5 * precision * np.sigmoid(losses)
    return weights, 0.5 * (1.0 - precision * inner)


def dynamic_weight_average(np: Namespace, rates: Array, temperature: float) -> Array:
    """t softmax(r / T), r the ratios of the last two mean losses."""
    return rates.shape[0] * np.softmax(rates / temperature)


def adam(
    np: Namespace, first: Array, second: Array, steps: Array, gradient: Array, eps: float = EPS
) -> tuple[Array, Array, Array]:
    """Adam's direction (Kingma and Ba 2015) at step number `steps`, from 1, and both moments after it.

    `eps` is torch's, added to the root; at 0 a gradient that has always been zero moves nothing.
    """
    first = first + (1 - BETA1) * (gradient - first)
    second = BETA2 * second + (1 - BETA2) * gradient**2
    scale = np.sqrt(second / (1 - BETA2**steps)) + eps
    moves = scale > 0
    return np.where(moves, first / (1 - BETA1**steps) / np.where(moves, scale, 1.0), 0.0), first, second
