"""What a report holds: every panel, drawn or with its reason; from runs of any kind, or refused in one sentence."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groupwise.errors import GroupwiseWarning, RecordError
from groupwise.records import Header, Step, Writer, read
from groupwise.report import Report, build, describe
from groupwise.report.coding import dumps
from groupwise.report.document import Heat, Lines, Panel, Table
from groupwise.report.sources import distinct
from tests.report.runs import run_of
from tests.report.sample import GROUPS, STEPS, TASKS, TRUNK


def panel(report: Report, key: str, run: int = 0) -> Panel:
    return next(panel for panel in report.runs[run].panels if panel.key == key)


def test_the_sample_run_fills_every_panel_but_the_noise_scale(report: Report) -> None:
    assert [p.key for p in report.runs[0].panels if p.missing] == ["layers", "noise"]
    assert all(bool(p.figures) is not bool(p.missing) for p in report.runs[0].panels)


def test_an_empty_run_has_every_panel_with_the_reason_why_it_is_not_drawn(tmp_path: Path, report: Report) -> None:
    empty = describe(run_of(tmp_path, [])).runs[0]
    assert [p.key for p in empty.panels] == [p.key for p in report.runs[0].panels]
    assert all(p.missing and not p.figures for p in empty.panels)
    assert dict(empty.facts)["steps"] == "none yet"


def test_the_facts_are_those_of_the_records(report: Report) -> None:
    facts = dict(report.runs[0].facts)
    assert facts["steps"] == f"0 to {STEPS - 1} of {STEPS}"
    assert facts["records"] == str(STEPS)
    assert facts["groups"] == "8 (1,296,000 parameters)"
    assert facts["tasks"] == ", ".join(TASKS)
    assert facts["time"] == "20 s"
    assert facts["state"] == "finished"


def test_schedules_are_the_values_that_were_used(report: Report) -> None:
    lr = panel(report, "schedules").figures[0]
    assert isinstance(lr, Lines)
    assert lr.logarithmic
    assert "'embed' is 0 throughout" in lr.note
    run = {line.name: line for line in lr.lines}
    assert list(run) == list(GROUPS)
    assert max(run["head.seg"].values) == pytest.approx(3e-3, rel=0.01)


def test_task_losses_begin_at_one(report: Report) -> None:
    losses = panel(report, "losses").figures[0]
    assert isinstance(losses, Lines)
    assert [line.values[0] for line in losses.lines] == [1.0] * len(TASKS)


def test_contributions_are_summed_and_a_clip_scope_has_its_joint_norm(report: Report, first: Path) -> None:
    run = read(first)
    summed = panel(report, "contributions").figures[0]
    assert isinstance(summed, Lines)
    for line in summed.lines:
        assert line.values[-1] == pytest.approx(sum(run.series("groups", line.name, "contribution").values))
    joint = panel(report, "gradients").figures[1]
    assert isinstance(joint, Lines)
    assert [guide.value for guide in joint.guides] == [1.0, 0.12]
    base = next(line for line in joint.lines if line.name == "base")
    parts = [run.series("groups", name, "grad_norm").values[-1] for name in TRUNK]
    assert base.values[-1] == pytest.approx(sum(part**2 for part in parts) ** 0.5)


def test_shares_are_shown_at_the_first_and_the_last_record_and_between(report: Report) -> None:
    figures = panel(report, "shares").figures
    assert [figure.title for figure in figures] == [f"Shares at step {step}" for step in (0, 125, 250, 375)]
    matrix = figures[0]
    assert isinstance(matrix, Heat)
    for name, row in zip(matrix.rows, matrix.cells, strict=True):
        assert sum(value for value in row if not math.isnan(value)) == pytest.approx(1.0), name


def test_many_groups_are_a_heat_map_and_their_extremes(many: Path) -> None:
    lines, heat = panel(describe(many), "updates").figures
    assert isinstance(lines, Lines)
    assert isinstance(heat, Heat)
    assert len(lines.lines) == len(heat.rows) == 200
    shown = [line.name for line in lines.lines if not line.faint]
    assert shown == [f"block.{i:03}" for i in (0, 1, 2, 3, 196, 197, 198, 199)]
    assert "8 of 200" in lines.note or "4 highest and the 4 lowest of 200" in lines.note


def test_a_long_run_is_thinned_and_says_so(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Step(i, scalars={"loss": 1.0 + (i == 12_345)}) for i in range(20_000)])
    loss = panel(describe(run), "losses").figures[0]
    assert isinstance(loss, Lines)
    assert len(loss.lines[0].steps) <= 900
    assert max(loss.lines[0].values) == 2.0, "the spike of one step is still there"
    assert "of 20,000 points" in loss.note


def test_the_ten_groups_furthest_from_what_is_usual_are_listed(many: Path) -> None:
    table = panel(describe(many), "largest").figures[0]
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [f"block.{i:03}" for i in range(199, 189, -1)]


def test_what_is_not_finite_is_shown_as_what_it_is(tmp_path: Path) -> None:
    values = ["nan", "inf", "-inf"]
    run = run_of(tmp_path, [Step(i, scalars={"loss": float(v)}) for i, v in enumerate(values)])
    loss = panel(describe(run), "losses").figures[0]
    assert isinstance(loss, Lines)
    assert [str(value) for value in loss.lines[0].values] == values
    assert json.loads(dumps(describe(run)))["runs"][0]["panels"][2]["figures"][0]["lines"][0]["values"] == values


def test_several_runs_stand_in_the_order_given_by_names_that_differ(first: Path, second: Path) -> None:
    assert [run.name for run in describe([second, first]).runs] == ["second", "first"]


def test_names_are_as_long_as_it_takes_to_differ() -> None:
    paths = [Path("/a/x/run"), Path("/b/x/run"), Path("/b/y/run")]
    assert distinct(paths) == ["a/x/run", "b/x/run", "b/y/run"]
    assert distinct(paths[:1]) == ["run"]
    assert distinct([paths[0], paths[0]]) == ["run", "run"]


@pytest.mark.parametrize("suffix", ["html", "json"])
def test_a_report_is_read_again_alone_and_beside_a_run(
    tmp_path: Path, report: Report, first: Path, suffix: str
) -> None:
    path = build(report, tmp_path / f"report.{suffix}")
    assert dumps(describe(path)) == dumps(report)
    assert [run.name for run in describe([path, first]).runs] == ["first", "first"]


def test_a_run_that_is_still_written_is_reported_up_to_its_last_whole_line(tmp_path: Path) -> None:
    with Writer(tmp_path / "run", Header(total_steps=100)) as writer:
        for step in range(30):
            writer.write(Step(step, scalars={"loss": 1.0}))
        with writer.part.open("ab") as file:
            file.write(b'{"kind":"step","step":30,"scal')
        facts = dict(describe(tmp_path / "run").runs[0].facts)
    assert facts["records"] == "30"
    assert facts["state"].startswith("no end mark")


BAD: dict[str, tuple[str, bytes, str]] = {
    "an empty file": ("part-000001.jsonl", b"", "is empty"),
    "a newer version": ("part-000001.jsonl", b'{"kind":"run","version":9,"run":"x"}\n', "version 9"),
    "a foreign file": ("part-000001.jsonl", b"\x89PNG\r\n", "is no run"),
    "a folder of other things": ("weights.pt", b"x", "is no run"),
}


@pytest.mark.parametrize("animal", BAD)
def test_what_is_no_run_is_refused_with_its_path(tmp_path: Path, animal: str) -> None:
    name, content, words = BAD[animal]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=words) as caught:
        describe(tmp_path)
    assert str(tmp_path) in str(caught.value)


SAVED: dict[str, tuple[str, bytes, str]] = {
    "another page": ("page.html", b"<p>hello</p>", "no report of groupwise"),
    "binary": ("page.html", bytes(range(256)), "not UTF-8"),
    "an empty file": ("report.json", b"", "not JSON"),
    "a list": ("report.json", b"[1]", "no report of groupwise"),
    "deep lists": ("report.json", b"[" * 100_000, "not JSON"),
    "a newer version": ("report.json", b'{"format":"groupwise-report","version":2}', "version 2"),
    "no version": ("report.json", b'{"format":"groupwise-report"}', "version None"),
    "no runs": ("report.json", b'{"format":"groupwise-report","version":1}', "lacks 'runs'"),
    "empty runs": ("report.json", b'{"format":"groupwise-report","version":1,"runs":[]}', "is empty"),
    "runs of 3": ("report.json", b'{"format":"groupwise-report","version":1,"runs":[3]}', "is 3, not an object"),
}  # fmt: skip


@pytest.mark.parametrize("animal", SAVED)
def test_what_is_no_report_is_refused_with_its_path(tmp_path: Path, animal: str) -> None:
    name, content, words = SAVED[animal]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=words) as caught:
        describe(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_no_run_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no run was given"):
        describe([])
    with pytest.raises(RecordError, match="there is no run at"):
        describe(tmp_path / "nowhere")
    with pytest.raises(RecordError, match=r"nowhere.json: cannot read the file: No such file"):
        describe(tmp_path / "nowhere.json")


def test_a_gap_in_the_parts_is_a_warning_and_a_report(tmp_path: Path) -> None:
    with Writer(tmp_path, Header(), part_bytes=1) as writer:
        for step in range(5):
            writer.write(Step(step))
    (tmp_path / "part-000003.jsonl").unlink()
    with pytest.warns(GroupwiseWarning, match="part-000003"):
        assert describe(tmp_path).runs


def test_describing_loads_neither_torch_nor_plotly_nor_numpy(first: Path) -> None:
    code = """
import json, sys
from groupwise.report import describe, rendered
rendered(describe(sys.argv[1]), "md")
sys.stdout.write(json.dumps([name for name in ("torch", "plotly", "numpy") if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, first], capture_output=True, text=True, check=True, env=os.environ
    )
    assert json.loads(done.stdout) == []
