"""How far a solution is from satisfying the conditions for an optimum, computed from their text alone."""

import torch
from torch import Tensor


def lengths(gramian: Tensor) -> Tensor:
    return gramian.diagonal().sqrt()


def nonnegative(q: Tensor, b: Tensor, x: Tensor, scale: Tensor) -> float:
    """Of min 1/2 x'Qx - b'x over x >= 0, for rows of b; infinite where an x is negative."""
    n = torch.where(lengths(q) > 0, lengths(q), 1.0)
    slack = b - x @ q
    wrong = torch.where(x > 0, slack.abs(), slack.clamp(min=0)) / n / ((x @ n) + scale)[:, None].clamp(min=1e-300)
    return float(wrong.max()) if bool((x >= 0).all()) else float("inf")


def shortest(gramian: Tensor, w: Tensor) -> float:
    """Of min w'Gw over the simplex; infinite off the simplex."""
    return _equalised(gramian, gramian @ w, w, lengths(gramian) @ w)


def averse(gramian: Tensor, preference: Tensor, c: float, a: Tensor) -> float:
    """Of CAGrad's problem, as one of d = J'a: in the ball, and best there because min_i g_i.d cannot rise.

    What w is follows from a = b + x: a multiple of x.
    """
    x = a - preference
    g0 = float((preference @ gramian @ preference).clamp(min=0).sqrt())
    size = float(lengths(gramian) @ a.abs())
    outside = float((x @ gramian @ x).clamp(min=0).sqrt()) - c * g0
    if outside > 1e-7 * size:
        return float("inf")
    if float(x.sum()) == 0:
        return 0.0
    inside = (x > 0) & (lengths(gramian) > 0) & (abs(outside) > 1e-7 * size)
    wrong = float(((gramian @ a).abs() / lengths(gramian))[inside].sum()) / size
    return max(wrong, _equalised(gramian, gramian @ a, x / x.sum(), size, lengths(gramian) @ x / x.sum()))


def _equalised(gramian: Tensor, products: Tensor, w: Tensor, size: float | Tensor, mean: float | Tensor = 0) -> float:
    """No product below the weighted mean of all, and none above where the weight is positive."""
    if not bool((w >= 0).all()) or abs(float(w.sum()) - 1) > 1e-12:
        return float("inf")
    below = w @ products - products
    wrong = torch.where(w > 0, below.abs(), below.clamp(min=0))
    n = lengths(gramian) + mean
    return float((wrong / (n * size).clamp(min=1e-300))[n > 0].max()) if bool((n > 0).any()) else 0.0


def bargained(gramian: Tensor, share: Tensor, power: float, a: Tensor) -> float:
    """Of Ga = share a^-power; infinite where an a is not positive."""
    if not bool((a > 0).all()):
        return float("inf")
    n = lengths(gramian)
    return float(((gramian @ a - share * a**-power).abs() / (n * (n @ a))).max())
