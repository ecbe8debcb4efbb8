"""Writing a report: the suffix says the format, the file is whole or as it was, the words say what is in the way."""

import stat
import sys
from pathlib import Path

import pytest

from groupwise.errors import RecordError
from groupwise.records import read
from groupwise.report import FORMATS, Report, build, rendered
from groupwise.report.coding import dumps


@pytest.mark.parametrize(
    ("name", "begins"),
    [("r.html", "<!doctype html>"), ("r.HTM", "<!doctype html>"), ("r.md", "# first"), ("r.json", "{")],
)
def test_the_suffix_says_the_format(tmp_path: Path, report: Report, name: str, begins: str) -> None:
    path = build(report, tmp_path / name)
    assert path == tmp_path / name
    assert path.read_text(encoding="utf-8").startswith(begins)


def test_the_format_may_be_said_instead(tmp_path: Path, report: Report) -> None:
    path = build(report, tmp_path / "report.txt", format="md")
    assert path.read_text(encoding="utf-8") == rendered(report, "md")


def test_a_path_a_run_and_a_list_are_taken_alike(tmp_path: Path, first: Path, report: Report) -> None:
    for source in (first, str(first), read(first), [first], report):
        assert build(source, tmp_path / "r.json").read_text(encoding="utf-8") == f"{dumps(report)}\n"


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_takes_every_name(tmp_path: Path, hostile: Path, form: str) -> None:
    build(hostile, tmp_path / f"r.{form}").read_text(encoding="utf-8")


def test_an_unknown_suffix_or_format_is_refused_with_what_there_is(tmp_path: Path, report: Report) -> None:
    with pytest.raises(RecordError, match=r"r.htlm: unknown suffix of a report '.htlm'; did you mean '.htm'"):
        build(report, tmp_path / "r.htlm")
    with pytest.raises(RecordError, match="unknown format 'pdf'"):
        build(report, tmp_path / "r.pdf", format="pdf")
    with pytest.raises(RecordError, match="unknown format 'jsn'; did you mean 'json'"):
        rendered(report, "jsn")


def test_a_folder_that_is_missing_and_a_directory_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no directory"):
        build(tmp_path / "no run", tmp_path / "missing" / "r.html")
    with pytest.raises(RecordError, match="it is a directory"):
        build(tmp_path / "no run", tmp_path, format="html")


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "r.md"
    path.write_text("old")
    path.chmod(0o640)
    build(report, path)
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_failure_leaves_the_old_file(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(RecordError, match=r"plotly, which is not installed: pip install groupwise\[report\]"):
        build(report, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_plotly_the_other_formats_are_written(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    for name in ("r.md", "r.json"):
        build(report, tmp_path / name)
