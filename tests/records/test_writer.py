"""Writing: what is written is read, whatever its names and numbers, in parts that lose nothing."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groupwise.errors import RecordError
from groupwise.records import Clip, Event, Group, Header, Step, Writer, lock, read
from tests.forks import in_child
from tests.records.runs import GROUPS, parts, step, write

names = st.text(st.characters(exclude_categories=()), max_size=8)  # every character, lone surrogates too
numbers = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**53), 2**53).map(float)
mappings = st.dictionaries(names, numbers, max_size=3)
nested = st.dictionaries(names, mappings, max_size=3)


def first_line(part: Path) -> dict[str, Any]:
    return json.loads(part.read_text().partition("\n")[0])


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@settings(max_examples=60)
@given(st.lists(st.tuples(nested, nested, mappings, nested, nested), min_size=1, max_size=4))
def test_whatever_is_written_is_read_under_any_name(rows: list[tuple[dict[str, dict[str, float]], ...]]) -> None:
    with TemporaryDirectory() as folder:
        with Writer(folder, Header()) as writer:
            for number, (values, groups, scalars, tasks, shares) in enumerate(rows):
                writer.write(Step(number, 0.5, values, groups, scalars, tasks, shares=shares))
        run = read(folder)
        for i, section in enumerate(("values", "groups", "scalars", "tasks", "shares")):
            for number, row in enumerate(rows):
                flat = (
                    {(name,): x for name, x in row[i].items()}
                    if section == "scalars"
                    else {(name, key): x for name, inner in row[i].items() for key, x in inner.items()}
                )
                for keys, value in flat.items():
                    series = run.series(section, *keys)
                    assert same(series.values[series.steps.index(number)], value)


@given(names, names, st.none() | names)
def test_a_header_comes_back_as_it_was(name: str, algorithm: str, rule: str | None) -> None:
    group = Group(name, algorithm, 3, 10, network="a", rule=rule or None, clip=Clip("norm", 1.0, name))
    told = Header("rule", {"values": 1}, (group,), ("left", name), "somebody", "the\ntable", 100, 10)
    with TemporaryDirectory() as folder:
        Writer(folder, told).close()
        header = read(folder).header
        assert header.groups == (group,)
        assert (header.by, dict(header.every), header.tasks) == ("rule", {"values": 1}, ("left", name))
        assert (header.writer, header.table, header.total_steps, header.steps_per_epoch) == (
            "somebody",
            "the\ntable",
            100,
            10,
        )
        assert header.part == 1
        assert header.run


def test_parts_rotate_at_their_size_and_lose_nothing(tmp_path: Path) -> None:
    write(tmp_path, range(200), part_bytes=2000)
    assert len(parts(tmp_path)) > 5
    assert all(2000 <= part.stat().st_size < 2500 for part in parts(tmp_path)[:-1])
    run = read(tmp_path)
    assert list(run.steps) == list(range(200))
    assert list(run.series("groups", "head", "grad_norm").values) == [n + 0.1 for n in range(200)]
    assert len({first_line(part)["run"] for part in parts(tmp_path)}) == 1


def test_every_part_knows_the_groups_as_they_are_when_it_begins(tmp_path: Path) -> None:
    later = (Group("head", "Muon", 2, 10),)
    with Writer(tmp_path, Header(groups=GROUPS), part_bytes=1) as writer:
        writer.write(step(0))
        assert read(tmp_path).groups == GROUPS
        writer.write(Event(1, "groups", "one left", later))
        writer.write(step(1))
    assert read(tmp_path).groups == later
    assert first_line(parts(tmp_path)[-1])["groups"][0]["algorithm"] == "Muon"


def test_a_run_that_goes_on_in_its_folder_begins_a_new_part_and_replaces_what_it_takes_again(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    with Writer(tmp_path, Header(groups=GROUPS)) as writer:
        assert writer.resumed_after == 9
        for number in range(6, 8):
            writer.write(step(number, loss=-1.0))
    run = read(tmp_path)
    assert [part.name for part in parts(tmp_path)] == ["part-000001.jsonl", "part-000002.jsonl"]
    assert list(run.steps) == [0, 1, 2, 3, 4, 5, 6, 7]  # 8 and 9 are of a past that was left
    assert list(run.series("scalars", "loss").values) == [0, 1, 2, 3, 4, 5, -1, -1]
    assert len(run) == 8


def test_a_second_writer_in_one_folder_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with Writer(tmp_path, Header()) as first:
        with pytest.raises(RecordError, match=r"this process is writing into .*: close what was opened before"):
            Writer(tmp_path, Header())
        first.write(step(0))
    with Writer(tmp_path, Header()) as second:
        second.write(step(1))
    assert list(read(tmp_path).steps) == [0, 1]


def _write_for_ever(folder: str) -> None:
    with Writer(folder, Header(groups=GROUPS), part_bytes=20_000) as writer:
        number = 0
        while True:
            writer.write(step(number))
            number += 1


def test_a_writer_that_is_killed_leaves_a_run_that_reads_and_goes_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        before = len(parts(tmp_path))
        process = context.Process(target=_write_for_ever, args=(str(tmp_path),))
        process.start()
        while len(parts(tmp_path)) < before + 2:  # in the middle of its second part, or later
            time.sleep(0.001)
        with pytest.raises(RecordError, match=f"process {process.pid} is writing into .*: a run has one writer"):
            Writer(tmp_path, Header())
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        run = read(tmp_path)
        assert list(run.steps) == list(range(len(run)))
        assert len(run) > 50
        assert list(run.series("scalars", "loss").values) == list(map(float, run.steps))


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    writer = Writer(tmp_path, Header())
    writer.close()
    writer.close()
    with pytest.raises(RecordError, match=r"the writer of .* is closed"):
        writer.write(step(0))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("taken")
    with pytest.raises(RecordError, match=r"cannot write a run into .*file"):
        Writer(tmp_path / "file", Header())
    with pytest.raises(RecordError, match=r"cannot write a run into .*inside"):
        Writer(tmp_path / "file" / "inside", Header())


FULL = """
import resource, signal, sys
from groupwise.errors import RecordError
from groupwise.records import Header, Step, Writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
writer, number = Writer(sys.argv[1], Header()), 0
try:
    while True:
        writer.write(Step(number, scalars={"loss": 0.5}))
        number += 1
