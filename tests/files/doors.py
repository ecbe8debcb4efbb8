"""Every door that writes a whole file: what to write with it, and what is wrong with a place for one."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from groupwise import Plan, Rule
from groupwise._atomic import replacing
from groupwise.checkpoint import save
from groupwise.cli.plot import write_whole
from groupwise.errors import GroupwiseError, PlanError, RecordError, StateError
from groupwise.report import build
from groupwise.report.document import Report, RunReport

PLAN = Plan([Rule("*", optimizer="SGD", lr=0.1)])
REPORT = Report((RunReport("run", "Nothing.", (), (), ()),))


def bare(path: Path) -> None:
    """The writer itself."""
    with replacing(path) as file:
        file.write(b"x" * 10_000)


DOORS: Mapping[str, tuple[Callable[[Path], object], str, type[Exception]]] = {
    "replacing": (bare, "bin", OSError),
    "save": (lambda path: save(path, model=nn.Linear(2, 2)), "pt", StateError),
    "dump": (PLAN.dump, "toml", PlanError),
    "build": (lambda path: build(REPORT, path), "md", RecordError),
    "plot": (lambda path: write_whole(path, b"<svg/>" * 9), "svg", GroupwiseError),
}
"""By name: the door, the suffix that it takes, and what it raises where no file can stand."""
