"""Reading: a run that grows, one that was cut off, and everything that is no run."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import GroupwiseWarning, RecordError
from groupwise.records import Event, Header, Step, Writer, read
from groupwise.records.columns import Columns
from tests.records.runs import GROUPS, parts, step, write


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", range(20))
    return tmp_path / "run"


def test_a_series_has_the_steps_it_was_taken_at(tmp_path: Path) -> None:
    with Writer(tmp_path, Header()) as writer:
        for number in range(6):
            rare = {"weight_norm": 2.0 * number} if number % 3 == 0 else {}
            writer.write(Step(number, 0.0, groups={"a": {"grad_norm": 1.0 * number, **rare}}))
    run = read(tmp_path)
    steps, values = run.series("groups", "a", "weight_norm")
    assert (list(steps), list(values)) == ([0, 3], [0.0, 6.0])
    assert list(run.series("groups", "a", "grad_norm").values) == [0, 1, 2, 3, 4, 5]
    assert list(run.series("groups", "nobody", "grad_norm").steps) == []
    assert run.names("groups", "a") == ["grad_norm", "weight_norm"]


def test_cosines_are_found_in_either_order_and_the_hurt_are_told(tmp_path: Path) -> None:
    with Writer(tmp_path, Header(tasks=("b",))) as writer:
        writer.write(Step(0, cosines=[("b", "a", -0.5)], tasks={"a": {"loss": 1.0}}, conflicting=("a",)))
        writer.write(Step(1, cosines=[("a", "b", 0.5)], tasks={"a": {"loss": 1.0}}))
    run = read(tmp_path)
    assert list(run.series("cosines", "a", "b").values) == [-0.5, 0.5]
    assert run.series("cosines", "a", "b") == run.series("cosines", "b", "a")
    assert run.conflicting == [(0, ("a",))]
    assert run.tasks == ["b", "a"]
    assert run.names("cosines") == [("a", "b")]


def test_what_was_taken_back_stays_so_while_the_run_goes_on() -> None:
    columns = Columns()
    for update, loss in ((0, 0.0), (1, 1.0), (2, 2.0), (1, 10.0), (2, 20.0), (3, 30.0)):
        columns.append({"step": update, "scalars": {"loss": loss}})
        columns.series("scalars", "", "loss")  # somebody looks at every step
    found = columns.series("scalars", "", "loss")
    assert (list(found.steps), list(found.values)) == ([0, 1, 2, 3], [0.0, 10.0, 20.0, 30.0])


def test_the_hurt_of_a_run_that_goes_on_elsewhere_are_told_by_their_step(tmp_path: Path) -> None:
    with Writer(tmp_path, Header()) as writer:
        for number in (100, 101, 102):
            writer.write(Step(number, conflicting=("a",) if number == 101 else ()))
    assert read(tmp_path).conflicting == [(101, ("a",))]


@pytest.mark.parametrize("bad", [{"scalars": {"loss": "much"}}, {"cosines": [["a", "b"]]}, {"shares": {"a": 1.0}}])
def test_a_step_that_is_refused_leaves_nothing(bad: dict[str, Any]) -> None:
    told = {"groups": {"a": {"x": 1.0}}, "values": {"a": {"lr": 0.1}}}
    columns = Columns()
    columns.append({"step": 0, **told})
    with pytest.raises(RecordError, match=r"step"):
        columns.append({"step": 1, **told, **bad})
    columns.append({"step": 2, **told})
    for section, key in (("groups", "x"), ("values", "lr")):
        assert list(columns.series(section, "a", key).steps) == [0, 2]


def test_a_section_that_does_not_exist_is_an_error(run_folder: Path) -> None:
    with pytest.raises(RecordError, match=r"no series 'group' with 2 names .there is: values with 2"):
        read(run_folder).series("group", "a", "b")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="no series 'scalars' with 2 names"):
        read(run_folder).series("scalars", "a", "b")
    with pytest.raises(RecordError, match=r"unknown section 'group'; did you mean 'groups'\?"):
        read(run_folder).names("group")  # type: ignore[arg-type]


def test_a_run_is_read_on_while_it_is_being_written(tmp_path: Path) -> None:
    with Writer(tmp_path, Header(groups=GROUPS), part_bytes=500) as writer:
        run = read(tmp_path)
        assert len(run) == 0
        for number in range(30):
            writer.write(step(number))
            assert run.update()
            assert not run.update()
            assert list(run.steps) == list(range(number + 1))
    assert run.series("scalars", "loss") == read(tmp_path).series("scalars", "loss")


@given(st.data())
def test_a_file_that_is_cut_anywhere_reads_up_to_its_last_whole_line(data: st.DataObject) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        write(Path(folder) / "run", range(5))
        part = parts(Path(folder) / "run")[0]
        whole = part.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        part.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        if lines == 0:
            with pytest.raises(RecordError, match="is empty"):
                read(part)
        else:
            assert list(read(part).steps) == list(range(lines - 1))


def test_a_part_that_was_torn_in_the_middle_of_the_run_is_followed_by_the_next(run_folder: Path) -> None:
    with parts(run_folder)[0].open("ab") as file:
        file.write(b'{"kind":"step","st')
    write(run_folder, range(20, 25))
    assert list(read(run_folder).steps) == list(range(25))


def test_a_last_line_that_a_power_cut_filled_with_zeros_is_passed_over(run_folder: Path) -> None:
    with parts(run_folder)[0].open("ab") as file:
        file.write(b"\0" * 40 + b"\n")
    assert len(read(run_folder)) == 20


def test_one_file_reads_as_a_run(run_folder: Path) -> None:
    write(run_folder, range(20, 25))
    assert list(read(parts(run_folder)[1]).steps) == list(range(20, 25))
    assert list(read(str(parts(run_folder)[0])).steps) == list(range(20))


def test_what_a_later_part_took_back_is_no_event(tmp_path: Path) -> None:
    with Writer(tmp_path, Header()) as writer:
        writer.write(step(0))
        writer.write(Event(1, "nonfinite"))
        writer.write(step(1))
        writer.write(step(8))
        writer.write(Event(9, "finished"))
    with Writer(tmp_path, Header()) as writer:
        writer.write(Event(5, "resumed"))
        writer.write(step(5))
    assert [(event.step, event.event) for event in read(tmp_path).events] == [(1, "nonfinite"), (5, "resumed")]


def test_unknown_keys_and_kinds_are_passed_over(run_folder: Path) -> None:
    with parts(run_folder)[0].open("a") as file:
        file.write('{"kind":"weather","sun":true}\n{"kind":"step","step":20,"new":{"a":[]},"groups":{}}\n')
    assert list(read(run_folder).steps) == list(range(21))


def _header(**keys: object) -> str:
    return json.dumps({"kind": "run", "version": 1, "run": "x", "part": 1, **keys}) + "\n"


FOREIGN = {
    "text": ("hello\n", "is no run of groupwise: its first line is 'hello'"),
    "another object": ('{"a": 1}\n', r"its first line is '\{\"a\": 1\}'"),
    "a list": ("[1, 2]\n", "is no run of groupwise"),
    "bytes": ("\x00\x01\x02\n", "is no run of groupwise"),
    "a version that is no number": (_header(version="1"), "is no run of groupwise"),
    "a newer version": (_header(version=2, writer="groupwise 9"), r"version 2 .* up to version 1: .*groupwise 9"),
    "groups that are none": (_header(groups={"a": 1}), r"line 1: header.groups is \{'a': 1\}, not a list"),
    "a broken line": (_header() + 'no\n{"kind":"step","step":1}\n', "part-000001.jsonl: line 2 is no record"),
    "a line that is no object": (_header() + '3\n{"kind":"step","step":1}\n', "part-000001.jsonl: line 2 is no record"),
    "a step without number": (_header() + '{"kind":"step"}\n', "a step has the number None"),
    "a section that is none": (
        _header() + '{"kind":"step","step":3,"groups":[1]}\n',
        r"line 2: step.groups is \[1\], not an object",
    ),
    "a number that is none": (
        _header() + '{"kind":"step","step":3,"scalars":{"a":"b"}}\n',
        r"step.scalars\['a'\] is 'b', not a number",
    ),
    "nothing": ("", "is empty: not even the header"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_run_is_a_clear_error(tmp_path: Path, name: str) -> None:
    content, message = FOREIGN[name]
    (tmp_path / "part-000001.jsonl").write_text(content)
    for path in (tmp_path, tmp_path / "part-000001.jsonl"):
        with pytest.raises(RecordError, match=message):
            read(path)


def test_a_folder_without_parts_and_a_path_without_folder_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with pytest.raises(RecordError, match=r"first is no run: .* .it is empty"):
        read(tmp_path / "first")
    (tmp_path / "first" / "notes.txt").write_text("")
    with pytest.raises(RecordError, match=r"it holds notes.txt"):
        read(tmp_path / "first")
    with pytest.raises(RecordError, match=r"there is no run at .*frist; did you mean .*first"):
        read(tmp_path / "frist")


def test_parts_of_two_runs_in_one_folder_are_an_error(run_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", range(3))
    parts(tmp_path / "other")[0].rename(run_folder / "part-000002.jsonl")
    with pytest.raises(RecordError, match=r"two runs in one folder: part-000002.jsonl"):
        read(run_folder)


def test_a_missing_part_is_told_once(run_folder: Path) -> None:
    write(run_folder, range(20, 22))
    write(run_folder, range(22, 24))
    parts(run_folder)[1].unlink()
    with pytest.warns(GroupwiseWarning, match=r"lacks part-000002.jsonl: the run has a gap"):
        run = read(run_folder)
    assert list(run.steps) == [*range(20), 22, 23]


def test_a_part_whose_writer_died_before_its_header_is_passed_over(run_folder: Path) -> None:
    (run_folder / "part-000002.jsonl").write_bytes(b'{"kind":"run","ver')
    assert list(read(run_folder).steps) == list(range(20))
    write(run_folder, range(20, 22))
    assert parts(run_folder)[-1].name == "part-000003.jsonl"
    assert list(read(run_folder).steps) == list(range(22))
