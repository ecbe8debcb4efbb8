"""Side by side, a plot has one kind of scale, whichever run asked for it."""

from pathlib import Path

import pytest

from groupwise.records import Step
from groupwise.report import describe
from groupwise.report.document import Lines
from tests.report.runs import run_of


@pytest.mark.parametrize(("low", "logarithmic"), [(0.1, True), (0.0, True), (-1.0, False)])
def test_all_runs_are_logarithmic_or_none_is(tmp_path: Path, low: float, logarithmic: bool) -> None:
    falls = run_of(tmp_path / "a", [Step(i, scalars={"loss": 10 * 0.93**i}) for i in range(100)])
    slides = run_of(tmp_path / "b", [Step(i, scalars={"loss": 10 - (10 - low) * i / 99}) for i in range(100)])
    for runs in ([falls, slides], [slides, falls]):
        plots = [f for run in describe(runs).runs for p in run.panels if p.key == "losses" for f in p.figures]
        assert [plot.logarithmic for plot in plots if isinstance(plot, Lines)] == [logarithmic] * 2
