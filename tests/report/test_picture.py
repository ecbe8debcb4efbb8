"""A still of a panel: every format, the size asked for, names of axes and lines in it, refusals in one sentence."""

import re
import sys
from pathlib import Path

import pytest

from groupwise.errors import RecordError
from groupwise.records import Group, Header, Step
from groupwise.report import Report, build, describe, picture
from groupwise.report.document import Heat
from tests.report.runs import run_of


@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_the_suffix_says_the_format(tmp_path: Path, report: Report, suffix: str, begins: bytes) -> None:
    path = picture(report, tmp_path / f"p.{suffix}", panel="updates", dpi=50)
    assert path.read_bytes().startswith(begins)


def test_axes_lines_and_runs_are_named(tmp_path: Path, first: Path, second: Path) -> None:
    text = picture([first, second], tmp_path / "p.svg", panel="updates", width=3.3).read_text(encoding="utf-8")
    for words in ("‖Δw‖ / ‖w‖", "step", "head.depth (first)", "head.depth (second)", "Update over weight"):
        assert words in text
    assert 'width="237' in text, "3.3 inches are 237.6 points"
    assert "mathdefault" not in text


def test_a_picture_is_the_same_twice(tmp_path: Path, report: Report) -> None:
    one, two = (picture(report, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == two


def test_shares_and_layers_are_drawn_as_cells(tmp_path: Path, report: Report) -> None:
    assert "depth" in picture(report, tmp_path / "p.svg", panel="shares").read_text(encoding="utf-8")


def test_cells_have_the_name_of_what_their_columns_are(tmp_path: Path, report: Report) -> None:
    columns = {
        panel.key: {figure.across for figure in panel.figures if isinstance(figure, Heat)}
        for panel in report.runs[0].panels
    }
    assert columns["shares"] == {"task"}
    text = picture(report, tmp_path / "p.svg", panel="shares").read_text(encoding="utf-8")
    assert ">task<" in text
    assert ">step<" not in text


def test_hostile_names_are_drawn_as_text(tmp_path: Path, hostile: Path) -> None:
    assert picture(hostile, tmp_path / "p.svg", panel="gradients").exists()


def test_build_takes_a_picture_by_its_suffix(tmp_path: Path, first: Path) -> None:
    assert build(first, tmp_path / "p.svg").read_bytes().startswith(b"<?xml")


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecordError, match=r"unknown suffix of a picture '.gif'"):
        picture(report, tmp_path / "p.gif")
    with pytest.raises(RecordError, match="unknown panel 'loses'"):
        picture(report, tmp_path / "p.svg", panel="loses")
    with pytest.raises(RecordError, match="the panel 'noise' has no plot: The records hold no `noise_scale`"):
        picture(report, tmp_path / "p.svg", panel="noise")
    with pytest.raises(RecordError, match="cannot write it"):
        picture(report, tmp_path / "nowhere" / "p.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RecordError, match="pip install groupwise\\[plot\\]"):
        picture(report, tmp_path / "p.svg")


def test_a_run_by_layer_has_heat_maps_of_layers_in_the_order_of_the_model(tmp_path: Path) -> None:
    layers = [f"blocks.{i}" for i in range(12)]
    header = Header(by="layer", groups=tuple(Group(name, "AdamW", 2, 100) for name in layers))
    numbers = {
        name: {"grad_norm": 10.0**-i, "update_ratio": 1e-3, "contribution": 0.1} for i, name in enumerate(layers)
    }
    run_of(tmp_path, [Step(i, groups=numbers) for i in range(40)], header)
    report = describe(tmp_path / "run").runs[0]
    panel = next(panel for panel in report.panels if panel.key == "layers")
    assert [figure.title for figure in panel.figures] == [
        "Gradient norm of each layer", "Update over weight of each layer", "Contribution of each layer",
    ]  # fmt: skip
    assert all(figure.rows == tuple(layers) for figure in panel.figures)  # type: ignore[union-attr]
    assert "Gradients shrink by a factor of 10 a level from 'blocks.0' to 'blocks.11'" in report.summary
    assert picture(tmp_path / "run", tmp_path / "l.svg", panel="layers").exists()


@pytest.mark.parametrize("spread", [1.2, 2.0, 8.0, 100.0, 1e6])
def test_ticks_between_powers_of_ten_are_numbers_not_formulas(tmp_path: Path, spread: float) -> None:
    numbers = [
        {group: {"grad_norm": 0.013 * spread ** (i / 40 * at)} for at, group in enumerate("ab")} for i in range(41)
    ]
    groups = tuple(Group(name, "AdamW", 1, 10) for name in "ab")
    run_of(tmp_path, [Step(i, groups=own) for i, own in enumerate(numbers)], Header(by="layer", groups=groups))
    for panel in ("gradients", "layers"):
        text = picture(tmp_path / "run", tmp_path / f"{panel}.svg", panel=panel).read_text(encoding="utf-8")
        assert "math" not in text
        assert len(re.findall(r">0?\.?\d[\d.e-]*</text>", text)) >= 2


@pytest.mark.parametrize("height", [1.2, 1.8, 4.0])
def test_a_legend_stands_clear_of_the_name_of_the_axis(tmp_path: Path, height: float) -> None:
    names = [f"a group of a long name {i}" for i in range(4)]
    steps = [Step(i, groups={name: {"update_ratio": 1e-3 * (1 + i)} for name in names}) for i in range(3)]
    run_of(tmp_path, steps, Header(by="layer", groups=tuple(Group(name, "AdamW", 1, 10) for name in names)))
    text = picture(tmp_path / "run", tmp_path / "p.svg", panel="updates", height=height).read_text(encoding="utf-8")
    places = {words: float(y) for y, words in re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>([^<]+)</text>', text)}
    assert all(places[name] > places["step"] + 7 for name in names), places


def test_an_axis_of_steps_has_whole_numbers(tmp_path: Path) -> None:
    steps = [Step(20 * i, groups={name: {"update_ratio": 1e-3 * (1 + i)} for name in "ab"}) for i in range(2)]
    run_of(tmp_path, steps, Header(by="layer", groups=tuple(Group(name, "AdamW", 1, 10) for name in "ab")))
    text = picture(tmp_path / "run", tmp_path / "p.svg", panel="updates").read_text(encoding="utf-8")
    axis = text.partition('id="matplotlib.axis_1"')[2].partition('id="matplotlib.axis_2"')[0]
    ticks = re.findall(r">([^<>]+)</text>", axis)
    assert ticks[-1] == "step"
    assert all(tick.isdigit() for tick in ticks[:-1])


def test_columns_of_cells_are_the_steps_that_were_recorded(tmp_path: Path) -> None:
    steps = [Step(20 * i, groups={name: {"update_ratio": 1e-3 * (1 + i)} for name in "ab"}) for i in range(3)]
    groups = tuple(Group(name, "AdamW", 1, 10) for name in "ab")
    run_of(tmp_path, steps, Header(by="layer", groups=groups))
    panel = next(panel for panel in describe(tmp_path / "run").runs[0].panels if panel.key == "layers")
    heat = next(figure for figure in panel.figures if isinstance(figure, Heat))
    assert heat.columns == ("0", "20", "40")
    assert heat.cells[0] == pytest.approx([1e-3, 2e-3, 3e-3])
