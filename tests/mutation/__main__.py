"""Do the tests notice a small change of meaning? `python -m tests.mutation optim plan`, or all lists without a name.

Each mutant is applied to a copy of the package, and the tests named beside it run until one fails. `--only TEXT` takes
the mutants whose file or text has it. A mutant that survives is a law that is missing, or a line that nobody needs.
"""

import argparse
import compileall
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.mutant import Mutant, listed, packages

ROOT = Path(__file__).parents[2]
_LOADED = "torch._dynamo", "torch.distributed.tensor", "pytest", "hypothesis", "numpy"  # once, for all the mutants
_PLUGINS = "pytest_timeout", "_hypothesis_pytestplugin"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="package", help=f"of {', '.join(packages())}")
    parser.add_argument("--only", default="", help="a part of the file's name or of the text")
    parser.add_argument("--trusting", action="store_true", help="do not run the tests on the unchanged package first")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one mutant; what hangs is noticed")
    told = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch"}  # as tests/conftest.py, before torch is loaded
    for module in _LOADED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        source = _copied(Path(folder))
        survivors = 0
        for package in told.packages or packages():
            chosen = [mutant for mutant in listed(package) if told.only in mutant.file or told.only in mutant.old]
            if not told.trusting:
                _check_unchanged(chosen, source)
            survivors += _tried(package, chosen, source, told.timeout)
    return min(survivors, 1)


def _copied(folder: Path) -> Path:
    """A copy of the package, which this process and all its children import from now on."""
    source = folder / "src" / "groupwise"
    shutil.copytree(ROOT / "src" / "groupwise", source, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(source, quiet=1)
    sys.path[:] = [str(source.parent), str(ROOT), *sys.path]
    os.environ["PYTHONPATH"] = os.pathsep.join((str(source.parent), str(ROOT)))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
    sys.dont_write_bytecode = True
    os.chdir(ROOT)
    return source


def _check_unchanged(chosen: Sequence[Mutant], source: Path) -> None:
    """Stop where a test fails without any change: every mutant would pass for killed."""
    tests, output = sorted({test for mutant in chosen for test in mutant.tests}), source.parent.parent / "output"
    if tests and _fails(tests, output, 3600.0):
        raise SystemExit(output.read_text())


def _tried(package: str, chosen: Sequence[Mutant], source: Path, timeout: float) -> int:
    """Try mutants, telling of each; how many survived that should not have."""
    killed = survived = equivalent = 0
    for mutant in chosen:
        if mutant.equivalent:
            equivalent += 1
            continue
        begin = time.monotonic()
        with mutant.applied(source):
            noticed = _fails(mutant.tests, source.parent.parent / "output", timeout)
        killed, survived = killed + noticed, survived + (not noticed)
        _say(f"{'killed  ' if noticed else 'SURVIVED'} {time.monotonic() - begin:4.0f} s  {mutant}")
    _say(f"{package}: {len(chosen)} mutants, {killed} killed, {survived} survived, {equivalent} equivalent")
    return survived


def _fails(tests: Sequence[str], output: Path, timeout: float) -> bool:
    """Whether some test fails, or does not come back, in a process of its own."""
    child = os.fork()
    if child == 0:
        os.setsid()
        _run(tests, output)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return _is_failure(status, output)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _run(tests: Sequence[str], output: Path) -> None:
    import pytest

    into = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(into, 1)
    os.dup2(into, 2)
    code = 3
    try:
        code = int(pytest.main([*tests, "-x", "-p", "no:cacheprovider", *(f"-p{name}" for name in _PLUGINS)]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _is_failure(status: int, output: Path) -> bool:
    """As pytest says: 0 is passed, 1 failed, 2 cannot be collected; all else is a mistake in a list, or in here."""
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) > 2:
        raise SystemExit(output.read_text())
    return status != 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
