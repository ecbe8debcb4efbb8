"""`groupwise diff`: what a plan changes for a model, compared with another plan or with a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groupwise._formats import format_of
from groupwise._spelling import counted
from groupwise.cli.exit_status import printable
from groupwise.cli.resolving import resolved, resolved_all
from groupwise.errors import PlanError, StateError, listed, within
from groupwise.plan import Change, Difference, Plan, Resolution, differences, standings
from groupwise.plan.difference import NONE, outside

_NAMES = 3
_PARTS = ("optimizer", "optimizer_state_dict", "optim")
"""Where programs keep an optimizer's state in a checkpoint."""


def diff(
    before: Path, after: Path, model: str, allow: Sequence[str], console: Console, example: str | None = None
) -> bool:
    """Print what differs; whether anything does. Raises `GroupwiseError` for what cannot be read or does not fit."""
    if not after.suffix or not _is_plan(after):
        raise PlanError(
            f"{after}: what is compared with comes first, a plan or a checkpoint; the second is a plan file"
        )
    if _is_plan(before):
        was, now = resolved_all([before, after], model, allow, example)
        common = (*outside(was, now), *_balance(before, after, allow))
        found = differences(standings(was), standings(now))
    else:
        now, common = resolved(after, model, allow, example), ()
        found = _from_checkpoint(before, now)
    _print(f"{before} → {after} on {model}", found, common, now, console)
    return bool(found or common)


def _is_plan(path: Path) -> bool:
    try:
        return bool(format_of(path))
    except PlanError:
        return False


def _balance(before: Path, after: Path, allow: Sequence[str]) -> tuple[Change, ...]:
    was, now = (Plan.load(path, allow).balance for path in (before, after))
    return () if was == now else (Change("balance", _table(was), _table(now)),)


def _table(data: Mapping[str, Any] | None) -> str:
    return NONE if data is None else ", ".join(f"{key} = {value}" for key, value in data.items())


def _from_checkpoint(path: Path, now: Resolution) -> tuple[Difference, ...]:
    from groupwise.optim.saved_standings import saved_standings

    with within(str(path)):
        return differences(*saved_standings(_state(path), now))


def _state(path: Path) -> Mapping[str, Any]:
    """The optimizer's state in a checkpoint of groupwise or of torch. Raises `StateError` where there is none."""
    import pickle

    import torch

    from groupwise.checkpoint import archive

    try:
        content: Any = archive.read(path, "cpu").parts
    except StateError as ours:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise StateError(f"it is neither a plan (.toml, .yaml, .json) nor a checkpoint: {ours}") from error
    if isinstance(content, Mapping):
        for held in (content, *(content.get(name) for name in _PARTS)):
            if isinstance(held, Mapping) and "param_groups" in held:
                return held
    keys = listed(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise StateError(f"it holds no optimizer's state (param_groups), also not under {listed(_PARTS)}; it has {keys}")


def _print(
    title: str, found: Sequence[Difference], common: Sequence[Change], now: Resolution, console: Console
) -> None:
    console.print(Text(f"{printable(title)}\n", style="dim"), soft_wrap=True)
    if not found and not common:
        console.print(Text("Both come to the same for every parameter."))
        return
    for change in common:
        console.print(_change(change))
    if common and found:
        console.print()
    for difference in found:
        console.print(_head(difference))
        console.print(_body(difference))
    changed = sum(len(difference.parameters) for difference in found)
    total, numel = len(now.parameters), sum(difference.numel for difference in found)
    console.print(Text(f"\n{changed:,} of {counted(total, 'tensor')} differ, {numel:,} parameters", style="bold"))


def _head(difference: Difference) -> Text:
    groups = dict.fromkeys(group for group in (difference.before, difference.after) if group is not None)
    counts = f"{counted(len(difference.parameters), 'tensor')}, {counted(difference.numel, 'parameter')}"
    named = Text(printable(" → ".join(groups)), style="bold")
    return named.append(f"  {counts}: {printable(listed(difference.parameters, _NAMES))}", style="not bold")


def _body(difference: Difference) -> Table:
    lines = Table.grid(padding=(0, 2, 0, 0))
    for row in _rows(difference):
        lines.add_row(*row)
    return lines


def _rows(difference: Difference) -> Iterator[tuple[Text, ...]]:
    if difference.before is None:
        yield (Text("    new: not there before", style="green"),)
    elif difference.after is None:
        yield (Text("    gone: not there any more", style="red"),)
    for change in difference.changes:
        said = Text.assemble((printable(change.before), "red"), " → ", (printable(change.after), "green"))
        yield Text(f"    {printable(change.property)}", style="italic"), said


def _change(change: Change) -> Text:
    return Text(printable(str(change)))
