"""The two-task toy of CAGrad, Nash-MTL and FAMO, in plain floats: losses, gradients by hand, Adam, two-row updates.

    f1 = log max(|(-x-7)/2 - tanh(-y)|, 5e-6) + 6        q1 = ((7-x)^2 + (-y-8)^2 / 10) / 10 - 20
    f2 = log max(|(-x+3)/2 + tanh(-y) + 2|, 5e-6) + 6    q2 = ((-x-7)^2 + (-y-8)^2 / 10) / 10 - 20
    L1 = (f1 c1 + q1 c2) / 10,  L2 = f2 c1 + q2 c2       c1 = max(tanh(y/2), 0), c2 = max(tanh(-y/2), 0)

A run has up to 50,000 steps, so nothing here is a tensor: the updates below are what each paper's formula comes to for
two rows, written out independently of the library. The tests hold them against the library's methods wherever a
trajectory passes, and against the published end points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Row = tuple[float, float]
Rows = tuple[Row, Row]
Pair = tuple[float, float]
Weigh = Callable[[Rows], Pair]

STARTS = {"left": (-8.5, 7.5), "right": (9.0, 9.0)}
_TINY = 5e-6


def losses(x: float, y: float) -> Pair:
    """L1 and L2 at a point."""
    f1 = math.log(max(abs(0.5 * (-x - 7) - math.tanh(-y)), _TINY)) + 6
    f2 = math.log(max(abs(0.5 * (-x + 3) + math.tanh(-y) + 2), _TINY)) + 6
    q1 = ((7 - x) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    q2 = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    c1, c2 = max(math.tanh(y / 2), 0.0), max(math.tanh(-y / 2), 0.0)
    return 0.1 * (f1 * c1 + q1 * c2), f2 * c1 + q2 * c2


def rows(x: float, y: float) -> Rows:
    """The gradients of L1 and L2, by hand."""
    t, sech2 = math.tanh(y), 1 - math.tanh(y) ** 2
    a1, a2 = 0.5 * (-x - 7) + t, 0.5 * (-x + 3) - t + 2
    f1, f1x, f1y = _log(a1, sech2)
    f2, f2x, f2y = _log(a2, -sech2)
    q1, q1x = ((7 - x) ** 2 + 0.1 * (y + 8) ** 2) / 10 - 20, -0.2 * (7 - x)
    q2, q2x = ((x + 7) ** 2 + 0.1 * (y + 8) ** 2) / 10 - 20, 0.2 * (x + 7)
    qy, half = 0.02 * (y + 8), math.tanh(y / 2)
    slope = 0.5 * (1 - half * half)
    c1, c2 = max(half, 0.0), max(-half, 0.0)
    c1y, c2y = (slope, 0.0) if y > 0 else (0.0, -slope)
    first = (f1x * c1 + q1x * c2, f1y * c1 + f1 * c1y + qy * c2 + q1 * c2y)
    second = (f2x * c1 + q2x * c2, f2y * c1 + f2 * c1y + qy * c2 + q2 * c2y)
    return (0.1 * first[0], 0.1 * first[1]), second


def _log(a: float, along_y: float) -> tuple[float, float, float]:
    """log max(|a|, tiny) + 6 and its slopes, where da/dx is -1/2."""
    if abs(a) <= _TINY:
        return math.log(_TINY) + 6, 0.0, 0.0
    return math.log(abs(a)) + 6, -0.5 / a, along_y / a


@dataclass
class Adam:
    """Adam on some floats, as torch computes it."""

    values: list[float]
    lr: float

    def __post_init__(self) -> None:
        self.m, self.v, self.t = [0.0] * len(self.values), [0.0] * len(self.values), 0

    def step(self, gradient: Pair) -> None:
        """One update."""
        self.t += 1
        size, root = self.lr / (1 - 0.9**self.t), math.sqrt(1 - 0.999**self.t)
        for i, g in enumerate(gradient):
            self.m[i] = 0.9 * self.m[i] + 0.1 * g
            self.v[i] = 0.999 * self.v[i] + 0.001 * g * g
            self.values[i] -= size * self.m[i] / (math.sqrt(self.v[i]) / root + 1e-8)


def walk(weigh: Weigh, start: Pair, steps: int) -> Iterator[Pair]:
    """The points of Adam at 1e-3 along the update that `weigh` gives; the last one is where it ends."""
    point = Adam([*start], 1e-3)
    for _ in range(steps):
        jacobian = rows(*point.values)
        a, b = weigh(jacobian)
        point.step((a * jacobian[0][0] + b * jacobian[1][0], a * jacobian[0][1] + b * jacobian[1][1]))
        yield point.values[0], point.values[1]


def gramian(jacobian: Rows) -> tuple[float, float, float]:
    """g1.g1, g1.g2, g2.g2."""
    (a, b), (c, d) = jacobian
    return a * a + b * b, a * c + b * d, c * c + d * d


def angle(jacobian: Rows) -> float:
    """1 + the cosine of the two gradients: 0 where they are opposite, without cancellation."""
    (a, b), (c, d) = jacobian
    n1, n2 = math.hypot(a, b), math.hypot(c, d)
    return 0.5 * ((a / n1 + c / n2) ** 2 + (b / n1 + d / n2) ** 2)


def plain_sum(jacobian: Rows) -> Pair:
    """The losses added up."""
    return 1.0, 1.0


def pcgrad(jacobian: Rows) -> Pair:
    """Each gradient without its part against the other; the sum."""
    g11, g12, g22 = gramian(jacobian)
    return (1 - g12 / g11, 1 - g12 / g22) if g12 < 0 else (1.0, 1.0)


def mgda(jacobian: Rows) -> Pair:
    """The shortest point between the two gradients."""
    g11, g12, g22 = gramian(jacobian)
    span = g11 - 2 * g12 + g22
    a = 0.5 if span <= 0 else min(max((g22 - g12) / span, 0.0), 1.0)
    return a, 1 - a


def cagrad(jacobian: Rows, c: float = 0.4) -> Pair:
    """The mean plus c |mean| along g_w, where w minimises g_w.g0 + c |g0| |g_w|: bisection on its slope."""
    g11, g12, g22 = gramian(jacobian)
    b1, b2 = 0.5 * (g11 + g12), 0.5 * (g12 + g22)
    radius = c * math.sqrt(max(0.5 * (b1 + b2), 0.0))

    def slope(w: float) -> float:
        size = math.sqrt(max(w * w * g11 + 2 * w * (1 - w) * g12 + (1 - w) ** 2 * g22, 1e-300))
        return b1 - b2 + radius * (w * (g11 - g12) - (1 - w) * (g22 - g12)) / size

    w = _root(slope)
    size = math.sqrt(w * w * g11 + 2 * w * (1 - w) * g12 + (1 - w) ** 2 * g22)
    return 0.5 + radius * w / size, 0.5 + radius * (1 - w) / size


def _root(slope: Callable[[float], float]) -> float:
    """Where an increasing slope is zero on [0, 1], or the end that it points to."""
    low, high = 0.0, 1.0
    if slope(low) >= 0:
        return low
    if slope(high) <= 0:
        return high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 0.5 * (low + high)


def imtl_g(jacobian: Rows) -> Pair:
    """Equal projections on both unit gradients, weights that sum to 1."""
    g11, _, g22 = gramian(jacobian)
    n1, n2 = math.sqrt(g11), math.sqrt(g22)
    return n2 / (n1 + n2), n1 / (n1 + n2)


def nash(jacobian: Rows) -> Pair:
    """a_i = 1 / (|g_i| sqrt(1 + cos)); an update longer than 1 is shortened to 1."""
    g11, g12, g22 = gramian(jacobian)
    n1, n2 = math.sqrt(g11), math.sqrt(g22)
    root = math.sqrt(max(1 + g12 / (n1 * n2), 0.0))
    if root == 0:
        return 0.0, 0.0
    a, b = 1 / (n1 * root), 1 / (n2 * root)
    size = math.sqrt(a * a * g11 + 2 * a * b * g12 + b * b * g22)
    return (a / size, b / size) if size > 1 else (a, b)


def config(jacobian: Rows) -> Pair:
    """Along the bisector of the two unit gradients, as long as both gradients' parts along it."""
    g11, g12, g22 = gramian(jacobian)
    n1, n2 = math.sqrt(g11), math.sqrt(g22)
    size = math.sqrt(max(2 + 2 * g12 / (n1 * n2), 0.0))
    if size == 0:
        return 0.0, 0.0
    length = (g11 / n1 + g12 / n2 + g12 / n1 + g22 / n2) / size
    return length / (n1 * size), length / (n2 * size)


