"""The report as one HTML page that needs no network: its style, its script, plotly's and the numbers are inside it.

The words and the tables are plain HTML, readable without scripts; the plots are drawn by `assets/report.js` from the
JSON that the page carries, which is also what reads a report again. A content security policy forbids the page any
request.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from groupwise.errors import RecordError
from groupwise.report.coding import MARK, dumps
from groupwise.report.document import Report
from groupwise.report.sections import body, escape

_THEME: Final = """(() => {
  let kept = null;
  try { kept = localStorage.getItem("groupwise-theme"); } catch { /* not kept, then */ }
  const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = kept ?? preferred;
})();"""
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}
</style>
<script>{theme}</script>
</head>
<body{several}>
{body}
<script type="application/json" id="{mark}">{numbers}</script>
<script>{plotly}</script>
<script>
{script}
</script>
</body>
</html>
"""


def page(report: Report) -> str:
    """The whole page. Raises `RecordError` where plotly is not installed."""
    return _PAGE.format(
        policy=_POLICY,
        title=escape(f"{', '.join(run.name for run in report.runs)}: report"),
        style=_asset("report.css"),
        theme=_THEME,
        several=' class="several"' if len(report.runs) > 1 else "",
        body=body(report),
        mark=MARK,
        numbers=dumps(report),
        plotly=_plotly(),
        script=_asset("report.js"),
    )


def _asset(name: str) -> str:
    return resources.files("groupwise.report").joinpath("assets", name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise RecordError(
            "the plots of the page are drawn by plotly, which is not installed: pip install groupwise[report] "
            "(the formats md and json, and the terminal view, need nothing)"
        ) from error
    script: str = get_plotlyjs()
    return script
