"""Following a run: it waits for the first line, shows what is new, and ends when the run does."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from groupwise.errors import RecordError
from groupwise.records import Event, Header, Step, Writer
from groupwise.report import follow
from groupwise.report.progress import progress
from tests.report.runs import run_of


class Training:
    """Stands for time that passes: each time somebody waits, so many steps are taken."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.waits, self.step = folder, 0, 0

    def __call__(self, seconds: float) -> None:
        self.waits += 1
        with Writer(self.folder, Header(total_steps=30)) as writer:
            for _ in range(10):
                writer.write(Step(self.step, self.step / 2, scalars={"loss": 1 / (1 + self.step)}))
                self.step += 1
            if self.step == 30:
                writer.write(Event(30, "finished"))


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_each_change_is_a_line(tmp_path: Path) -> None:
    training, out = Training(tmp_path), console(terminal=False)
    training(0)
    follow(tmp_path, out, training)
    lines = told(out).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"step {done - 1} of 30, {part} % done{left}"
        for done, part, left in (
            (10, 33, "; 500 ms a step; about 10 s left"),
            (20, 67, "; 500 ms a step; about 5 s left"),
            (30, 100, "; 500 ms a step"),
        )
    ]
    assert "The loss fell" in lines[-1]
    assert not any("worth knowing" in line for line in lines), "that it has no end yet is known"


def test_on_a_terminal_the_view_is_shown_again_until_the_end(tmp_path: Path) -> None:
    training, out = Training(tmp_path), console(terminal=True)
    training(0)
    follow(tmp_path, out, training)
    assert training.step == 30
    assert "The loss fell from 0.5 to 0.111" in told(out), "at a glance, after ten steps"
    assert "step 9 of 30, 33 % done; 500 ms a step; about 10 s left" in told(out)
    assert "loss 0.1 " in told(out), "the last one, and its course"
    assert "steps 0 to 29 of 30" in " ".join(told(out).split()), "whole, at the end"


def test_a_run_that_stands_is_told_so_with_the_time(tmp_path: Path) -> None:
    training, out = Training(tmp_path), console(terminal=True)
    training(0)
    waited = iter(range(40))
    follow(tmp_path, out, lambda seconds: None if next(waited, None) is not None else training(seconds))
    assert "no new record for 30 s: it stands, or was stopped" in told(out)
    assert "no new record for 1 min 20 s" in told(out)
    assert "no new record for 28 s" not in told(out), "a slow step is none"


@pytest.mark.parametrize(
    ("steps", "total", "quiet", "words"),
    [
        ([], None, 0.0, ""),
        ([(0, 0.1)], 10, 0.0, "step 0 of 10, 10 % done"),
        ([(0, 0.0), (9, 4.5)], None, 0.0, "step 9; 500 ms a step"),
        ([(0, 0.0), (10, 1000.0), (11, 2.0), (13, 6.0)], 14, 0.0, "step 13 of 14, 100 % done; 2 s a step"),
        ([(0, 0.0), (9, 90.0)], 1009, 0.0, "step 9 of 1,009, <1 % done; 10 s a step; about 2 h 46 min left"),
        ([(0, 0.0), (9, 90.0)], 10, 60.0, "step 9 of 10, 100 % done; 10 s a step"),
        ([(0, 0.0), (9, 90.0)], 10, 100.0, "…; no new record for 1 min 40 s: it stands, or was stopped"),
        ([(0, 0.0), (9, 0.0)], 20, 0.0, "step 9 of 20, 50 % done"),
    ],
)
def test_progress_says_what_the_records_know(
    tmp_path: Path, steps: list[tuple[int, float]], total: int | None, quiet: float, words: str
) -> None:
    run = run_of(tmp_path, [Step(step, time) for step, time in steps], Header(total_steps=total))
    found = progress(run, quiet)
    assert found.endswith(words[1:]) if words.startswith("…") else found == words


def test_an_empty_folder_is_waited_for(tmp_path: Path) -> None:
    training, out = Training(tmp_path), console(terminal=False)
    follow(tmp_path, out, training)
    assert told(out).startswith("waiting for the first line")
    assert training.step == 30


def test_what_is_no_run_is_not_waited_for(tmp_path: Path) -> None:
    training = Training(tmp_path / "other")
    with pytest.raises(RecordError, match="there is no run at"):
        follow(tmp_path / "nowhere", console(terminal=False), training)
    (tmp_path / "part-000001.jsonl").write_text("hello\n")
    with pytest.raises(RecordError, match="is no run of groupwise"):
        follow(tmp_path, console(terminal=False), training)
    assert not training.waits
