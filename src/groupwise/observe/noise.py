"""The gradient noise scale, where gradients are accumulated.

A gradient over B samples has E|g_B|² = |G|² + S / B, where G is the true gradient and S the trace of the noise of one
sample. Two sizes, of a micro-batch and of the whole accumulated batch, give both:

    |G|² ≈ (B |g_B|² − b |g_b|²) / (B − b)        S ≈ (|g_b|² − |g_B|²) / (1 / b − 1 / B)

and S / |G|² is the batch size, in samples, beyond which averaging pays little (McCandlish et al., 2018, appendix A.1).
Each estimate is unbiased and very noisy, their quotient is not, so each has a moving average of its own. Of the
micro-batches only the first is looked at: there the gradients hold nothing else, so it costs one norm and no memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

import torch

from groupwise.observe.grouping import GroupSnapshot
from groupwise.observe.tensors import entries, gradient_of, squares

KEEP: Final = 0.95
"""What a moving average keeps of its past at each update that accumulates."""

WHOLE: Final = ""
"""The name of the whole model among the groups."""


@final
class FirstMicroBatch:
    """What has been seen of the micro-batches of an update."""

    def __init__(self, snapshot: GroupSnapshot, samples: int, divided: bool, unscale: float) -> None:
        found = [(p, gradient_of(p)) for p in snapshot.params]
        self.params = [p for p, gradient in found if gradient is not None]
        held = [entries(gradient) for _, gradient in found if gradient is not None]
        self.squares = squares(held) * unscale**2 if held else None
        self.samples, self.count, self.divided = samples, 1, divided
        self.even = True

    def another(self, samples: int) -> None:
        """One more micro-batch was added to the gradients."""
        self.count += 1
        self.even = self.even and samples == self.samples


@final
class NoiseScale:
    """The moving averages of |G|² and S, by group and for the whole."""

    def __init__(self) -> None:
        self._averages: dict[str, tuple[float, float]] = {}

    def update(
        self, names: Sequence[str], sums: Sequence[Mapping[str, float]], batch: FirstMicroBatch
    ) -> dict[str, float]:
        """The noise scale in samples, by group and under `WHOLE`, where it can be told by now."""
        found = {name: _estimates(own["first"], own["gg"], batch) for name, own in zip(names, sums, strict=True)}
        found[WHOLE] = (sum(signal for signal, _ in found.values()), sum(noise for _, noise in found.values()))
        for name, (signal, noise) in found.items():
            before = self._averages.get(name, (0.0, 0.0))  # what that takes from both cancels
            self._averages[name] = (_mixed(before[0], signal), _mixed(before[1], noise))
        ratios = {name: self._averages[name] for name in found}
        return {name: noise / signal for name, (signal, noise) in ratios.items() if signal > 0 and noise > 0}


def _estimates(first: float, whole: float, batch: FirstMicroBatch) -> tuple[float, float]:
    """|G|² and S from Σ g² of the gradients as they were after the first micro-batch and after the last."""
    small, large = batch.samples, batch.samples * batch.count
    b, big = (first * batch.count**2, whole) if batch.divided else (first, whole / batch.count**2)
    return (large * big - small * b) / (large - small), (b - big) / (1 / small - 1 / large)


def _mixed(before: float, now: float) -> float:
    return KEEP * before + (1 - KEEP) * now


def usable(batch: FirstMicroBatch | None) -> torch.Tensor | None:
    """Σ g² of the first micro-batch, if there was another of the same size."""
    return batch.squares if batch is not None and batch.count > 1 and batch.even else None