@dataclass
class Famo:
    """FAMO without decay: z = softmax(xi), weights c z_i / L_i; after the step xi follows Adam at 0.025.

    `floor` is what is subtracted from a loss before its logarithm: the toy's losses are negative.
    """

    floor: Pair

    def __post_init__(self) -> None:
        self.logits = Adam([0.0, 0.0], 0.025)

    def weigh(self, point: Pair) -> Pair:
        """The weights at a point."""
        z, above = self._softmax(), self._above(point)
        c = 1 / (z[0] / above[0] + z[1] / above[1])
        return c * z[0] / above[0], c * z[1] / above[1]

    def learn(self, before: Pair, after: Pair) -> None:
        """The logits move against the task that improved most."""
        z, old, new = self._softmax(), self._above(before), self._above(after)
        d = math.log(old[0]) - math.log(new[0]), math.log(old[1]) - math.log(new[1])
        mean = z[0] * d[0] + z[1] * d[1]
        self.logits.step((z[0] * (d[0] - mean), z[1] * (d[1] - mean)))

    def _softmax(self) -> Pair:
        a, b = self.logits.values
        top = 1 / (1 + math.exp(b - a))
        return top, 1 - top

    def _above(self, point: Pair) -> Pair:
        first, second = losses(*point)
        return first - self.floor[0] + 1e-8, second - self.floor[1] + 1e-8
