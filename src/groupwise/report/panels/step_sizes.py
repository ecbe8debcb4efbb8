"""The effective step: root mean square of an entry's update over the learning rate."""

from __future__ import annotations

from groupwise.report.document import Figure, Guide, Panel
from groupwise.report.panels.plots import Plot, over_time
from groupwise.report.reading import Reading


def panel(reading: Reading) -> Panel:
    """Step sizes, then the cosine between successive gradients."""
    lead = (
        "What an algorithm makes of the gradient, free of the learning rate: near 1 where every entry moves by lr "
        "(sign-like, Adam when gradients agree), the root mean square of the gradient under plain SGD."
    )
    figures: list[Figure] = []
    sizes = reading.statistic("step_size")
    if sizes:
        figures += over_time(sizes, Plot("Effective step of an entry", "rms(Δw) / lr", True, (Guide(1.0, "lr"),)))
    turns = reading.statistic("gradient_cosine")
    if turns:
        guides = (Guide(0.0, "turns back below"),)
        title = "Cosine between successive gradients"
        figures += over_time(turns, Plot(title, "cosine", guides=guides, ramp="signed"))
    missing = "" if figures else reading.no_record("hold no `step_size`", ": leave the observer's `updates` on.")
    return Panel("steps", "Effective steps", lead, tuple(figures), missing)
