"""A run that is saved on one backend goes on, the same, on another."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.keras.backends import BACKENDS, Backend

PAIRS = tuple((f"tests/keras/across.py::test_save{part}", f"tests/keras/across.py::test_load{part}")
              for part in ("", "_layers", "_attention"))  # fmt: skip
"""What one backend does first and another then, by the node ids of checks."""


def run(backend: Backend, half: str, exchange: Path) -> None:
    outcome = backend.run(half, exchange=exchange)
    assert (outcome.text, outcome.skipped) == ("", 0)
    assert outcome.passed


@pytest.fixture(scope="session", params=BACKENDS)
def saved(
    request: pytest.FixtureRequest, backend: Callable[[str], Backend], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where a backend has saved its runs, once for all that load them."""
    folder = tmp_path_factory.mktemp(request.param)
    for save, _ in PAIRS:
        run(backend(request.param), save, folder)
    return folder


@pytest.mark.parametrize("load", [load for _, load in PAIRS], ids=lambda load: load.rpartition("::")[2])
@pytest.mark.parametrize("second", BACKENDS)
def test_a_run_goes_on_elsewhere(saved: Path, second: str, load: str, backend: Callable[[str], Backend]) -> None:
    run(backend(second), load, saved)
