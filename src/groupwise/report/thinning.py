"""Fewer points, the same picture: of each stretch of a line, the lowest and the highest value stay, and so do its ends.

A mean would hide the spike that one looks for. What is not finite stays too, once a stretch: it is the news.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def thinned(values: Sequence[float], most: int) -> list[int]:
    """The positions of at most `most` (at least 6) values that keep the picture of all, ascending."""
    count = len(values)
    if count <= most:
        return list(range(count))
    stretches = max((most - 2) // 3, 1)
    chosen = {0, count - 1}
    for i in range(stretches):
        stretch = range(count * i // stretches, count * (i + 1) // stretches)
        finite = [at for at in stretch if math.isfinite(values[at])]
        if finite:
            chosen.add(min(finite, key=values.__getitem__))
            chosen.add(max(finite, key=values.__getitem__))
        if len(finite) < len(stretch):
            chosen.add(next(at for at in stretch if not math.isfinite(values[at])))
    return sorted(chosen)


def binned(steps: Sequence[int], values: Sequence[float], edges: Sequence[int]) -> list[float]:
    """The median of the finite values in each stretch `[edges[i], edges[i + 1])`; nan where there is none."""
    bins: list[list[float]] = [[] for _ in edges[1:]]
    at = 0
    for step, value in zip(steps, values, strict=True):
        while at < len(bins) and step >= edges[at + 1]:
            at += 1
        if at < len(bins) and step >= edges[at] and math.isfinite(value):
            bins[at].append(value)
    return [sorted(found)[len(found) // 2] if found else math.nan for found in bins]
