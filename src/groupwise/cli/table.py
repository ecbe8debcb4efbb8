"""The table of groups: everything that is optimised, and how, at the first update and at the end.

What some group declares is a column; what nobody declares is told once per algorithm, dimmed, under the table. Where the
table is wider than the terminal, each group's values are stacked in one column instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group as Stack, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from groupwise.cli.door import printable
from groupwise.cli.spelling import number
from groupwise.plan import Group, Resolution, Setting, Several, Single
from groupwise.plan.table import totals
from groupwise.schedules import Schedule

_DIM = "dim"


@dataclass(frozen=True)
class Lengths:
    """The lengths of the run, as far as they were given."""

    total_steps: int | None = None
    steps_per_epoch: int | None = None

    def know(self, needs: Iterable[str]) -> bool:
        """Whether everything in `needs` was given."""
        return all(getattr(self, name) is not None for name in needs)


def table(resolution: Resolution, lengths: Lengths, console: Console) -> RenderableType:
    """The table with its totals and the class defaults that stand, as fits `console`."""
    declared = list(dict.fromkeys(name for group in resolution.groups for name in group.settings))
    rows = {group.name: dict(_cells(resolution, group, declared, lengths)) for group in resolution.groups}
    extras = ["clip"] if any(group.clip for group in resolution.groups) else []
    columns = [*declared, *extras, "trains"]
    wide = _wide(resolution, columns, rows)
    fits = Measurement.get(console, console.options, wide).maximum <= console.width
    body = wide if fits else _stacked(resolution, columns, rows)
    return Stack(body, *_below(resolution, declared))


def _wide(resolution: Resolution, columns: list[str], rows: dict[str, dict[str, Text]]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("group", overflow="fold")
    grid.add_column("algorithm")
    for heading in ("tensors", "parameters"):
        grid.add_column(heading, justify="right")
    for heading in columns:
        grid.add_column(printable(heading))
    for group in resolution.groups:
        grid.add_row(*_head(group), *(rows[group.name][column] for column in columns))
    return grid


def _stacked(resolution: Resolution, columns: list[str], rows: dict[str, dict[str, Text]]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_lines=False)
    grid.add_column("group", overflow="fold", ratio=2)
    grid.add_column("tensors", justify="right")
    grid.add_column("parameters", justify="right")
    grid.add_column("values", overflow="fold", ratio=3)
    for group in resolution.groups:
        name, algorithm, tensors, parameters = _head(group)
        said = {column: rows[group.name][column] for column in columns if rows[group.name][column].plain != "–"}
        algorithm.stylize(_DIM)
        grid.add_row(Text.assemble(name, "\n", algorithm), tensors, parameters, _lines(said))
    return grid


def _lines(said: dict[str, Text]) -> Table:
    inner = Table.grid(padding=(0, 1, 0, 0))
    for name, cell in said.items():
        inner.add_row(Text(printable(name), style="italic"), cell)
    return inner


def _head(group: Group) -> tuple[Text, Text, Text, Text]:
    algorithm = Text(printable(group.algorithm or "–"))
    return (
        Text(printable(group.name), style="bold"),
        algorithm,
        Text(f"{len(group.parameters):,}"),
        Text(f"{group.numel:,}"),
    )


def _cells(
    resolution: Resolution, group: Group, declared: Iterable[str], lengths: Lengths
) -> Iterator[tuple[str, Text]]:
    defaults = resolution.algorithms[group.algorithm].defaults if group.algorithm else {}
    for name in declared:
        if name in group.settings:
            yield name, _setting(group.settings[name], lengths)
        elif name in defaults:
            yield name, Text(number(defaults[name]), style=_DIM)
        else:
            yield name, Text("–", style=_DIM)
    yield "clip", _clip(group)
    yield "trains", _trains(group)


def _setting(setting: Setting, lengths: Lengths) -> Text:
    """`1.5e-4 → 0`, and under it the product that it is where factors apply."""
    if isinstance(setting, Several):
        parts = [_course(element, lengths) for element in setting.elements]
        products = [_product(element) for element in setting.elements if element.factors]
        course = f"({', '.join(parts)})"
    else:
        single = setting if isinstance(setting, Single) else Single(setting.peak)
        course, products = _course(single, lengths), [_product(single)] if single.factors else []
    cell = Text(course)
    for product in products:
        cell.append(f"\n{product}", style=_DIM)
    return cell


def _course(single: Single, lengths: Lengths) -> str:
    if not single.schedules:
        return number(single.at(0))
    if not lengths.know(need for schedule in single.schedules for need in schedule.needs):
        return f"peak {number(single.peak)} → ?"
    now = number(single.at(0, lengths.total_steps, lengths.steps_per_epoch))
    if lengths.total_steps is None:
        return f"{now} → ?"
    return f"{now} → {number(single.at(lengths.total_steps, lengths.total_steps, lengths.steps_per_epoch))}"


def _product(single: Single) -> str:
    scheduled = isinstance(single.base, Schedule)
    base = f"peak {number(single.base.highest)}" if isinstance(single.base, Schedule) else number(single.base)
    factors = [printable(factor.text) for factor in single.factors]
    return " × ".join([base, *factors]) if scheduled or factors else base


def _clip(group: Group) -> Text:
    return Text(f"{group.clip.clip} ({printable(group.clip.label)})") if group.clip else Text("–", style=_DIM)


def _trains(group: Group) -> Text:
    words = {"trainable": "yes", "frozen": "no"}
    return Text(words.get(group.freezing, group.freezing), style="" if group.freezing == "trainable" else "cyan")


def _below(resolution: Resolution, declared: list[str]) -> Iterator[Text]:
    yield Text(totals(resolution), style="bold")
    if resolution.plan.clip is not None:
        yield Text(f"clip over everything, last: {resolution.plan.clip}")
    for name in dict.fromkeys(group.algorithm for group in resolution.groups if group.algorithm):
        defaults = resolution.algorithms[name].defaults
        said = [f"{key} {number(value)}" for key, value in defaults.items() if key not in declared]
        if said:
            yield Text(f"{printable(name)} by default: {', '.join(said)}", style=_DIM)
