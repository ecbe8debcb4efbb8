"""A run that is saved on one backend goes on, the same, on another."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.keras.backends import BACKENDS, Backend

HALVES = "tests/keras/across.py::test_save", "tests/keras/across.py::test_load"


@pytest.mark.parametrize("second", BACKENDS)
@pytest.mark.parametrize("first", BACKENDS)
def test_a_run_goes_on_elsewhere(first: str, second: str, backend: Callable[[str], Backend], tmp_path: Path) -> None:
    for name, half in zip((first, second), HALVES, strict=True):
        outcome = backend(name).run(half, exchange=tmp_path)
        assert (outcome.passed, outcome.text) == (1, "")
