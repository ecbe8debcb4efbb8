"""An independent reference: a two-layer network, its gradients, AdamW and SGD in plain numpy, float64.

    h = tanh(x A + a),  p = h B + b,  loss = mean((p - y)²)

Keras' forms of the updates: AdamW decays first (w -= lr·wd·w), then w -= α m / (√v + ε) with
α = lr √(1-β₂ᵗ) / (1-β₁ᵗ); SGD with momentum keeps u = μu - lr·g and adds u.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]  # "body.kernel", "body.bias", "head.kernel", "head.bias"
Values = Callable[[int], float]


def gradients(w: Weights, x: Array, y: Array) -> Weights:
    """The gradients of the loss at `w` on one batch."""
    h = np.tanh(x @ w["body.kernel"] + w["body.bias"])
    dp = 2 * (h @ w["head.kernel"] + w["head.bias"] - y) / y.size
    dz = (dp @ w["head.kernel"].T) * (1 - h**2)
    return {
        "body.kernel": x.T @ dz,
        "body.bias": dz.sum(0),
        "head.kernel": h.T @ dp,
        "head.bias": dp.sum(0),
    }


@dataclass
class AdamW:
    """AdamW of Keras; every hyperparameter is a function of the update's number."""

    lr: Values
    wd: Values = lambda t: 0.0
    beta_1: Values = lambda t: 0.9
    beta_2: Values = lambda t: 0.999
    eps: float = 1e-7
    m: Weights = field(default_factory=dict)
    v: Weights = field(default_factory=dict)

    def step(self, name: str, w: Array, g: Array, t: int) -> Array:
        """The weights after update `t` (0 is the first)."""
        b1, b2, lr = self.beta_1(t), self.beta_2(t), self.lr(t)
        w = w - lr * self.wd(t) * w
        m = self.m[name] = b1 * self.m.get(name, 0 * g) + (1 - b1) * g
        v = self.v[name] = b2 * self.v.get(name, 0 * g) + (1 - b2) * g**2
        alpha = lr * np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1))
        return w - alpha * m / (np.sqrt(v) + self.eps)


@dataclass
class SGD:
    """SGD of Keras."""

    lr: Values
    momentum: Values = lambda t: 0.0
    u: Weights = field(default_factory=dict)

    def step(self, name: str, w: Array, g: Array, t: int) -> Array:
        """The weights after update `t`."""
        u = self.u[name] = self.momentum(t) * self.u.get(name, 0 * g) - self.lr(t) * g
        return w + u


Clip = Callable[[Weights], Weights]


def trained(
    w: Weights,
    x: Array,
    y: Array,
    rules: Mapping[str, AdamW | SGD],
    batches: int,
    batch: int,
    clip: Clip = lambda g: g,
    accumulate: int = 1,
) -> Weights:
    """The weights after `batches` batches in order (starting over at the end), each rule serving one layer."""
    w = {name: np.asarray(value, dtype=np.float64) for name, value in w.items()}
    held: list[Weights] = []
    for i in range(batches):
        rows = slice(i * batch % len(x), i * batch % len(x) + batch)
        held.append(gradients(w, x[rows], y[rows]))
        if len(held) == accumulate:
            mean = {name: np.mean([g[name] for g in held], axis=0) for name in w}
            clipped, t, held = clip(mean), i // accumulate, []
            w = {name: rules[name.split(".")[0]].step(name, w[name], clipped[name], t) for name in w}
    return w


def joint_norm(g: Weights, prefix: str = "") -> float:
    """The norm of all the gradients whose name starts with `prefix`."""
    return float(np.sqrt(sum((value**2).sum() for name, value in g.items() if name.startswith(prefix))))


def clipped(bound: float, prefix: str = "") -> Clip:
    """Clipping of the joint norm of what starts with `prefix`."""

    def clip(g: Weights) -> Weights:
        factor = min(1.0, bound / (joint_norm(g, prefix) + 1e-6))
        return {name: value * factor if name.startswith(prefix) else value for name, value in g.items()}

    return clip
