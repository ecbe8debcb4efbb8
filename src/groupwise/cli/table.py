"""The table of groups: everything that is optimised, and how, at the first update and at the end.

What some group declares is a column; what nobody declares is told once per algorithm, dimmed, under the table. A value
with factors is followed by the product that it is, on the same line where the terminal is wide enough, else below. In
less room still, columns that are the same in every group are told once; in the least, each group is a paragraph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich import box
from rich.console import Console, RenderableType
from rich.console import Group as Stack
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from groupwise._spelling import counted, number
from groupwise.cli.exit_status import printable
from groupwise.cli.lengths import Lengths
from groupwise.plan import Group, Resolution, ScalarSetting, Setting, TupleSetting
from groupwise.plan.guesses import guesses_of
from groupwise.plan.rule import property_of
from groupwise.plan.table import totals, with_parts

_NONE = "–"
_UNBOUNDED = 100_000


@dataclass(frozen=True)
class Cell:
    """A value over the run, and the product that its peak is, if factors made it one."""

    course: str
    product: str = ""
    style: str = ""

    def __post_init__(self) -> None:
        for name in ("course", "product"):
            object.__setattr__(self, name, printable(getattr(self, name)))


Rows: TypeAlias = Sequence[tuple[Group, Mapping[str, Cell]]]


def table(resolution: Resolution, lengths: Lengths, console: Console) -> RenderableType:
    """The table with its totals and the class defaults that stand, as fits `console`."""
    declared = list(dict.fromkeys(name for group in resolution.groups for name in group.settings))
    clip = ["clip"] if any(group.clip for group in resolution.groups) else []
    shown = with_parts(resolution.groups)
    rows = [(group, dict(_cells(resolution, group, declared, clip, lengths))) for group in shown]
    shared = _shared(rows)
    across = ((_across(rows, below, hidden), hidden) for hidden in ({}, shared) for below in (False, True))
    fitting = ((grid, hidden) for grid, hidden in across if _width(grid, console) <= console.width)
    body: tuple[RenderableType, Mapping[str, Cell]] = next(fitting, (_stacked(rows, shared, console.width), shared))
    return Stack(body[0], *_below(resolution, declared, rows, body[1]))


def _shared(rows: Rows) -> dict[str, Cell]:
    """The columns that say the same in every one of several groups."""
    first = rows[0][1]
    return {
        name: cell for name, cell in first.items() if len(rows) > 1 and all(cells[name] == cell for _, cells in rows)
    }


def _width(grid: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update_width(_UNBOUNDED), grid).maximum


def _across(rows: Rows, below: bool, hidden: Collection[str]) -> Table:
    """One column for each property that is not `hidden`, products on the same line or `below`."""
    grid = _frame()
    columns = [name for name in rows[0][1] if name not in hidden]
    widths = {name: max(len(cells[name].course) for _, cells in rows) for name in columns}
    for heading in ("group", "tensors", "parameters", *columns):
        grid.add_column(printable(heading), justify="right" if heading in ("tensors", "parameters") else "left")
    for group, cells in rows:
        grid.add_row(*_head(group), *(_text(cells[name], None if below else widths[name]) for name in columns))
    return grid


def _stacked(rows: Rows, hidden: Collection[str], width: int) -> Stack:
    """A paragraph for each group: its name and counts, then its values, as many on a line as fit."""
    lines: list[Text] = []
    for group, cells in rows:
        counts = f"{counted(len(group.parameters), 'tensor')}, {counted(group.numel, 'parameter')}"
        lines.append(Text.assemble(_head(group)[0], f"  {counts}"))
        lines += _paragraph([_item(name, cell) for name, cell in cells.items() if name not in hidden], width)
    return Stack(*lines)


def _item(name: str, cell: Cell) -> Text:
    if cell.course == _NONE:
        return Text()
    product = Text(f" ({cell.product})" if cell.product else "", style="dim")
    return Text.assemble((printable(name), "italic"), " ", (cell.course, cell.style), product)


def _paragraph(items: Iterable[Text], width: int) -> Iterator[Text]:
    """Indented lines of the items that are not empty; none is torn apart unless it is wider than a line."""
    line = Text()
    for item in filter(None, items):
        if line and 4 + line.cell_len + 3 + item.cell_len > width:
            yield Text("    ").append_text(line)
            line = Text()
        line.append("   " if line else "").append_text(item)
    yield Text("    ").append_text(line)


def _frame() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))


def _head(group: Group) -> tuple[Text, Text, Text]:
    indent = " " * (len(group.name) - len(group.name.lstrip(" ")))  # of a part, below its group
    name = Text(indent + printable(group.name), style="" if indent else "bold")
    return name, Text(f"{len(group.parameters):,}"), Text(f"{group.numel:,}")


def _text(cell: Cell, width: int | None) -> Text:
    """The course, with the product beside it past `width` columns, or below it."""
    text = Text(cell.course, style=cell.style)
    apart = "\n" if width is None else " " * (width - len(cell.course) + 2)
    return text.append(f"{apart}{cell.product}", style="dim") if cell.product else text


def _cells(
    resolution: Resolution, group: Group, declared: Iterable[str], clip: Iterable[str], lengths: Lengths
) -> Iterator[tuple[str, Cell]]:
    defaults = resolution.algorithms[group.algorithm].defaults if group.algorithm else {}
    yield "algorithm", Cell(printable(group.algorithm or _NONE))
    for name in declared:
        if name in group.settings:
            yield property_of(name), _setting(group.settings[name], lengths)
        else:
            yield (
                property_of(name),
                Cell(f"{number(defaults[name])} (default)" if name in defaults else _NONE, style="dim"),
            )
    for heading in clip:
        yield heading, Cell(f"{group.clip.clip} ({printable(group.clip.label)})" if group.clip else _NONE)
    yield "trains", _trains(group.freezing)


def _trains(freezing: str) -> Cell:
    words = {"trainable": "yes", "frozen": "no"}
    return Cell(words.get(freezing, freezing), style="" if freezing == "trainable" else "cyan")


def _setting(setting: Setting, lengths: Lengths) -> Cell:
    if isinstance(setting, TupleSetting):
        elements = [_setting(element, lengths) for element in setting.elements]
        products = ", ".join(element.product or element.course for element in elements)
        course = f"({', '.join(element.course for element in elements)})"
        return Cell(course, f"({products})" if any(element.product for element in elements) else "")
    if not isinstance(setting, ScalarSetting):
        return Cell(str(setting))
    product = " × ".join(
        [number(ScalarSetting(setting.base).peak), *(printable(factor.text) for factor in setting.factors)]
    )
    return Cell(_course(setting, lengths), product if setting.factors else "")


def _course(single: ScalarSetting, lengths: Lengths) -> str:
    """`1.5e-4 → 0`: the value of the first update and the one at the end, as far as the lengths tell them."""
    if not single.schedules:
        return number(single.at(0))
    if not lengths.know(need for schedule in single.schedules for need in schedule.needs):
        return f"peak {number(single.peak)} → ?"
    total, epoch = lengths.total_steps, lengths.steps_per_epoch
    now = number(single.at(0, total, epoch))
    return f"{now} → {'?' if total is None else number(single.at(total, total, epoch))}"


def _below(resolution: Resolution, declared: list[str], rows: Rows, hidden: Mapping[str, Cell]) -> Iterator[Text]:
    yield Text(f"\n{totals(resolution.groups)}", style="bold")
    if hidden:
        said = [" = ".join(filter(None, (f"{name} {cell.course}", cell.product))) for name, cell in hidden.items()]
        yield Text(f"in every group: {printable(', '.join(said))}")
    guesses = guesses_of(resolution.rules, resolution.parameters)
    yield from (Text(printable(note)) for note in (*resolution.notes, *guesses))
    if resolution.clip is not None:
        yield Text(f"clip over everything, last: {printable(str(resolution.clip))}")
    cells = [cell for _, row in rows for cell in row.values()]
    keys = ["a → b: at the first update, at the end"] if any("→" in cell.course for cell in cells) else []
    keys += ["a × b: peak × factors"] if any(cell.product for cell in cells) else []
    if keys:
        yield Text("; ".join(keys), style="dim")
    for name in dict.fromkeys(group.algorithm for group in resolution.groups if group.algorithm):
        defaults = resolution.algorithms[name].defaults
        said = [f"{key} {number(value)}" for key, value in defaults.items() if key not in declared]
        if said:
            yield Text(printable(f"{name} by default: {', '.join(said)}"), style="dim")
