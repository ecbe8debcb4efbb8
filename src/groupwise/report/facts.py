"""The facts of a run: when, with what, how long, how large."""

from __future__ import annotations

import math

from groupwise.report.numbers import formatted
from groupwise.report.reading import Reading


def facts(reading: Reading) -> tuple[tuple[str, str], ...]:
    """What and value, in the order in which they are read."""
    header, steps = reading.run.header, reading.steps
    parameters = sum(group.parameters for group in reading.run.groups)
    found = (
        ("started", header.started.replace("T", " ").partition(".")[0]),
        ("written by", header.writer),
        ("steps", _steps(reading)),
        ("records", f"{len(steps):,}"),
        ("time", _duration(reading)),
        (f"{header.by}s", f"{len(reading.groups):,} ({parameters:,} parameters)" if reading.groups else ""),
        ("tasks", ", ".join(reading.run.tasks)),
        ("observing", _observing(reading)),
        ("parts", str(header.part) if header.part > 1 else ""),
        ("state", "finished" if reading.finished else "no end mark: it still runs, or was stopped"),
    )
    return tuple((what, value) for what, value in found if value)


def _observing(reading: Reading) -> str:
    """Of a run whose cadences keep a budget, that, and whether they were stretched for it."""
    header, stretched = reading.run.header, [event for event in reading.run.events if event.event == "cadence"]
    if header.budget is None:
        return ""
    since = f", stretched at step {stretched[-1].step:,}" if stretched else ""
    return f"at most {formatted(100 * header.budget)} % of the time{since}"


def _steps(reading: Reading) -> str:
    steps, total = reading.steps, reading.run.header.total_steps
    if not len(steps):
        return "none yet"
    return f"{steps[0]:,} to {steps[-1]:,}" + (f" of {total:,}" if total else "")


def _duration(reading: Reading) -> str:
    """The seconds of all parts: a clock that goes back has begun another part."""
    total = before = 0.0
    for now in reading.run.times:
        if math.isfinite(now):
            total, before = total + (now - before if now >= before else now), now
    if not 0 < total < math.inf:
        return ""
    minutes, seconds = divmod(round(total), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{total:.3g} s"
