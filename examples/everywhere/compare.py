"""One plan file under every trainer, and how far the weights are from those of a plain loop.

    python -m examples.everywhere.compare [--epochs 5] [--write]

Each program runs in processes of its own, as from the command line, and hands back its weights as a file.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from examples.comparing import END, rewrite
from examples.everywhere.job import EPOCHS, UPDATES, score

FOLDER = Path(__file__).parent
BESIDE_TORCHVISION = """
import runpy, sys
from tests.vision import import_torchvision
import_torchvision()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Starts a program whose trainer imports torchvision, where that may be built for another torch (tests/vision.py)."""


@dataclass(frozen=True)
class Trainer:
    """A program, how many processes it is started in, and the packages that it is of."""

    name: str
    program: str
    packages: Sequence[str] = ("torch",)
    processes: int = 1
    backend: str | None = None
    imports_torchvision: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return all(find_spec(package) is not None for package in self.packages)

    @property
    def versions(self) -> str:
        """`torch 2.13.0`; builds, as `+cpu`, are not named."""
        return ", ".join(f"{package} {version(package).partition('+')[0]}" for package in self.packages)


TRAINERS = (
    Trainer("plain loop", "plain_loop"),
    Trainer("torch alone, by hand", "by_hand"),
    Trainer("DDP, two processes", "ddp", processes=2),
    Trainer("FSDP2, two processes", "fsdp2", processes=2),
    Trainer("Hugging Face Trainer", "hf_trainer", ("transformers",), imports_torchvision=True),
    Trainer("Accelerate", "accelerate_loop", ("accelerate",)),
    Trainer("Lightning", "lightning_module", ("lightning",), imports_torchvision=True),
    Trainer("Ray Train, two workers", "ray_train", ("ray",)),
    Trainer("Keras on torch", "keras_fit", ("keras", "torch"), backend="torch"),
    Trainer("Keras on jax", "keras_fit", ("keras", "jax"), backend="jax"),
)


def run(trainer: Trainer, epochs: int, folder: Path) -> dict[str, Tensor]:
    """The weights that a program comes to. Raises `RuntimeError` with what it wrote if it fails."""
    out = folder / f"{trainer.program}.pt"
    command = [*_start(trainer), f"examples.everywhere.{trainer.program}", "--epochs", str(epochs), "--out", str(out)]
    paths = [str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if trainer.backend is not None:
        environment["KERAS_BACKEND"] = trainer.backend
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    weights: dict[str, Tensor] = torch.load(out)
    return weights


def _start(trainer: Trainer) -> list[str]:
    """What stands before the name of the module."""
    if trainer.processes > 1:
        launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={trainer.processes}"]
        return [sys.executable, "-m", *launch, "-m"]
    if trainer.imports_torchvision and find_spec("torchvision") is not None:
        return [sys.executable, "-c", BESIDE_TORCHVISION]
    return [sys.executable, "-m"]


def difference(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """The largest difference of two weights. Raises `KeyError` if the names differ."""
    if weights.keys() != others.keys():
        raise KeyError(f"{sorted(weights)} are not {sorted(others)}")
    return max((weights[name] - others[name]).abs().max().item() for name in weights)


def statements(program: str) -> list[str]:
    """Its lines of code, without blank lines, comments and docstrings, however they are wrapped."""
    tree = ast.parse((FOLDER / f"{program}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return [line.strip() for line in ast.unparse(tree).splitlines() if line.strip()]


def lines_beyond(program: str) -> int:
    """How many of its statements do not stand in the plain loop."""
    plain = set(statements("plain_loop"))
    return sum(line not in plain for line in statements(program))


def link(trainer: Trainer) -> str:
    """How its row begins."""
    return f"[{trainer.name}]({trainer.program}.py)"


def rows_of(page: str, updates: int) -> dict[str, str]:
    """The rows of the table that a page has, by how they begin; none of a table after another number of updates."""
    _, after, written = page.partition(heading(updates))
    lines = written.partition(END)[0].splitlines() if after else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| [")}


def heading(updates: int) -> str:
    """What stands above the table."""
    return f"After {updates} updates:"


def table(rows: Mapping[Trainer, Mapping[str, Tensor] | None], before: Mapping[str, str] | None = None) -> str:
    """A line for each trainer. None is one that is not installed: it keeps the row that it had `before`."""
    plain = next(weights for weights in rows.values() if weights is not None)
    lines = [
        "| trainer | largest difference of a weight | loss | unseen scans right | lines of its own | run with |",
        "|---|---|---|---|---|---|",
    ]
    for trainer, weights in rows.items():
        begin = link(trainer)
        if weights is None:
            absent = f"| {begin} | not installed here | | | {lines_beyond(trainer.program)} | |"
            lines.append((before or {}).get(begin, absent))
            continue
        loss, right = score(weights)
        apart = difference(weights, plain)
        found = f"{apart:.1g}" if apart else "0"
        own = lines_beyond(trainer.program)
        lines.append(f"| {begin} | {found} | {loss:.6f} | {right:.1f} % | {own} | {trainer.versions} |")
    return "\n".join(lines)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Nothing is searched and nothing drawn, so what other comparisons take changes nothing."""
    parser = argparse.ArgumentParser(description="train under every trainer and print the table")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--write", action="store_true", help="rewrite the README's table")
    for other in ("--seeds", "--search-seeds", "--candidates", "--steps"):
        parser.add_argument(other, type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run every program that can run here, print the table, and with `--write` put it into the README.

    The row of a trainer that is not installed here stays as it was measured elsewhere, with the version it names.
    """
    given = options(argv)
    updates = given.epochs * UPDATES
    torch.set_num_threads(1)
    rows: dict[Trainer, Mapping[str, Tensor] | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for trainer in TRAINERS:
            rows[trainer] = run(trainer, given.epochs, Path(folder)) if trainer.installed else None
            sys.stdout.write(f"{trainer.name}: {'not installed' if rows[trainer] is None else 'done'}\n")
            sys.stdout.flush()
    found = f"{heading(updates)}\n\n{table(rows, rows_of(readme.read_text(encoding='utf-8'), updates))}"
    sys.stdout.write(f"\n{found}\n")
    if given.write:
        rewrite(readme, found)


if __name__ == "__main__":
    main()
