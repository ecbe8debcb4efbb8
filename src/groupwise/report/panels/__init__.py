"""The panels of a report, in the order in which a person reads them. Each asks a run one question."""

from groupwise.report.document import Panel
from groupwise.report.panels import (
    conflicts,
    contributions,
    events,
    gradients,
    largest,
    layers,
    noise,
    plan,
    schedules,
    shares,
    step_sizes,
    tasks,
    updates,
)
from groupwise.report.reading import Reading

_ALL = (
    plan, schedules, tasks, updates, gradients, contributions, layers, shares, conflicts, step_sizes, noise, largest,
    events,
)  # fmt: skip


def panels(reading: Reading) -> tuple[Panel, ...]:
    """Every panel, those that cannot be drawn too: they say why."""
    return tuple(module.panel(reading) for module in _ALL)


__all__ = ["panels"]
