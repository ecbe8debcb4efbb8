"""What differs between runs, in words: the plan as it was resolved, the data seen, the course of losses and rates.

Everything is read from the reports themselves, so a page that was written before can be compared as well as a run. The
first run is what the others are held against; what is equal is not listed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from groupwise.report.document import Line, Lines, Report, RunReport, Sentence, Table, Verbatim
from groupwise.report.numbers import finite, formatted, median, quoted
from groupwise.report.plan_table import Rows, rows_of
from groupwise.report.reading import is_loss

APART: Final = 1.5
"""Two courses whose last values or medians lie apart by this factor are listed."""
MOST: Final = 6
ERRORS: Final = 4.0
"""Two ends are apart by more than so many standard errors of their difference, and by 1 %."""
_COURSES: Final = {"schedules": "rates and settings", "updates": "steps"}
"""By panel: what its lines are."""
_FACTS: Final = ("steps", "groups", "layers", "rules", "networks", "tasks", "parts", "state", "written by")


def differences(report: Report) -> tuple[Sentence, ...]:
    """Sentences on what each run after the first has otherwise; none for one run, or for equal ones."""
    first, *others = report.runs
    return tuple(sentence for other in others for sentence in _between(first, other))


def _between(first: RunReport, other: RunReport) -> Iterator[Sentence]:
    found = [*_plan(first, other), *_seen(first, other), *_courses(first, other)]
    yield from found
    yield from _ends(first, other, bool(found))


def _plan(first: RunReport, other: RunReport) -> Iterator[Sentence]:
    ours, theirs = _rows(first), _rows(other)
    changes = [
        f"'{group}' has {column} {row[column]}, not {ours[group].get(column) or 'none'}"
        for group, row in theirs.items()
        if group in ours
        for column in row
        if row[column] != ours[group].get(column, "") and column
    ]
    for what, names in (("has", set(theirs) - set(ours)), ("lacks", set(ours) - set(theirs))):
        if names:
            changes.append(f"it {what} the groups {quoted(sorted(names))}")
    changes += _outside(first, other)
    if changes:
        more = f"; and {len(changes) - MOST} more" if len(changes) > MOST else ""
        head = f"'{other.name}' was planned otherwise than '{first.name}'"
        yield Sentence("differs-plan", "note", head, f"{'; '.join(changes[:MOST])}{more}.", "plan")


def _outside(first: RunReport, other: RunReport) -> list[str]:
    """Lines of the plan's text below its table (a clip over everything) that one has otherwise, or not at all."""
    ours, theirs = (
        [line.strip() for line in _text(run).split("\n") if line.startswith("clip ")] for run in (first, other)
    )
    if ours == theirs:
        return []
    return [f"it says “{'; '.join(theirs)}”, not “{'; '.join(ours)}”" if theirs and ours else
            f"it lacks “{'; '.join(ours)}”" if ours else f"it says “{'; '.join(theirs)}”"]  # fmt: skip


def _seen(first: RunReport, other: RunReport) -> Iterator[Sentence]:
    ours, theirs = dict(first.facts), dict(other.facts)
    of_run = [
        f"{what}: {theirs.get(what, 'none')}, not {ours.get(what, 'none')}"
        for what in _FACTS
        if ours.get(what) != theirs.get(what)
    ]
    begun = _first_losses(first, other)
    whats = [*(["another length or make"] if of_run else []), *(["another first loss"] if begun else [])]
    if whats:
        head = f"'{other.name}' had {' and '.join(whats)} than '{first.name}'"
        yield Sentence("differs-data", "note", head, f"{'; '.join([*of_run, *begun][:MOST])}.", "losses")


def _first_losses(first: RunReport, other: RunReport) -> list[str]:
    """The first loss of two runs of one seed and one order of the data is the same, to the digit."""
    found = []
    for title, (ours, theirs) in _pairs(first, other, "losses").items():
        for name in ours:
            if title.startswith("Logged:") and name in theirs and ours[name].values[0] != theirs[name].values[0]:
                begins = f"{formatted(theirs[name].values[0])}, not {formatted(ours[name].values[0])}"
                found.append(f"'{name}' begins at {begins} (another batch, loss or initialisation)")
    return found


