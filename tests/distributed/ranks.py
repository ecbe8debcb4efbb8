"""Real processes: a pool of ranks in one gloo group, which run a function of a test module and return what it returns.

The ranks live as long as the tests need them, so one start serves many tests. A rank that fails takes its pool down
(the others wait for it in a collective), and so does one that does not answer in time; the next test gets a new pool.
"""

import contextlib
import tempfile
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

PATIENCE = 120.0  # seconds for one function, and for the start


class RankFailed(AssertionError):
    """A function raised on a rank; the message holds that rank's traceback."""


class Ranks:
    """`ranks(function, *arguments)` runs it on every rank; the results come in the order of ranks."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pipes: list[Any] = []
        self._processes: list[Any] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Raises `RankFailed` if it raised on any rank, or if one did not answer in time."""
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers = {}
        waiting = dict(enumerate(self._pipes))
        while waiting:
            ready = connection.wait(waiting.values(), timeout=PATIENCE)
            for rank in [rank for rank, pipe in waiting.items() if pipe in ready]:
                answers[rank] = self._answer(rank, waiting.pop(rank))
            if not ready:
                self.close()
                raise RankFailed(f"{function.__qualname__}: ranks {sorted(waiting)} of {self.count} hang")
        return [answers[rank] for rank in range(self.count)]

    def close(self) -> None:
        """End every process."""
        for process in self._processes:
            process.kill()
            process.join()
        self._pipes, self._processes = [], []

    def _answer(self, rank: int, pipe: Any) -> Any:
        try:
            fine, result = pipe.recv()
        except EOFError:
            fine, result = False, "it died"
        if not fine:
            self.close()
            raise RankFailed(f"rank {rank} of {self.count}:\n{result}")
        return result

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        store = Path(tempfile.mkdtemp()) / "store"
        for rank in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.count, str(store), theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)


def _serve(rank: int, count: int, store: str, pipe: Any) -> None:
    """A rank's life: run what comes through the pipe until it closes."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*barrier.*|.*No device id is provided.*")
    warnings.filterwarnings("ignore", message=".*returned a view tensor")  # of torch, under tensor parallelism
    patience = timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=patience)
    with contextlib.suppress(EOFError):
        while True:
            function, arguments = pipe.recv()
            try:
                pipe.send((True, function(*arguments)))
            except BaseException:  # whatever it is, the test is to show it
                pipe.send((False, traceback.format_exc()))
