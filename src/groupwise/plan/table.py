"""The table of a resolution, as plain text or HTML: one row a group, factors shown as the products that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from groupwise._spelling import number
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.clip import Clip
from groupwise.plan.group import Group
from groupwise.plan.rule import property_of

RIGHT = frozenset({"tensors", "parameters"})


def columns_of(groups: Sequence[Group]) -> list[str]:
    """The table's columns: the fixed ones around every hyperparameter that some group declares."""
    declared = dict.fromkeys(property_of(name) for group in groups for name in group.settings)
    clip = ["clip"] if any(group.clip for group in groups) else []
    return ["group", "algorithm", "tensors", "parameters", *declared, *clip, "trains"]


def with_parts(groups: Sequence[Group]) -> list[Group]:
    """The groups as a table has them: after each, indented, the parts that its parameters are taken apart into."""
    return [
        shown
        for group in groups
        for shown in (group, *(replace(part, name=f"  {part.name}") for part in group.by_part))
    ]


def row_of(group: Group, columns: Sequence[str], algorithms: Mapping[str, Algorithm]) -> list[str]:
    """One group's cells: what is declared, the class default in force where nothing is, "-" where there is no such."""
    cells = {
        "group": group.name,
        "algorithm": group.algorithm or "-",
        "tensors": f"{len(group.parameters):,}",
        "parameters": f"{group.numel:,}",
        "clip": f"{group.clip.clip} ({group.clip.label})" if group.clip else "-",
        "trains": {"trainable": "yes", "frozen": "no"}.get(group.freezing, group.freezing),
    }
    defaults = algorithms[group.algorithm].defaults if group.algorithm is not None else {}
    standing = {property_of(name): f"{number(value)} (default)" for name, value in defaults.items()}
    settings = {property_of(name): str(setting) for name, setting in group.settings.items()}
    return [(standing | settings | cells).get(column, "-") for column in columns]


def table(
    groups: Sequence[Group], algorithms: Mapping[str, Algorithm], clip: Clip | None, notes: Sequence[str] = ()
) -> str:
    """The table with totals and `notes` below it, ending in no newline; `clip` is the plan's own, over everything."""
    columns = columns_of(groups)
    rows = [columns, *(row_of(group, columns, algorithms) for group in with_parts(groups))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    lines = [
        "  ".join(
            cell.rjust(w) if name in RIGHT else cell.ljust(w)
            for name, cell, w in zip(columns, row, widths, strict=True)
        )
        for row in rows
    ]
    rule = "  ".join("─" * width for width in widths)
    below = lines_below(groups, clip, notes)
    return "\n".join(line.rstrip() for line in [lines[0], rule, *lines[1:], rule, *below])


def lines_of(groups: Sequence[Group], algorithms: Mapping[str, Algorithm]) -> list[str]:
    """A line each, for a log: `head: AdamW, 2 tensors, 130 parameters, lr 1e-3, weight_decay 0.01, trains`."""
    columns = columns_of(groups)
    named = [part for group in groups for part in (group, *(_below(group, part) for part in group.by_part))]
    return [_line(dict(zip(columns, row_of(group, columns, algorithms), strict=True))) for group in named]


def _below(group: Group, part: Group) -> Group:
    return replace(part, name=f"{group.name} {part.name}")


def _line(cells: dict[str, str]) -> str:
    name, algorithm, trains = cells.pop("group"), cells.pop("algorithm"), cells.pop("trains")
    sizes = f"{cells.pop('tensors')} tensors, {cells.pop('parameters')} parameters"
    values = [f"{key} {value}" for key, value in cells.items() if value != "-"]
    training = {"yes": "trains", "no": "frozen"}.get(trains, f"trains {trains}")
    return f"{name}: {', '.join([algorithm, sizes, *values, training])}"


def html_table(
    groups: Sequence[Group], algorithms: Mapping[str, Algorithm], clip: Clip | None, notes: Sequence[str] = ()
) -> str:
    """The same table as HTML, for notebooks."""
    from groupwise import _html

    columns = columns_of(groups)
    rows = [row_of(group, columns, algorithms) for group in with_parts(groups)]
    return _html.table(columns, rows, RIGHT, lines_below(groups, clip, notes))


def lines_below(groups: Sequence[Group], clip: Clip | None, notes: Sequence[str]) -> list[str]:
    """What stands under the table: the totals, the plan's own clip, notes."""
    return [totals(groups), *([f"clip over everything: {clip}"] if clip else []), *notes]


def totals(groups: Sequence[Group]) -> str:
    """One line: groups, tensors, parameters, how many of them train at the first step."""
    tensors = sum(len(group.parameters) for group in groups)
    numbers = sum(group.numel for group in groups)
    frozen = sum(group.numel for group in groups if group.freezing == "frozen")
    tail = f", {frozen:,} of them frozen" if frozen else ""
    return f"{_count(len(groups), 'group')}, {_count(tensors, 'tensor')}, {numbers:,} parameters{tail}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
