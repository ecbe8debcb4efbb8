"""Run every check with other versions of Keras:  python -m tests.keras.versions 3.12.4 3.14.1

Each version is installed beside the environment, without what it depends on, and used with the torch, jax and
tensorflow that are there. It needs the package index, so it is not part of the tests.
"""

import collections
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.keras.backends import BACKENDS, Backend, checks, is_installed

DEFAULT = ("3.12.4", "3.13.2", "3.14.1", "3.15.1")


def try_version(version: str) -> None:
    """Install one version and write what came of the checks, each failure by its last line."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, f"keras=={version}"]
        subprocess.run(pip, check=True)
        for name in filter(is_installed, BACKENDS):
            _report(version, name, Path(folder))


def _report(version: str, name: str, packages: Path) -> None:
    backend = Backend(name, packages)
    passed, skipped, failures = 0, 0, collections.defaultdict(list)
    for check in checks():
        outcome = backend.run(check)
        passed += bool(outcome.passed and not outcome.text)
        skipped += bool(outcome.skipped and not outcome.passed and not outcome.text)
        if outcome.text:
            failures[_why(outcome.text)].append(check.rpartition("::")[2])
    backend.end()
    sys.stdout.write(f"keras {version} on {name}: {passed} checks passed, {skipped} skipped\n")
    for why, names in failures.items():
        sys.stdout.write(f"  {len(names):3d}  {why}\n       {', '.join(names[:3])}\n")
    sys.stdout.flush()


def _why(text: str) -> str:
    said = [line[1:].strip() for line in text.splitlines() if line.startswith("E  ")]
    return said[0][:160] if said else text.strip().splitlines()[-1][:160]


def main(versions: Sequence[str]) -> None:
    """Try each version in turn."""
    for version in versions or DEFAULT:
        try_version(version)


if __name__ == "__main__":
    main(sys.argv[1:])
