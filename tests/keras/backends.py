"""One process per backend: Keras chooses its backend when it is imported, and keeps it.

A process is started when its first check is asked for and runs every further one; it is sent the node id of a check in
a line of JSON and answers with another. (Two workers of pytest-xdist each have their own.)
"""

import ast
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKS = Path(__file__).parent / "checks"
SOURCES = ROOT / "src"
PYTHON = {
    "torch": Path(sys.executable),
    "jax": Path(sys.executable),
    "tensorflow": ROOT / ".venv-tensorflow/bin/python",
}
BACKENDS = tuple(PYTHON)
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # nets this small train in no time
)


@dataclass(frozen=True)
class Outcome:
    """What came of a check: how many of its cases passed, were skipped, and what the others said."""

    passed: int
    skipped: int
    text: str


class Backend:
    """A running process with Keras on one backend; `packages` is a folder to import from before any other."""

    def __init__(self, name: str, packages: Path | None = None) -> None:
        self._compiled = tempfile.TemporaryDirectory()
        environment = {
            **os.environ,
            "KERAS_BACKEND": name,
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in (packages, ROOT, SOURCES) if folder),
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {QUICK}",
            "JAX_COMPILATION_CACHE_DIR": self._compiled.name,  # many checks compile the same step
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        command = [str(PYTHON[name]), "-m", "tests.keras.serving"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )

    def run(self, check: str, exchange: Path | None = None) -> Outcome:
        """Run one check, by its node id; `exchange` is the folder that checks on several backends share."""
        answer = self._exchange(json.dumps([check, str(exchange or "")]))
        if not answer:
            raise RuntimeError(f"the process of the backend ended with {self._process.wait()} in {check}")
        return Outcome(**json.loads(answer))

    def end(self) -> None:
        """Let the process end."""
        self._process.communicate()
        self._compiled.cleanup()

    def _exchange(self, line: str) -> str:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def is_installed(name: str) -> bool:
    """Whether the environment of a backend is there."""
    return PYTHON[name].exists()


@functools.cache
def checks() -> tuple[str, ...]:
    """The node ids of all checks, read from their source: nothing is imported."""
    return tuple(f"{path.relative_to(ROOT)}::{name}" for path in sorted(CHECKS.glob("*.py")) for name in _tests(path))


def _tests(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))
