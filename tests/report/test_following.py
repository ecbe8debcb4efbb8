"""Following a run: it waits for the first line, shows what is new, and ends when the run does."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from groupwise.errors import RecordError
from groupwise.records import Event, Header, Step, Writer
from groupwise.report import follow


class Training:
    """Stands for time that passes: each time somebody waits, so many steps are taken."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.waits, self.step = folder, 0, 0

    def __call__(self, seconds: float) -> None:
        self.waits += 1
        with Writer(self.folder, Header(total_steps=30)) as writer:
            for _ in range(10):
                writer.write(Step(self.step, scalars={"loss": 1 / (1 + self.step)}))
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
    assert [line.partition(":")[0] for line in lines] == ["step 9", "step 19", "step 29"]
    assert "The loss fell" in lines[-1]


def test_on_a_terminal_the_view_is_shown_again_until_the_end(tmp_path: Path) -> None:
    training, out = Training(tmp_path), console(terminal=True)
    training(0)
    follow(tmp_path, out, training)
    assert training.step == 30
    assert "The loss fell from 0.5 to 0.111" in told(out), "at a glance, after ten steps"
    assert "steps 0 to 29 of 30" in " ".join(told(out).split()), "whole, at the end"


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