except RecordError as error:
    sys.stdout.write(f"{number} {error}")
"""


def test_a_full_disk_is_an_error_and_what_was_written_reads(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    count, _, message = done.stdout.partition(" ")
    assert "cannot write" in message
    assert list(read(tmp_path).steps) == list(range(int(count)))


def test_a_child_has_no_part_in_the_run_of_its_parent(tmp_path: Path) -> None:
    with Writer(tmp_path, Header(), part_bytes=200) as writer:
        writer.write(step(0))

        def child() -> None:
            with pytest.raises(RecordError, match=r"process \d+ writes into .*, and this one was forked from it"):
                writer.write(step(1))
            with pytest.raises(RecordError, match=f"process {os.getppid()} is writing into"):
                Writer(tmp_path, Header())
            writer.close()

        in_child(child)
        writer.write(step(1))
    assert list(read(tmp_path).steps) == [0, 1]
    assert len(parts(tmp_path)) == 2


def test_a_child_that_outlives_its_parents_writer_does_not_hold_the_folder(tmp_path: Path) -> None:
    writer = Writer(tmp_path, Header())
    ready, done = multiprocessing.get_context("fork").Event(), multiprocessing.get_context("fork").Event()
    child = multiprocessing.get_context("fork").Process(target=lambda: (ready.set(), done.wait(30)))
    child.start()
    ready.wait(30)
    writer.close()
    try:
        Writer(tmp_path, Header()).close()
    finally:
        done.set()
        child.join()


def test_a_writer_that_is_dropped_lets_go_of_the_folder(tmp_path: Path) -> None:
    writer = Writer(tmp_path, Header())
    writer.write(step(0))
    del writer
    with Writer(tmp_path, Header()) as other:
        assert other.resumed_after == 0


def test_a_closed_writer_closes_no_file_that_was_opened_since(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", Header())
    before = set(os.listdir("/proc/self/fd"))
    writer.close()
    with open(tmp_path / "one", "w") as one, open(tmp_path / "two", "w") as two:
        assert {str(one.fileno()), str(two.fileno())} <= before  # the numbers of what the writer had open
        writer.close()
        del writer
        one.write("still")
        two.write("open")


@pytest.mark.parametrize("kind", ["a FIFO", "a link", "a folder"])
def test_a_lock_that_is_no_regular_file_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    other, lock = tmp_path / "other", tmp_path / "run" / ".writer"
    other.write_text("precious")
    lock.parent.mkdir()
    {"a FIFO": os.mkfifo, "a link": lambda path: path.symlink_to(other), "a folder": os.mkdir}[kind](lock)
    with pytest.raises(RecordError, match="cannot write a run into"):
        Writer(lock.parent, Header())
    assert other.read_text() == "precious"
    assert lock.exists()


def test_where_there_are_no_locks_nobody_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with Writer(tmp_path, Header()) as one, Writer(tmp_path, Header()) as two:
        one.write(step(0))
        two.write(step(1))
    assert one.part != two.part


def test_the_folder_names_its_writer_and_nothing_of_those_before(tmp_path: Path) -> None:
    (tmp_path / ".writer").write_text("process 12345678901234567890")
    with Writer(tmp_path, Header()):
        assert (tmp_path / ".writer").read_text() == f"process {os.getpid()}"


def test_who_is_refused_a_folder_has_no_file_of_it_open(tmp_path: Path) -> None:
    with Writer(tmp_path, Header()), pytest.raises(RecordError, match="is writing into") as caught:
        Writer(tmp_path, Header())
    assert caught.value.__traceback__ is not None  # what raised is still there, with all that it held
    assert not [own for own in lock._owned if not own.closed and held_in(own, tmp_path)]


def held_in(own: lock.Owned, folder: Path) -> bool:
    return os.path.samestat(os.fstat(own.fileno()), os.stat(folder / lock.NAME))


def test_the_time_of_a_step_is_written_where_it_is_zero(tmp_path: Path) -> None:
    with Writer(tmp_path, Header()) as writer:
        writer.write(Step(0, 0.0))
    (part,) = parts(tmp_path)
    assert json.loads(part.read_text().splitlines()[1]) == {"kind": "step", "step": 0, "time": 0.0}
