"""The body of the page: words and tables as HTML, with a place for every plot. Every text of a run is escaped here."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Final

from groupwise._spelling import printable_lines
from groupwise.report.differences import differences
from groupwise.report.document import Figure, Heat, Lines, Panel, Report, RunReport, Sentence, Table, Verbatim
from groupwise.report.tables import table_of

TONES: Final = {"look": "Needs a look", "note": "Worth knowing", "fine": "As it should be"}
_SMALL: Final = 8
"""A heat map of so few columns is a matrix: its numbers are written into its cells."""


_LONG: Final = 40
OPEN: Final = ("plan", "schedules", "losses", "updates", "gradients", "layers")
"""These panels are open whatever the verdict; another is folded where no sentence leads to it."""


def escape(text: str) -> str:
    """A text that is a text in HTML: no markup, and no character that turns or hides what stands around it."""
    return html.escape(printable_lines(text))


def body(report: Report) -> str:
    """Everything between `<body>` and the scripts."""
    keys = list(dict.fromkeys(panel.key for run in report.runs for panel in run.panels))
    drawn = [key for key in keys if any(panel.figures for _, _, panel in _panels(report, key))]
    return "\n".join(
        [
            '<a class="skip" href="#verdict">Skip to the verdict</a>',
            '<div class="page">',
            _header(report),
            _nav(report, drawn, len(drawn) < len(keys)),
            "<main>",
            _verdict(report),
            *(_panel(report, key) for key in drawn),
            _not_recorded(report, [key for key in keys if key not in drawn]),
            "</main>",
            _footer(report),
            "</div>",
        ]
    )


def _header(report: Report) -> str:
    title = escape(" · ".join(run.name for run in report.runs))
    kind = "Training report" if len(report.runs) == 1 else f"Training report: {len(report.runs)} runs side by side"
    return (
        f'<header><div><p class="kind">{kind}</p><h1>{title}</h1></div>'
        '<button type="button" id="theme" hidden></button></header>'
    )


def _nav(report: Report, drawn: Sequence[str], rest: bool) -> str:
    names = [("verdict", "Verdict"), *((key, key.capitalize()) for key in drawn)]
    names += [("not-recorded", "Not recorded")] if rest else []
    items = "".join(f'<li><a href="#{escape(key)}">{escape(name)}</a></li>' for key, name in names)
    return f'<nav aria-label="Contents"><ol>{items}</ol></nav>'


def _verdict(report: Report) -> str:
    level = "h4" if len(report.runs) > 1 else "h3"
    parts = "".join(f"<div>{_named(report, run)}{_said(run, level)}</div>" for run in report.runs)
    return _section("verdict", "Verdict", f'{_differences(report)}<div class="runs">{parts}</div>')


def _differences(report: Report) -> str:
    found = differences(report)
    if len(report.runs) < 2:
        return ""
    if not found:
        return '<p class="summary">The runs were planned alike, saw as many steps, and took the same course.</p>'
    items = "".join(_sentence(report.runs[0], sentence) for sentence in found)
    return (
        f'<div class="verdict differs"><div class="note"><h3 class="tone">What differs</h3><ul>{items}</ul></div></div>'
    )


def _section(key: str, title: str, inner: str) -> str:
    heading = f'<h2 id="h-{escape(key)}">{escape(title)}</h2>'
    return f'<section id="{escape(key)}" aria-labelledby="h-{escape(key)}">{heading}{inner}</section>'


def _said(run: RunReport, level: str) -> str:
    columns = [_tone(run, ["look"], level), _tone(run, ["note", "fine"], level)]
    facts = "".join(f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd></div>" for what, value in run.facts)
    lists = "".join(f"<div>{column}</div>" for column in columns if column)
    return (
        f'<p class="summary">{escape(run.summary)}</p><dl class="facts">{facts}</dl><div class="verdict">{lists}</div>'
    )


def _tone(run: RunReport, tones: Sequence[str], level: str) -> str:
    parts = []
    for tone in tones:
        items = "".join(_sentence(run, sentence) for sentence in run.verdict if sentence.tone == tone)
        if items:
            heading = f'<{level} class="tone">{TONES[tone]}</{level}>'
            parts.append(f'<div class="{tone}">{heading}<ul>{items}</ul></div>')
    return "".join(parts)


def _sentence(run: RunReport, sentence: Sentence) -> str:
    title = next((panel.title for panel in run.panels if panel.key == sentence.panel), sentence.panel)
    link = f'<a class="see" href="#{escape(sentence.panel)}">{escape(title.partition(":")[0])}</a>'
    return f"<li><b>{escape(sentence.head)}.</b><p>{escape(sentence.text)} {link}</p></li>"


def _panels(report: Report, key: str) -> list[tuple[int, int, Panel]]:
    """The panels of that key, with the number of the run and of the panel."""
    return [
        (i, j, panel) for i, run in enumerate(report.runs) for j, panel in enumerate(run.panels) if panel.key == key
    ]


def _panel(report: Report, key: str) -> str:
    found = _panels(report, key)
    first = found[0][2]
    shown = found[:1] if key == "plan" and len({panel for _, _, panel in found}) == 1 else found
    parts = "".join(
        f"<div>{_named(report, report.runs[i], shown)}{_figures(i, j, panel)}</div>" for i, j, panel in shown
    )
    inner = f'<p class="lead">{escape(first.lead)}</p><div class="runs">{parts}</div>'
    if key not in OPEN and not _is_spoken_of(report, key):
        inner = f'<details class="fold"><summary>Nothing here stands out: show it</summary>{inner}</details>'
    return _section(key, first.title, inner)


def _is_spoken_of(report: Report, key: str) -> bool:
    """Whether a sentence that is not as it should be leads to a panel."""
    return any(s.panel == key and s.tone != "fine" for run in report.runs for s in run.verdict)


def _not_recorded(report: Report, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    panels = [_panels(report, key)[0][2] for key in keys]
    items = "".join(
        f'<div id="{escape(p.key)}"><dt>{escape(p.title)}</dt><dd>{_code(escape(p.missing))}</dd></div>' for p in panels
    )
    return _section("not-recorded", "Not recorded", f'<dl class="missing">{items}</dl>')


def _named(report: Report, run: RunReport, shown: Sequence[object] = ()) -> str:
    if len(report.runs) < 2:
        return ""
    alike = len(shown) == 1
    return f"<h3>{'All runs alike' if alike else escape(run.name)}</h3>"


def _figures(run: int, panel: int, held: Panel) -> str:
    if held.missing:
        return f'<p class="missing">{_code(escape(held.missing))}</p>'
    drawn = [figure for figure in held.figures if isinstance(figure, Lines | Heat)]
    matrices = " matrices" if drawn and all(_is_small(figure) for figure in drawn) else ""
    alone = {id(drawn[-1])} if len(drawn) % 2 and not matrices else set[int]()
    figures = (_figure(f"{run} {panel} {i}", figure, id(figure) in alone) for i, figure in enumerate(held.figures))
    return f'<div class="figures{matrices}">{"".join(figures)}</div>'


def _code(text: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", text)


def _figure(at: str, figure: Figure, alone: bool) -> str:
    if isinstance(figure, Table):
        return f'<div class="wide">{_scrolled(figure)}</div>'
    if isinstance(figure, Verbatim):
        title = escape(figure.title)
        text = f'<pre tabindex="0" aria-label="{title}">{escape(figure.text)}</pre>'
        return f'<figure class="wide"><figcaption>{title}</figcaption>{text}</figure>'
    table = table_of(figure)
    classes = " ".join(["plot", *(["alone"] if alone else []), *(["small"] if _is_small(figure) else [])])
    legend = '<div class="legend" role="group" aria-label="Lines"></div>' if isinstance(figure, Lines) else ""
    remark = f'<p class="remark">{escape(figure.note)}</p>' if figure.note else ""
    return (
        f'<figure class="{classes}" data-at="{at}"><figcaption>{escape(figure.title)}{_unit(figure)}</figcaption>'
        f'<div class="canvas" role="img" aria-label="{escape(_spoken(figure))}">'
        "<noscript>The plot needs scripts; its numbers are in the table.</noscript></div>"
        f"{legend}{remark}<details><summary>The numbers</summary>{_scrolled(table)}</details></figure>"
    )


def _is_small(figure: Figure) -> bool:
    return isinstance(figure, Heat) and figure.unit == "share" and len(figure.columns) <= _SMALL


def _unit(figure: Lines | Heat) -> str:
    return f'<span class="unit">{escape(figure.unit)}</span>' if not figure.title.startswith(figure.unit) else ""


def _spoken(figure: Lines | Heat) -> str:
    if isinstance(figure, Heat):
        return (
            f"Heat map: {figure.title}. {len(figure.rows)} rows, {len(figure.columns)} columns; numbers in the table."
        )
    kind = "logarithmic" if figure.logarithmic else "linear"
    return f"Plot: {figure.title}. {len(figure.lines)} lines over steps, {kind} scale; numbers in the table below."


def _scrolled(table: Table) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">{_table(table)}</div>'


def _table(table: Table) -> str:
    kinds = [_kind([row[i] for row in table.rows]) for i in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(table.columns, kinds, strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0]) if row[0].strip() else "(no name)"}</th>'
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="remark">{escape(table.note)}</p>' if table.note else ""
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}"


def _kind(cells: Sequence[str]) -> str:
    """The class of a column: numbers stand right, words left, and long ones may break."""
    if not any(cell[:1].isalpha() and cell not in ("nan", "inf") for cell in cells):
        return ""
    return ' class="text long"' if any(len(cell) > _LONG for cell in cells) else ' class="text"'


def _footer(report: Report) -> str:
    again = "Read it again with <code>groupwise report this-page.html</code>."
    return (
        "<footer>Written by groupwise from the records of training. The page needs no network. "
        f'<span class="tip">{again} Drag to zoom a plot, double-click to go back.</span></footer>'
    )
