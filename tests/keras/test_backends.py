"""Every check, on every backend that runs here, each backend in its own process."""

from collections.abc import Callable

import pytest

from tests.keras.backends import BACKENDS, Backend, checks


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.rpartition("/")[2])
@pytest.mark.parametrize("name", BACKENDS)
def test_on(name: str, check: str, backend: Callable[[str], Backend]) -> None:
    outcome = backend(name).run(check)
    if outcome.text:
        pytest.fail(outcome.text, pytrace=False)
    if not outcome.passed:
        assert outcome.skipped, "no such check ran"
        pytest.skip("it is another backend's")
