"""The pools of ranks, started on first use and shared by all the tests of a session."""

from collections.abc import Iterator

import pytest

from tests.distributed.ranks import Ranks


@pytest.fixture(scope="session")
def two() -> Iterator[Ranks]:
    """Two ranks."""
    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def four() -> Iterator[Ranks]:
    """Four ranks, for as long as one module needs them."""
    ranks = Ranks(4)
    yield ranks
    ranks.close()
