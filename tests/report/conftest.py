"""The runs that most tests of the report read, written once."""

from pathlib import Path

import pytest

from groupwise.report import Report, describe
from tests.report import runs, sample


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample run."""
    return sample.write(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample run with other noise, stopped at step 250."""
    return sample.write(tmp_path_factory.mktemp("runs") / "second", steps=250, seed=1)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 200 groups."""
    return sample.write_many(tmp_path_factory.mktemp("runs") / "many", 200, 60)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run all of whose names are traps."""
    return runs.hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def report(first: Path) -> Report:
    """The report of the sample run."""
    return describe(first)
