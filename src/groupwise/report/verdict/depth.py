"""Gradients over depth: groups whose names differ by one number are a ladder, and its rungs are compared.

Vanishing or exploding means a factor a level: from one end to the other a thousand and more, in at least 4 levels, in
their order (a rank correlation of 0.9 and more, which 4 levels in random order have in one case of 12; a span of 1000
besides is no chance). Networks that train well stay within a factor of 100.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from groupwise.report.document import Sentence
from groupwise.report.numbers import formatted, median
from groupwise.report.reading import Reading

LEVELS: Final = 4
SPAN: Final = 1000.0
ORDERED: Final = 0.9
_NUMBER: Final = re.compile(r"\d+")


def depth(reading: Reading) -> Iterator[Sentence]:
    """The ladder whose gradients span most."""
    steepest = max(ladders(reading).values(), key=_span, default=[])
    if len(steepest) < LEVELS or _span(steepest) < math.log(SPAN) or _rank_correlation(steepest) < ORDERED:
        return
    first, last = steepest[0], steepest[-1]
    low, high = sorted((first, last), key=lambda rung: rung[1])
    factor = formatted(math.exp(_span(steepest) / (len(steepest) - 1)))
    text = (
        f"An entry's gradient has the size {formatted(math.exp(high[1]))} in '{high[0]}' and "
        f"{formatted(math.exp(low[1]))} "
        f"in '{low[0]}' (root mean squares, medians over the run), {len(steepest)} levels apart. Residual paths, "
        "normalisation or another initialisation keep it level."
    )
    head = f"Gradients shrink by a factor of {factor} a level from '{high[0]}' to '{low[0]}'"
    yield Sentence("depth", "look", head, text, "gradients")


def ladders(reading: Reading) -> Mapping[str, list[tuple[str, float]]]:
    """By pattern of the name, the groups in order with the logarithm of an entry's gradient."""
    found: dict[str, list[tuple[int, str, float]]] = {}
    for group, series in reading.statistic("grad_norm").items():
        size = reading.described[group].parameters if group in reading.described else 0
        norm = median(series.values)
        numbers = list(_NUMBER.finditer(group))
        if size and norm > 0:
            for match in numbers:
                pattern = f"{group[: match.start()]}#{group[match.end() :]}"
                found.setdefault(pattern, []).append((int(match[0]), group, math.log(norm / math.sqrt(size))))
    return {pattern: [(name, value) for _, name, value in sorted(rungs)] for pattern, rungs in found.items()}


def _span(ladder: list[tuple[str, float]]) -> float:
    return abs(ladder[-1][1] - ladder[0][1]) if ladder else 0.0


def _rank_correlation(ladder: list[tuple[str, float]]) -> float:
    """Spearman's, without its sign."""
    count = len(ladder)
    order = sorted(range(count), key=lambda i: ladder[i][1])
    squares = sum((rank - place) ** 2 for rank, place in enumerate(order))
    return abs(1 - 6 * squares / (count * (count**2 - 1)))
