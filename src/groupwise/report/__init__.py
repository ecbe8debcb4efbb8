"""Reports: what a run was, in words, plots and tables, from its records alone.

build("runs/first", "report.html")          one page that needs no network
describe("runs/first").runs[0].verdict       the same as values
picture("runs/first", "losses.pdf")         a panel's plots, for a paper
differences(describe([a, b]))               what differs between runs, in words
"""

from groupwise import _pickling
from groupwise.report.build import FORMATS, build, format_of, rendered
from groupwise.report.differences import differences
from groupwise.report.document import Report, RunReport, Sentence
from groupwise.report.following import follow
from groupwise.report.picture import picture
from groupwise.report.sources import describe
from groupwise.report.terminal import view

__all__ = [
    "FORMATS", "Report", "RunReport", "Sentence", "build", "describe", "differences", "follow", "format_of", "picture",
    "rendered", "view",
]  # fmt: skip

_pickling.by_name(__name__, __all__)
