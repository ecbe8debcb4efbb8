"""Run the checks with other versions of Keras:  python -m tests.keras.versions [--short] [3.12.4 3.14.1 …]

Each version is installed beside the environment, without what it depends on, and used with the torch, jax and
tensorflow that are there. `--short` runs those checks that rest on private names of Keras; without a version it takes
the newest but one, which is what continuous integration runs beside the newest (that of constraints.txt).
"""

import argparse
import collections
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.keras.backends import BACKENDS, Backend, checks, is_installed

VERSIONS = ("3.12.4", "3.13.2", "3.14.1", "3.15.1")
SHORT = (
    "check_private_names.py",  # each name, and what comes without it
    "check_updates.py::test_fit_equals_the_reference_on_every_form_of_model",
    "check_updates.py::test_under_accumulation_the_accumulated_gradient_is_clipped_and_schedules_count_updates",
    "check_reload.py::test_weights_saved_with_the_state_go_on_exactly",
    "check_training.py::test_the_average_is_that_of_keras",
)
"""What touches the names of `groupwise.keras._keras`: their own checks, the hooks in a fit, state by position."""


@dataclass(frozen=True)
class Report:
    """What came of the checks with one version on one backend; failures by their last line."""

    version: str
    backend: str
    passed: int
    skipped: int
    failures: dict[str, list[str]]

    def __str__(self) -> str:
        head = f"keras {self.version} on {self.backend}: {self.passed} checks passed, {self.skipped} skipped"
        wrong = [f"  {len(names):3d}  {why}\n       {', '.join(names[:3])}" for why, names in self.failures.items()]
        return "\n".join([head, *wrong])


def tried(version: str, chosen: Collection[str]) -> list[Report]:
    """Install one version and run the `chosen` checks with it, the backends beside one another."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", folder, f"keras=={version}"], check=True)
        there = filter(is_installed, BACKENDS)
        return list(pool.map(lambda name: _report(version, name, Path(folder), chosen), there))


def chosen(short: bool) -> tuple[str, ...]:
    """The node ids of all checks, or of those of `SHORT`."""
    return tuple(check for check in checks() if not short or any(part in check for part in SHORT))


def _report(version: str, name: str, packages: Path, chosen: Iterable[str]) -> Report:
    backend = Backend(name, packages)
    passed, skipped, failures = 0, 0, collections.defaultdict(list)
    for check in chosen:
        outcome = backend.run(check)
        passed += bool(outcome.passed and not outcome.text)
        skipped += bool(outcome.skipped and not outcome.passed and not outcome.text)
        if outcome.text:
            failures[_why(outcome.text)].append(check.rpartition("::")[2])
    backend.end()
    return Report(version, name, passed, skipped, dict(failures))


def _why(text: str) -> str:
    said = [line[1:].strip() for line in text.splitlines() if line.startswith("E  ")]
    return said[0][:200] if said else text.strip().splitlines()[-1][:200]


def main() -> int:
    """Try each version in turn; 1 if a check failed with one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="the checks that rest on private names of Keras")
    parser.add_argument("versions", nargs="*", help=f"default: {' '.join(VERSIONS)}; with --short {VERSIONS[-2]}")
    given = parser.parse_args()
    failed = False
    for version in given.versions or (VERSIONS[-2:-1] if given.short else VERSIONS):
        for report in tried(version, chosen(given.short)):
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
            failed = failed or bool(report.failures) or not report.passed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
