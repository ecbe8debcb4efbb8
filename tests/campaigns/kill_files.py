"""A writer that is killed, at any moment: the file is one of its whole versions, and nothing else stays beside it.

A child is forked, writes one version after the other as fast as it can, and is killed without warning. Then the next
writer has to find a whole file and to leave it alone in its folder.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from groupwise import Plan, Rule
from groupwise.checkpoint import save
from groupwise.cli.plot import write_whole
from groupwise.report import build
from groupwise.report.document import Report, RunReport
from tests.campaigns.bits import STATES
from tests.campaigns.campaign import Attempt
from tests.campaigns.killing import killed
from tests.campaigns.outcome import Outcome, loss, survived

Door = Callable[[Path, int], object]
"""Writes the version of that number."""


def doors() -> Mapping[str, Door]:
    """Every door that writes a whole file, by the name of the file."""
    runs = [STATES["fused AdamW"](i, 2) for i in range(3)]
    plans = [Plan([Rule("*", optimizer="SGD", lr=0.1 * 2**i) for _ in range(40)]) for i in range(3)]
    reports = [Report((RunReport(f"run {i}", f"{i} nothing. " * 2000, (), (), ()),)) for i in range(3)]

    def whole(path: Path, i: int) -> None:
        torch.manual_seed(0)
        save(path, **runs[i].parts())

    def balancer(path: Path, i: int) -> None:
        torch.manual_seed(0)
        save(path, balancer=runs[i].balancer)

    return {
        "run.pt": whole,
        "balancer.pt": balancer,
        "plan.toml": lambda path, i: plans[i].dump(path),
        "report.md": lambda path, i: build(reports[i], path),
        "report.json": lambda path, i: build(reports[i], path),
        "report.html": lambda path, i: build(reports[i], path),
        "plot.svg": lambda path, i: write_whole(path, b"<svg/>" * (5000 + i)),
    }


def versions(door: Door, path: Path) -> list[bytes]:
    """The bytes of each version."""
    found = []
    for i in range(3):
        door(path, i)
        found.append(path.read_bytes())
    return found


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[Attempt]:
    """Whole files."""
    torch.set_num_threads(1)
    known = {name: (door, versions(door, folder / name)) for name, door in doors().items()}
    took = {name: _took(door, folder / name) for name, (door, _) in known.items()}

    def attempt(draw: random.Random) -> Outcome:
        name = draw.choice(list(known))
        door, wholes = known[name]
        path = folder / name / name
        path.parent.mkdir(exist_ok=True)
        existed, first = path.exists(), draw.randrange(3)

        def write() -> None:
            for i in range(first, 10**9):
                door(path, i % 3)

        killed(write, draw.uniform(0, 3) * took[name])
        said = _whole(path, wholes, existed)
        if said:
            return loss(f"{name}: {said}")
        orphans = len(list(path.parent.iterdir())) - path.exists()
        if orphans > 1:
            return loss(f"{name}: {orphans} orphans of one writer")
        if orphans or draw.random() < 0.1:
            door(path, first)
            if [entry.name for entry in path.parent.iterdir()] != [name] or path.read_bytes() != wholes[first]:
                return loss(f"{name}: the next writer left {sorted(os.listdir(path.parent))}")
        if draw.random() < 0.2:
            path.unlink(missing_ok=True)
        return survived(f"killed while writing {name}" if orphans else "killed in between")

    yield attempt


def _took(door: Door, path: Path) -> float:
    began = time.monotonic()
    door(path, 0)
    path.unlink()
    return time.monotonic() - began


def _whole(path: Path, wholes: list[bytes], existed: bool) -> str:
    """What is wrong with a file, in words; empty if it is one of the versions, or absent as before."""
    if not path.exists():
        return "the file is gone" if existed else ""
    data = path.read_bytes()
    return "" if data in wholes else f"{len(data)} bytes that are none of its versions"
