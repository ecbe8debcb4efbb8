"""`--plot`: the same picture as a file, whole or not at all, without a display and without a network."""

import html
import json
import re
import struct
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from groupwise.cli.plot import write_whole
from groupwise.errors import GroupwiseError
from tests.cli.commands import CONSTANT, MODELS, PLAN, run, written

SUFFIXES = ["png", "svg", "html"]
HOSTILE = PLAN.replace('label = "norms"', r'label = "$x_{ </script><b>日本\u001b[2J"').replace(
    "teacher =", '"te</script>a$ch^er" ='
)


def plotted(folder: Path, suffix: str, plan: str = PLAN, model: str = "build") -> bytes:
    target = folder / f"picture.{suffix}"
    arguments = ("--model", f"{MODELS}:{model}", "--steps", "200", "--epoch-steps", "50", "--plot", target)
    result = run("show", written(folder, plan), *arguments)
    assert result.exit_code == 0, result.stderr
    assert "written to" in result.stdout
    assert not [path for path in folder.iterdir() if path.name.startswith(".")], "nothing is left beside it"
    return target.read_bytes()


def test_a_png_is_a_png_of_a_readable_size(tmp_path: Path) -> None:
    data = plotted(tmp_path, "png")
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert 1200 < width < 4000
    assert 600 < height < 4000


def test_an_svg_names_every_property_and_group(tmp_path: Path) -> None:
    text = "".join(ElementTree.fromstring(plotted(tmp_path, "svg")).itertext())
    for word in (
        "lr",
        "weight_decay",
        "teacher",
        "base, norms",
        "body/stem/depth0",
        "grey, and dotted: frozen",
        "4 epochs",
    ):
        assert word in text


def test_an_svg_is_the_same_every_time(tmp_path: Path) -> None:
    assert plotted(tmp_path, "svg") == plotted(tmp_path, "svg")


def test_a_page_needs_no_network(tmp_path: Path) -> None:
    text = plotted(tmp_path, "html").decode()
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)
    assert "<title>" in text


def test_a_page_has_every_group_and_its_values(tmp_path: Path) -> None:
    text = plotted(tmp_path, "html").decode()
    drawn = text[text.rindex("Plotly.newPlot(") :]
    for word in ("weight_decay", "teacher", "base, norms", "body", "heatmap"):
        assert word in drawn
    assert json.dumps("1e-3") in drawn


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_groups_fit(tmp_path: Path, suffix: str) -> None:
    assert plotted(tmp_path, suffix, model="many")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_hostile_label_is_only_text(tmp_path: Path, suffix: str) -> None:
    data = plotted(tmp_path, suffix, plan=HOSTILE)
    assert b"\x1b" not in data if suffix != "png" else data
    if suffix == "html":
        assert data.count(b"</script>") == plotted(tmp_path, "html").count(b"</script>")
    if suffix == "svg":
        assert "$x_{ </script><b>日本" in html.unescape(data.decode())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_constant_plan_has_flat_lines(tmp_path: Path, suffix: str) -> None:
    assert plotted(tmp_path, suffix, plan=CONSTANT)


@pytest.mark.parametrize("name", ["picture.gif", "picture", "picture.toml"])
def test_an_unknown_suffix_is_refused_with_those_that_exist(tmp_path: Path, name: str) -> None:
    result = run("show", written(tmp_path), "--model", f"{MODELS}:build", "--steps", "9", "--plot", tmp_path / name)
    assert result.exit_code == 2
    assert "there is: .png, .svg, .html" in result.stderr
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("suffix", "library", "extra"),
    [("png", "matplotlib", "plot"), ("svg", "matplotlib", "plot"), ("html", "plotly", "report")],
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    target = tmp_path / f"picture.{suffix}"
    result = run("show", written(tmp_path), "--model", f"{MODELS}:build", "--steps", "9", "--plot", target)
    assert result.exit_code == 2
    assert f'pip install "groupwise[{extra}]"' in result.stderr
    assert library in result.stderr


def test_a_picture_without_a_length_is_refused_with_the_rule_that_needs_it(tmp_path: Path) -> None:
    result = run("show", written(tmp_path), "--model", f"{MODELS}:build", "--plot", tmp_path / "picture.png")
    assert result.exit_code == 2
    assert "--plot needs --steps N: rule 1 'base': lr" in result.stderr
    assert not (tmp_path / "picture.png").exists()


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GroupwiseError, match=r"nowhere.picture\.png: cannot write it: there is no directory"):
        write_whole(tmp_path / "nowhere" / "picture.png", b"data")


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(GroupwiseError, match="it is a directory"):
        write_whole(tmp_path / "picture.png", b"data")


def test_a_file_that_was_there_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    target.write_bytes(b"a longer text that was there before")
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_written_can_be_read_by_whoever_may_read_any_new_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "picture.png", b"new")
    (tmp_path / "other").write_bytes(b"new")
    assert (tmp_path / "picture.png").stat().st_mode == (tmp_path / "other").stat().st_mode
