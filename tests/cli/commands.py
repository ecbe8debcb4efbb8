"""Running the command line: in this process, and as a person does."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from groupwise.cli.app import app
from tests.house.tree import ROOT

MODELS = "tests.cli.models"
PLAN = """
clip = { norm = 1.0 }

[[rule]]
label = "base"
match = "*"
optimizer = "AdamW"
lr = { cosine = 1e-3, warmup = "10%" }
weight_decay = { linear = 0.0, end = 0.1 }

[[rule]]
label = "norms"
match = { role = ["norm", "bias"] }
weight_decay = 0.0

[[rule]]
label = "body"
match = ["stem", "blocks"]
lr = { scale = 0.1, layer_decay = 0.75 }
clip = { norm = 0.5 }

[[rule]]
label = "stem"
match = "stem"
trainable = { after = "20 steps" }

[values]
teacher = { cosine = 0.996, end = 1.0 }
"""
CONSTANT = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = 0.1\nmomentum = 0.9\n'


def run(*arguments: str | Path, width: int = 100) -> Result:
    """One call in this process, with nobody at a terminal."""
    environment = {"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def command(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One call in a fresh interpreter, from the directory `cwd`."""
    code = "from groupwise.cli import main; main()"
    inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR")}
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=cwd, timeout=120,
        env=inherited | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | environment,
    )  # fmt: skip


def written(folder: Path, text: str = PLAN, name: str = "plan.toml") -> Path:
    """A plan file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
