"""How far a run has come, how fast it goes, how long the rest takes."""

from __future__ import annotations

import math
from typing import Final

from groupwise.records import Run
from groupwise.report.numbers import formatted, percent

RECENT: Final = 50
"""Records over which the time of a step is taken: training changes its pace."""
SILENT: Final = 30.0
"""Seconds without a record that are worth a word, at least; ten steps, where they take longer."""


def progress(run: Run, quiet: float = 0.0) -> str:
    """The step, its share of the run, the time of a step and of what is left, where they are known.

    Args:
        run: as far as it was written.
        quiet: for how many seconds it has had no new record.
    """
    steps, total = run.steps, run.header.total_steps
    if not len(steps):
        return _silence(quiet, 0.0)
    done, pace = steps[-1] + 1, _pace(run)
    parts = [f"step {steps[-1]:,}" + (f" of {total:,}, {percent(min(done / total, 1.0))} done" if total else "")]
    if silence := _silence(quiet, pace or 0.0):
        parts.append(silence)
    elif pace is not None:
        parts.append(f"{_length(pace)} a step")
        if total and done < total:
            parts.append(f"about {_length(pace * (total - done))} left")
    return "; ".join(parts)


def _pace(run: Run) -> float | None:
    """Seconds that a step takes, over the last records of the newest part; None where they do not say it."""
    steps, times = run.steps[-RECENT:], run.times[-RECENT:]
    begun = max((i for i in range(1, len(times)) if not times[i] >= times[i - 1]), default=0)
    if len(steps) - begun < 2:
        return None
    pace = (times[-1] - times[begun]) / (steps[-1] - steps[begun])
    return pace if 0 < pace < math.inf else None


def _silence(quiet: float, pace: float) -> str:
    if quiet < max(SILENT, 10 * pace):
        return ""
    return f"no new record for {_length(quiet)}: it stands, or was stopped"


def _length(seconds: float) -> str:
    """`66 ms`, `4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 1:
        return f"{formatted(1000 * seconds)} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
