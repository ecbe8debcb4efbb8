"""Damaged runs, by the thousand: each is read and reported, or refused in our own words that name the file.

python -m tests.report.damage 10000
"""

import contextlib
import copy
import io
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from groupwise.errors import RecordError
from groupwise.records import Clip, Event, Group, Header, Step, Writer, read
from groupwise.report import describe, follow, rendered, view
from groupwise.report.coding import dumps
from groupwise.report.terminal import glance

FORMS = ("md", "json", "html")
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 2**70, -(2**63), 10**400, 0.0, -0.0, 1e308, -1e308, 1e-320, 0.5,
    float("nan"), float("inf"), "", "x", "nan", "inf", "-inf", "5", "\x1b[2J", "\ud800", "\u202e", "x" * 300, [], {},
    [[]], [1], ["x"], [["a", "b", 1.0]], [["a", "a", 0.5], ["b", "a", 2]], {"a": 1}, {"a": {}}, {"": {"": 1}},
    {"a": {"b": [1]}},
    {"name": "x"}, [{"name": "x"}], [{"name": 1}], {"kind": "norm", "bound": "nan", "scope": ""}, [[[[[[]]]]]],
)  # fmt: skip


def lines(draw: random.Random) -> list[dict[str, Any]]:
    """A small run as its lines, each time with something else in it."""
    names = draw.sample(["stem", "body", "head", "", "a b"], draw.randint(1, 3))
    tasks = draw.sample(["seg", "depth", "edges"], draw.choice((0, 2, 3)))
    clip = {"kind": "norm", "bound": 1.0, "scope": "all"}
    head: dict[str, Any] = {
        "kind": "run", "version": 1, "run": "a", "part": 1, "started": "2026-01-01T00:00:00", "writer": "groupwise",
        "by": "group", "every": {"values": 1}, "tasks": tasks, "table": "a table\nof two lines", "total_steps": 40,
        "groups": [{"name": n, "algorithm": "SGD", "tensors": 1, "parameters": 2, "clip": clip} for n in names],
    }  # fmt: skip
    found = [head]
    for step in range(draw.choice((0, 1, 2, 30))):
        line: dict[str, Any] = {
            "kind": "step", "step": step, "time": 0.1 * step, "values": {n: {"lr": 0.1} for n in names},
            "groups": {n: {
                "grad_norm": draw.random() * 4, "clip_factor": draw.random(), "update_ratio": draw.random() / 100,
                "contribution": draw.gauss(0, 1), "step_size": draw.random(), "gradient_cosine": draw.gauss(0, 0.3),
            } for n in names},
            "scalars": {"loss": draw.random(), "noise_scale": 5.0},
        }  # fmt: skip
        if tasks:
            line |= {
                "tasks": {t: {"loss": draw.random(), "weight": 1.0} for t in tasks}, "conflicting": tasks[:1],
                "shares": {t: dict.fromkeys(names, 1 / len(tasks)) for t in tasks},
                "cosines": [[tasks[0], tasks[1], draw.uniform(-1, 1)]],
            }  # fmt: skip
        found.append(line)
    for event in ("skipped", "nonfinite", "groups", "resumed", "finished")[: draw.randint(0, 5)]:
        more = {"groups": head["groups"]} if event == "groups" else {}
        found.append({"kind": "event", "step": len(found), "event": event, "text": "so", **more})
    return found


def text_of(told: list[Any]) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in told).encode()