def _courses(first: RunReport, other: RunReport) -> Iterator[Sentence]:
    for panel, names in _COURSES.items():
        parts: list[tuple[float, str]] = []
        for title, (ours, theirs) in _pairs(first, other, panel).items():
            for name in (name for name in ours if name in theirs):
                was, now = (median(finite(lines[name].values) or [0.0]) for lines in (ours, theirs))
                if min(was, now) > 0 and max(was, now) > APART * min(was, now):
                    subject = f"“{title}”" if name in title else f"“{title}”, '{name}'"
                    parts.append(
                        (max(was, now) / min(was, now), f"{subject}: was {formatted(now)}, not {formatted(was)}")
                    )
        if parts:
            text = "; ".join(text for _, text in sorted(parts, reverse=True)[:MOST])
            head = f"'{other.name}' had other {names} than '{first.name}'"
            yield Sentence("differs-course", "note", head, f"{text}.", panel)


def _ends(first: RunReport, other: RunReport, otherwise: bool) -> Iterator[Sentence]:
    """Where the losses ended: lower, higher, or, of runs that differ `otherwise`, alike."""
    lower, higher, alike = list[str](), list[str](), list[str]()
    for title, (ours, theirs) in _pairs(first, other, "losses").items():
        for name in (name for name in ours if name in theirs and (is_loss(name) or title.startswith("Loss"))):
            (was, error), (now, its) = _end(ours[name]), _end(theirs[name])
            apart = abs(now - was) > max(ERRORS * math.hypot(error, its), 0.01 * abs(was))
            found = (lower if now < was else higher) if apart else alike
            unit = " of its first" if title.startswith("Loss") else ""
            found.append(f"'{name}' ended at {formatted(now)}{unit}, not {formatted(was)}")
    if not (lower or higher or (alike and otherwise)):
        return
    heads = [f"{how} than '{first.name}'" for how, found in (("lower", lower), ("higher", higher)) if found]
    how = " and ".join(heads) or f"as '{first.name}' did"
    head = f"'{other.name}' ended {how}"
    rest = [f"{text} (within their noise)" for text in alike]
    text = f"{'; '.join([*lower, *higher, *rest][:MOST])}. Medians of the last tenth."
    yield Sentence("differs-end", "note", head, text, "losses")


def _end(line: Line) -> tuple[float, float]:
    """The median of the last tenth, and its standard error; successive records are taken for independent."""
    values = finite(line.values)
    last = values[-max(len(values) // 10, 1) :]
    middle = median(last) if last else 0.0
    spread = 1.48 * median(abs(value - middle) for value in last) if last else 0.0
    return middle, 1.25 * spread / math.sqrt(max(len(last), 1))


def _pairs(first: RunReport, other: RunReport, key: str) -> Mapping[str, tuple[dict[str, Line], dict[str, Line]]]:
    """The plots of a panel that both runs have, with their lines by name."""
    ours, theirs = _plots(first, key), _plots(other, key)
    return {title: (ours[title], theirs[title]) for title in ours if title in theirs}


def _plots(run: RunReport, key: str) -> dict[str, dict[str, Line]]:
    figures = (figure for panel in run.panels if panel.key == key for figure in panel.figures)
    return {f.title: {line.name: line for line in f.lines if line.values} for f in figures if isinstance(f, Lines)}


def _rows(run: RunReport) -> Rows:
    if rows := rows_of(_text(run)):
        return rows
    figures = (figure for panel in run.panels if panel.key == "plan" for figure in panel.figures)
    table = next((figure for figure in figures if isinstance(figure, Table)), None)
    return {} if table is None else {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}


def _text(run: RunReport) -> str:
    figures = (figure for panel in run.panels if panel.key == "plan" for figure in panel.figures)
    return next((figure.text for figure in figures if isinstance(figure, Verbatim)), "")
