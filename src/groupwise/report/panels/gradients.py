"""Gradient norms before clipping, the line at which they are clipped, and how often that happened."""

from __future__ import annotations

from array import array

from groupwise.records import Series
from groupwise.report.document import Figure, Guide, Panel, Table
from groupwise.report.numbers import formatted, percent, quantile, share
from groupwise.report.panels.plots import Plot, over_time
from groupwise.report.reading import WARM_UP, Reading, later

_WINDOWS = 40


def panel(reading: Reading) -> Panel:
    """The norm of every group, the joint norm of every clip scope, the share of clipped steps over time."""
    lead = "The size of the gradient before clipping, and how much of it clipping took away."
    norms = reading.statistic("grad_norm")
    if not norms:
        missing = reading.no_record("hold no `grad_norm`", ": leave the observer's `gradients` on.")
        return Panel("gradients", "Gradients and clipping", lead, missing=missing)
    figures: list[Figure] = [*over_time(norms, Plot("Gradient norm of each group", "‖g‖", True))]
    clipped = [scope for scope in reading.scopes if bound(reading, scope) is not None and reading.is_joint(scope)]
    scopes = {scope: reading.norm(scope) for scope in clipped}
    joint = {scope: norm for scope, norm in scopes.items() if len(norm.steps)}
    if joint:
        bounds = {scope: bound(reading, scope) or 0.0 for scope in joint}
        guides = tuple(Guide(value, f"clip {formatted(value)} ({scope})") for scope, value in bounds.items())
        figures += over_time(joint, Plot("Joint norm of each clip scope", "‖g‖ of the scope", True, guides))
    if reading.scopes:
        shares = {scope: _windows(reading.clipped(scope)) for scope in reading.scopes}
        figures += over_time(shares, Plot("Share of steps that were clipped", "share of steps"))
        figures.append(_table(reading))
    return Panel("gradients", "Gradients and clipping", lead, tuple(figures))


def bound(reading: Reading, scope: str) -> float | None:
    """The bound of a scope that is clipped by its norm."""
    clip = reading.clips.get(reading.scopes[scope][0])
    return clip.bound if clip is not None and clip.kind == "norm" else None


def _windows(factor: Series) -> Series:
    """The share of clipped steps in each of up to 40 stretches."""
    size = -(-len(factor.steps) // _WINDOWS)
    starts = range(0, len(factor.steps), size)
    held = (share([value < 1 for value in factor.values[at : at + size]]) for at in starts)
    return Series(array("q", (factor.steps[at] for at in starts)), array("d", held))


def _table(reading: Reading) -> Table:
    columns = ("scope", "groups", "bound", "clipped steps", "median norm", "95 % of norms below")
    rows = []
    for scope, groups in reading.scopes.items():
        limit, norms = bound(reading, scope), later(reading.norm(scope))
        clipped = percent(share([value < 1 for value in reading.clipped(scope).values]))
        numbers = (formatted(quantile(norms, 0.5)), formatted(quantile(norms, 0.95))) if norms else ("-", "-")
        rows.append((scope, f"{len(groups):,}", formatted(limit) if limit else "-", clipped, *numbers))
    return Table("Clip scopes", columns, tuple(rows), f"Norms without the first {percent(WARM_UP)} of the records.")