def of_another_type(draw: random.Random, told: list[Any]) -> bytes:
    """Values that are something else, at any depth."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        at: Any = told
        while True:
            key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if draw.random() < 0.3 or not isinstance(at[key], dict | list) or not at[key]:
                at[key] = copy.deepcopy(draw.choice(STRANGE))
                break
            at = at[key]
    return text_of(told)


def without_keys(draw: random.Random, told: list[Any]) -> bytes:
    """Keys that are missing, or in a line of another kind."""
    for _ in range(draw.choice((1, 2, 4))):
        line = draw.choice(told)
        if line:
            value = line.pop(draw.choice(list(line)))
            draw.choice(told)[draw.choice(("step", "groups", "every", "cosines", "table", "kind"))] = value
    return text_of(told)


def same_everywhere(draw: random.Random, told: list[Any]) -> bytes:
    """One number of every step replaced: courses of zeros, of nan, of huge numbers."""
    section, strange = draw.choice(("values", "groups", "tasks", "shares", "scalars")), draw.choice(STRANGE)
    for line in told[1:]:
        if line["kind"] != "step":
            continue
        for inner in [line.get(section, {})] if section == "scalars" else list(line.get(section, {}).values()):
            if inner and draw.random() < 0.9:
                inner[draw.choice(list(inner))] = strange
        if draw.random() < 0.1:
            line["step"] = draw.choice((0, 3, 10**9, 2**63 - 1))
            line["time"] = draw.choice((0, -5.0, 1e300, "nan", "inf"))
    return text_of(told)


def of_bytes(draw: random.Random, told: list[Any]) -> bytes:
    """Bits, stretches and cuts."""
    data = bytearray(text_of(told))
    for _ in range(draw.choice((1, 3, 30))):
        first, size = draw.randrange(len(data)), draw.choice((1, 1, 3, 40))
        what = draw.randrange(4)
        if what == 0:
            data[first] ^= 1 << draw.randrange(8)
        elif what == 1 and len(data) > size + 1:
            del data[first : first + size]
        elif what == 2:
            data[first:first] = draw.choice((b"\n", b"[" * 2000, b'"', b"}", b"\0" * 9, b"9" * 5000, data[:size]))
        else:
            data[first : first + size] = draw.randbytes(size)
        if len(data) < 2:
            break
    return bytes(data)


def in_another_order(draw: random.Random, told: list[Any]) -> bytes:
    """Lines twice, lost, or elsewhere."""
    return text_of([draw.choice(told) for _ in told] if draw.random() < 0.3 else draw.sample(told, len(told)))


Damage = Callable[[random.Random, list[Any]], bytes]
DAMAGES: tuple[Damage, ...] = (
    of_another_type,
    of_another_type,
    without_keys,
    same_everywhere,
    of_bytes,
    in_another_order,
)


def verdict(folder: Path) -> str:
    """What comes of reading and reporting the run in a folder: "reported", "refused", or what must not be."""
    began = time.process_time()
    try:
        _report(folder)
        said = "reported"
    except RecordError as error:
        said = "refused" if str(folder) in str(error) and len(str(error)) <= 2000 else f"NAMELESS {error}"
    except Exception as error:
        return f"FOREIGN {type(error).__name__}: {error}"
    return said if time.process_time() - began < 10 else "UNBOUNDED"


class Enough(Exception):
    """A run that is not finished is followed for ever."""


def _wait(seconds: float) -> None:
    raise Enough


def _report(folder: Path) -> None:
    report = describe(read(folder))
    for form in FORMS:
        rendered(report, form)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(view(report, 80))
    console.print(glance(report.runs[0], 80, 20))
    with contextlib.suppress(Enough):
        follow(folder, console, _wait)
    saved = folder / "report.json"
    saved.write_text(dumps(report))
    if describe(saved) != report and "nan" not in dumps(report):
        raise ValueError("the report is read otherwise than it was written")


def damaged(folder: Path, draw: random.Random, i: int) -> None:
    """Write a damaged run of one or two parts."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    told = lines(draw)
    (folder / "part-000001.jsonl").write_bytes(DAMAGES[i % len(DAMAGES)](draw, told))
    if draw.random() < 0.2:
        second = lines(draw)
        second[0]["part"] = draw.choice((1, 2, 3, 10**9, "x"))
        (folder / draw.choice(("part-000002.jsonl", "part-7.jsonl"))).write_bytes(text_of(second))


def damaged_report(folder: Path, draw: random.Random) -> None:
    """Write a report of something else than what is in it."""
    with Writer(folder, Header(groups=(Group("g", clip=Clip("norm", 1.0, "g")),), tasks=("a",))) as writer:
        for step in range(30):
            writer.write(Step(step, 0.1, groups={"g": {"grad_norm": 1.0, "clip_factor": 0.5}}, scalars={"loss": 1.0}))
        writer.write(Event(30, "finished"))
    told = [json.loads(dumps(describe(folder)))]
    damage = of_another_type if draw.random() < 0.2 else of_another_shape
    (folder / "saved.json").write_bytes(damage(draw, told).rstrip(b"\n"))


def of_another_shape(draw: random.Random, told: list[Any]) -> bytes:
    """Lists that have more or fewer elements, at any depth, and numbers that are others."""
    for _ in range(draw.choice((1, 2, 5))):
        at: Any = told[0]
        while at:
            key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if isinstance(at, list) and draw.random() < 0.3:
                if draw.random() < 0.5:
                    del at[key]
                else:
                    at.insert(key, copy.deepcopy(draw.choice(at)))
                break
            if not isinstance(at[key], dict | list):
                other = draw.choice((-1, 0, 10**18, 1e300, "nan", "", "groups", "x\x1b[2J"))
                at[key] = other if isinstance(other, str) is isinstance(at[key], str) else at[key]
                break
            at = at[key]
    return text_of(told)


def of_reports(count: int, seed: int) -> Iterator[str]:
    """What comes of showing damaged reports."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as room:
        for i in range(count):
            folder = Path(room) / str(i)
            damaged_report(folder, draw)
            yield shown_again(folder / "saved.json")


def shown_again(path: Path) -> str:
    """What comes of showing a report that was saved."""
    try:
        report = describe(path)
        for form in FORMS:
            rendered(report, form)
        Console(file=io.StringIO(), width=80).print(view(report, 80))
    except RecordError:
        return "refused"
    except Exception as error:
        return f"FOREIGN {type(error).__name__}: {error}"
    return "reported"


def of_runs(count: int, seed: int) -> Iterator[str]:
    """What comes of so many damaged runs."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as room, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(count):
            damaged(Path(room) / "run", draw, i)
            yield verdict(Path(room) / "run")


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for what, found in (("runs", of_runs), ("reports", of_reports)):
        sys.stdout.write(f"{what}: {json.dumps(Counter(found(int(sys.argv[1]), seed)).most_common(40), indent=1)}\n")
