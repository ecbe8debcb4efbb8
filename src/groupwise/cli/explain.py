"""`groupwise explain`: property by property, the rule that had the last word and the declarations before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groupwise.cli.exit_status import printable
from groupwise.cli.resolving import resolved
from groupwise.errors import GroupwiseError, listed
from groupwise.plan import Explained, Explanation, Resolution
from groupwise.plan.explanation import other_names
from groupwise.plan.parts import name_of_whole
from groupwise.select import nearest, select

_STYLES = {"last word": "bold green", "factor": "green", "overridden": "dim"}
_MOST = 20


def explain(
    plan: Path, parameter: str, model: str, allow: Sequence[str], console: Console, example: str | None = None
) -> None:
    """Print why `parameter` is optimised as it is. Raises `GroupwiseError` where the name is not that of one."""
    resolution = resolved(plan, model, allow, example)
    story = resolution.explain(_one_name(resolution, parameter))
    for line in _head(story):
        console.print(line, soft_wrap=True)
    said = [explained for explained in story.properties if explained.outcomes]
    for explained in said:
        console.print()
        console.print(Text.assemble((explained.property, "bold"), f" = {printable(explained.value)}"), soft_wrap=True)
        console.print(_words(explained))
    defaults = [explained for explained in story.properties if not explained.outcomes]
    if defaults:
        console.print(Text("\nno rule declares", style="dim"))
        for explained in defaults:
            console.print(Text(f"  {explained.property} = {printable(explained.value)}", style="dim"), soft_wrap=True)


def _one_name(resolution: Resolution, given: str) -> str:
    """`given` if it is the name of a parameter, or the only name that it fits. Raises `GroupwiseError` otherwise."""
    wholes, pieces = resolution.parameters, [piece for group in resolution.groups for piece in group.pieces]
    infos = tuple({info.name: info for info in (*pieces, *wholes)}.values())
    if any(given in info.names for info in infos):
        return given
    fitting = (select(given, wholes) or select(given, pieces)) if given.strip("./") else ()
    found = [info.name for info in fitting]
    if len(found) == 1:
        return found[0]
    if found:
        raise GroupwiseError(f"{given!r} fits {len(found)} parameters, and explain takes one: {listed(found, _MOST)}")
    close = nearest(given, infos) if given.strip("./") else []
    hint = f"nearest: {listed(close, 5)}" if close else f"names look like {listed((info.name for info in infos), 3)}"
    raise GroupwiseError(f"there is no parameter {given!r}; {hint}")


def _head(story: Explanation) -> Iterator[Text]:
    info = story.info
    yield Text(printable(info.name), style="bold")
    if names := other_names(info):
        yield Text(f"  also known as {printable(', '.join(names))}")
    yield Text(f"  shape {info.shape}, depth {info.depth}, in group {printable(story.group)!r}")
    if info.part is not None:
        yield Text(f"  part of {printable(name_of_whole(info))}: {printable(str(info.part))}")
    yield from (Text(f"  part {printable(part)}") for part in story.parts if info.part is None)
    if info.basis is not None:
        yield Text(f"  roles and depth: {printable(str(info.basis))}", style="dim")
    for role, why in sorted(info.reasons.items()):
        yield Text(f"  {role}: {printable(why)}", style="dim")


def _words(explained: Explained) -> Table:
    """The outcomes: the last declaration, the factors, then those that it overrides, the latest first."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    for column in ("verdict", "rule", "says"):
        lines.add_column(column, overflow="fold")
    ranks = {"last word": 0, "factor": 1}
    for who, word in sorted(explained.outcomes, key=lambda said: (ranks.get(said[1].status, 2), -said[1].rule)):
        style = _STYLES.get(word.status, "dim" if not word.effective else "")
        rule, _, silencer = who.partition(" → ")
        verdict = word.status + (f" by {silencer}" if silencer and word.status == "overridden" else "")
        lines.add_row(
            Text(f"  {printable(verdict)}", style=style),
            Text(printable(rule)),
            Text(printable(word.text), style="" if word.effective else "dim"),
        )
    return lines
