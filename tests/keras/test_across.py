"""A run that is saved on one backend goes on, the same, on another."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.keras.backends import BACKENDS, Backend

SAVE, LOAD = "tests/keras/across.py::test_save", "tests/keras/across.py::test_load"


def run(backend: Backend, half: str, exchange: Path) -> None:
    outcome = backend.run(half, exchange=exchange)
    assert (outcome.text, outcome.skipped) == ("", 0)
    assert outcome.passed > 1


@pytest.fixture(scope="session", params=BACKENDS)
def saved(
    request: pytest.FixtureRequest, backend: Callable[[str], Backend], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where a backend has saved its runs, once for all that load them."""
    folder = tmp_path_factory.mktemp(request.param)
    run(backend(request.param), SAVE, folder)
    return folder


@pytest.mark.parametrize("second", BACKENDS)
def test_a_run_goes_on_elsewhere(saved: Path, second: str, backend: Callable[[str], Backend]) -> None:
    run(backend(second), LOAD, saved)
