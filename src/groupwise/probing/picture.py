"""The picture of a probe: what each rate came to, who holds the gradient, and how far each group moves."""

from __future__ import annotations

import importlib
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from groupwise._atomic import obstacle, replacing
from groupwise._paths import path_of
from groupwise.errors import ProbeError, unknown, within
from groupwise.probing.measuring import Part, Seen
from groupwise.probing.rates import Rates, longer
from groupwise.probing.rounds import Round, best_single

_SUFFIXES: Final = (".svg", ".png")
_SINGLE: Final = "#c46a1b"
_COLOURS: Final = ("#9aa5b1", "#4c78a8", "#1b3a5c")
_LIKELY, _DIVERGED = "#d8ead3", "#f3d6d3"
_MOST: Final = 16


def draw(rates: Rates, rounds: Sequence[Round], seen: Seen, path: str | os.PathLike[str]) -> None:
    """Write the picture, whole or not at all. Raises as `ProbeResult.plot` does."""
    place = checked_place(path)
    data = _image(rates, rounds, seen, place.suffix.lower().removeprefix("."))
    with replacing(place) as file:
        file.write(data)


def checked_place(path: str | os.PathLike[str]) -> Path:
    """Where a picture can be drawn. Raises as `ProbeResult.plot` does."""
    place = path_of(path, ProbeError, "a picture")
    with within(str(place)):
        if place.suffix.lower() not in _SUFFIXES:
            raise ProbeError(unknown("suffix of a picture", place.suffix, _SUFFIXES))
        if reason := obstacle(place):
            raise ProbeError(f"cannot write it: {reason}")
        try:
            importlib.import_module("matplotlib")
        except ImportError as error:
            raise ProbeError('matplotlib draws it, and is not installed: pip install "groupwise[plot]"') from error
    return place


def _image(rates: Rates, rounds: Sequence[Round], seen: Seen, kind: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bars = max(1, min(_MOST, len(_parts(seen))), len(seen.tasks))
    figure = Figure(figsize=(11, 3.2 + 0.22 * max(0, bars - 4)), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=(5, 3, 3))
    _rates(left, rates, rounds)
    _gradients(middle, seen)
    _updates(right, seen)
    target = io.BytesIO()
    figure.savefig(target, format=kind, dpi=144, metadata={"Date": None} if kind == "svg" else None)
    return target.getvalue()


def _rates(axes: Any, rates: Rates, rounds: Sequence[Round]) -> None:
    """What each rate came to, a line for each round; where the best is likely, and where runs diverged."""
    low, high = rates.likely
    axes.axvspan(low, high, color=_LIKELY, lw=0, label="likely best")
    top = max(s.rate for found in rounds for s in found.runs if not s.adamw) * math.sqrt(10)
    diverging = rates.stable[1]
    if diverging is not None:
        axes.axvspan(diverging, top, color=_DIVERGED, lw=0, label="diverged", alpha=0.6)
    for found, colour in zip(rounds, _COLOURS, strict=False):
        points = _points(found)
        label = f"{found.steps} updates"
        axes.plot([x for x, _ in points], [y for _, y in points], "o-", ms=4, lw=1.5, color=colour, label=label)
    if rates.verdict == "change" and not rates.single:
        axes.axvline(rates.advised, color="#2c7a2c", lw=1.5, label=f"advised: x{rates.advised:g}")
    axes.axvline(1.0, color="black", lw=0.8, ls=":", label="the plan's")
    longest = longer(rounds)[-1]
    one = best_single(longest)
    if one is not None:
        label = f"one AdamW at {one.adamw:g}, {longest.steps} updates"
        axes.axhline(longest.score(one), color=_SINGLE, lw=1.5, ls="--", label=label)
    axes.set_xscale("log")
    axes.set(xlabel="factor on the plan's rates", ylabel="log(loss / loss at the start)", title="Rates")
    axes.legend(fontsize=7, frameon=False)


def _points(found: Round) -> list[tuple[float, float]]:
    known = sorted((setting.rate, found.score(setting)) for setting in found.runs if not setting.adamw)
    return [(rate, score) for rate, score in known if math.isfinite(score)]


def _parts(seen: Seen) -> tuple[Part, ...]:
    return seen.layers if len(seen.layers) > 1 else seen.groups


def _gradients(axes: Any, seen: Seen) -> None:
    """Who holds the gradient: tasks where there are several, else parts."""
    tasks = seen.tasks
    held = [(t.name, t.share) for t in tasks] or [(p.name, p.share) for p in _parts(seen)]
    held = held[:_MOST][::-1]
    axes.barh([name for name, _ in held], [100 * share for _, share in held], color=_COLOURS[1], height=0.5)
    axes.set(
        title="Share of the gradient",
        xlabel="% of the sum of norms" if tasks else "% of the squared norm",
        xlim=(0, 100),
    )
    axes.tick_params(axis="y", labelsize=7)


def _updates(axes: Any, seen: Seen) -> None:
    """How far each part moves in an update; a thousandth is what many take for usual."""
    parts = [part for part in _parts(seen) if part.update_ratio > 0][:_MOST][::-1]
    axes.plot([part.update_ratio for part in parts], [part.name for part in parts], "o", color=_COLOURS[2])
    axes.axvline(1e-3, color="black", lw=0.8, ls=":")
    axes.set_xscale("log")
    ratios = [1e-3, *(part.update_ratio for part in parts)]
    axes.set_xlim(10 ** math.floor(math.log10(min(ratios)) - 0.1), 10 ** math.ceil(math.log10(max(ratios)) + 0.1))
    axes.set(title="Update over weights", xlabel="|update| / |weights|")
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="y", lw=0.3)
