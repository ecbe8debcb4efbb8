"""An observer belongs to the process that made it: no child writes its run, closes it, or holds its folder."""

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from groupwise.errors import GroupwiseWarning, RecordError
from groupwise.observe import Observer
from groupwise.observe.sinks import Call
from groupwise.records import Header, Writer, read
from tests.forks import in_child


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that no child waits for threads that it does not have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)


def steps(optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
        optimizer.step()


def refused(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    with pytest.raises(RecordError, match=f"process {os.getppid()} is writing into"):
        Observer(optimizer, folder)


Act = Callable[[Observer, torch.optim.Optimizer, Path], object]

CHILDREN: dict[str, Act] = {
    "steps": lambda observer, optimizer, folder: steps(optimizer, 5),
    "closes": lambda observer, optimizer, folder: observer.close(),
    "tells": lambda observer, optimizer, folder: (
        observer.log(loss=9.0),
        observer.tasks({"a": torch.ones((), requires_grad=True)}),
        observer.micro_batch(3),
        observer.before_clip(),
        observer.discard(),
    ),
    "does everything": lambda observer, optimizer, folder: (
        observer.log(loss=9.0),
        steps(optimizer, 5),
        observer.close(),
        steps(optimizer, 2),
    ),
    "leaves the block": lambda observer, optimizer, folder: observer.__exit__(None, None, None),
    "drops it": lambda observer, optimizer, folder: observer.__del__(),
    "forks again": lambda observer, optimizer, folder: (
        steps(optimizer, 1),
        in_child(lambda: (steps(optimizer, 3), observer.close())),
    ),
    "wants the folder": lambda observer, optimizer, folder: refused(optimizer, folder),
}


@pytest.mark.filterwarnings("ignore:this process was forked")
@pytest.mark.parametrize("act", CHILDREN.values(), ids=CHILDREN)
def test_a_child_leaves_no_trace_in_its_parents_run(act: Act, tmp_path: Path) -> None:
    optimizer, sunk = sgd(), []
    keep = Call(lambda values, step: sunk.append((step, os.getpid())))
    with Observer(optimizer, tmp_path, sinks=[keep]) as observer:
        steps(optimizer, 3)
        observer.log(loss=1.0)
        told = in_child(lambda: (act(observer, optimizer, tmp_path), len(sunk)))
        assert told.endswith(" 3)")  # nor does it tell anybody else
        assert Observer.writing(tmp_path) is observer
        steps(optimizer, 3)
    assert sunk == [(step, os.getpid()) for step in range(6)]
    run = read(tmp_path)
    assert list(run.steps) == [0, 1, 2, 3, 4, 5]
    assert list(run.series("scalars", "loss").steps) == [3]
    assert [event.event for event in run.events] == ["finished"]
    assert (tmp_path / "part-000001.jsonl").read_text().count('"kind":"step"') == 6


def test_a_child_that_steps_is_told_once_that_it_is_not_recorded(tmp_path: Path) -> None:
    optimizer = sgd()

    def child() -> list[str]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            steps(optimizer, 4)
        return [str(each.message) for each in said if each.category is GroupwiseWarning]

    with Observer(optimizer, tmp_path):
        told = in_child(child)
    assert told == str(
        [
            f"this process was forked from process {os.getpid()}, whose Observer records; its own steps are not "
            "recorded: make an Observer here, with a folder of its own"
        ]
    )


def test_a_child_may_have_an_observer_of_its_own(tmp_path: Path) -> None:
    optimizer = sgd()

    def child() -> None:
        with Observer(sgd(), tmp_path / "child") as own:
            steps(own._recorder._optimizer, 2)

    with Observer(optimizer, tmp_path / "parent"):
        in_child(child)
        steps(optimizer, 1)
    assert list(read(tmp_path / "child").steps) == [0, 1]
    assert list(read(tmp_path / "parent").steps) == [0]


def test_workers_that_come_and_go_change_nothing(tmp_path: Path) -> None:
    optimizer = sgd()
    with Observer(optimizer, tmp_path) as observer:
        for _ in range(2):
            for batch in DataLoader([torch.ones(2)] * 8, batch_size=2, num_workers=2):
                observer.log(loss=float(batch.sum()))
                steps(optimizer, 1)
    assert list(read(tmp_path).steps) == list(range(8))
    assert [event.event for event in read(tmp_path).events] == ["finished"]


def test_threads_that_write_while_another_forks_leave_no_lock_in_any_child(tmp_path: Path) -> None:
    stop, failures = threading.Event(), []

    def write(name: str) -> None:
        try:
            while not stop.is_set():
                with Observer(sgd(), tmp_path / name, part_bytes=300, step=0) as observer:
                    steps(observer._recorder._optimizer, 3)
        except Exception as error:
            failures.append(error)

    def locks() -> list[str]:
        links = (Path("/proc/self/fd") / number for number in os.listdir("/proc/self/fd"))
        return [str(link.readlink()) for link in links if link.is_symlink() and link.readlink().name == ".writer"]

    threads = [threading.Thread(target=write, args=(str(i),)) for i in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        held = [in_child(locks) for _ in range(40)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert held == ["[]"] * 40
    assert not failures
    assert all(len(read(tmp_path / str(i))) % 3 == 0 for i in range(3))


TRAINING = """
import sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader
from tests.observe.test_processes import Slow, sgd, steps
from groupwise.observe import Observer
torch.set_num_threads(1)
optimizer = sgd()
observer = Observer(optimizer, sys.argv[1])
for batch in DataLoader(Slow(), batch_size=2, num_workers=2):
    steps(optimizer, 1)
    observer.flush()
    sys.stdout.write(f"{int(batch[0])}\\n")
    sys.stdout.flush()
    if len(sys.argv) > 2 and observer.step == 4:
        observer.log(loss=1.0)
        sys.exit()
"""


class Slow(torch.utils.data.Dataset[float]):
    """The process that makes each item."""

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> float:
        return float(os.getpid())


def test_the_folder_of_a_run_that_was_killed_is_free_though_its_workers_live(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as first:
        assert first.stdout is not None
        workers = {int(first.stdout.readline()) for _ in range(6)}
        assert len(workers) == 2
        with pytest.raises(RecordError, match=f"process {first.pid} is writing into"):
            Writer(tmp_path, Header())
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)  # they would notice after some seconds that they are orphans
        try:
            first.kill()
            first.wait()
            optimizer = sgd()
            with Observer(optimizer, tmp_path) as observer:
                assert observer.step >= 6
                steps(optimizer, 1)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
    run = read(tmp_path)
    assert list(run.steps) == list(range(observer.step))
    assert [event.event for event in run.events] == ["resumed", "finished"]


def test_a_run_that_ends_without_a_word_reads_to_its_last_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path), "ends"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(read(tmp_path).steps) == [0, 1, 2, 3]
    assert not read(tmp_path).events
