"""Units that never fire, by layer, where activations were recorded.

dead   at least a fifth of a layer's units put out exactly 0 on the whole batch in every one of 5 records and more after
       the start. To be looked at from a half on. "The whole batch" is of 32 entries at least (smaller ones count
       together), on which a unit that fires for one entry in ten is silent in 3 of 100 draws; that a fifth of the
       units are so in each of five records is no chance
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import formatted, median, percent, quoted
from groupwise.report.reading import Reading, later

DEAD: Final = 0.2
HALF: Final = 0.5
ENOUGH: Final = 5


def dead_units(reading: Reading) -> Iterator[Sentence]:
    """The layers with units that never fire, the worst first."""
    found: dict[str, float] = {}
    for layer, series in reading.statistic("dead_units").items():
        values = later(series)
        if len(values) >= ENOUGH and min(values) >= DEAD:
            found[layer] = median(values)
    if not found:
        return
    layers = sorted(found, key=lambda layer: -found[layer])
    worst, share = layers[0], found[layers[0]]
    records = len(later(reading.statistic("dead_units")[worst]))
    size = reading.typical("activation_rms").get(worst)
    before = f", before which its output has the size {formatted(size)}" if size is not None else ""
    text = (
        f"So many units of '{worst}' were exactly 0 on the whole batch (median of {records} records{before}). They get "
        "no gradient and do not come back by themselves: a smaller rate, another initialisation, or a leaky activation."
    )
    others = f", as are some of {quoted(layers[1:])}" if len(layers) > 1 else ""
    tone: Tone = "look" if share >= HALF else "note"
    yield Sentence("dead", tone, f"{percent(share)} of the units of '{worst}' are dead{others}", text, "layers")
