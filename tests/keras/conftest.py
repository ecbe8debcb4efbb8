"""The processes of the backends, which all tests of a worker share."""

from collections.abc import Callable, Iterator

import pytest

from tests.keras.backends import Backend, is_installed


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires_trainable_backend: a mark of Keras' own tests, which are run here too")


@pytest.fixture(scope="session")
def backend() -> Iterator[Callable[[str], Backend]]:
    """The process of a backend by its name, started when it is first asked for."""
    running: dict[str, Backend] = {}

    def of(name: str) -> Backend:
        if not is_installed(name):
            pytest.skip(f"no environment with {name}: make {name}")
        if name not in running:
            running[name] = Backend(name)
        return running[name]

    yield of
    for process in running.values():
        process.end()
