"""The plan: the table that the run was started with; without one, the groups as the records list them."""

from __future__ import annotations

from groupwise.records import Group
from groupwise.report.document import Figure, Panel, Table, Verbatim
from groupwise.report.numbers import formatted
from groupwise.report.reading import Reading


def panel(reading: Reading) -> Panel:
    """The plan's table as it was written, or the groups where there is none or where they have changed since."""
    table = reading.run.header.table
    figures: list[Figure] = [Verbatim("The plan, as resolved", table)] if table else []
    groups = reading.run.groups
    if groups and not {group.name for group in groups} <= set(reading.planned):
        columns = ("group", "algorithm", "tensors", "parameters", "clip")
        figures.append(Table("Groups", columns, tuple(_row(group) for group in groups), _total(groups)))
    lead = "Which parameters were optimised how. A group is a class of parameters with equal settings."
    missing = "" if figures else "The records list no groups: they were written without an optimizer."
    return Panel("plan", "The plan", lead, tuple(figures), missing)


def _row(group: Group) -> tuple[str, ...]:
    clip = f"{group.clip.kind} {formatted(group.clip.bound)} ({group.clip.scope})" if group.clip else "-"
    return (group.name, group.algorithm or "-", f"{group.tensors:,}", f"{group.parameters:,}", clip)


def _total(groups: tuple[Group, ...]) -> str:
    tensors, parameters = (sum(getattr(g, name) for g in groups) for name in ("tensors", "parameters"))
    return f"Together: {tensors:,} tensors, {parameters:,} parameters."
