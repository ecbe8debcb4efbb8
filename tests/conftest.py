"""What every test shares: one thread per process (two cores, two workers), Hypothesis without deadlines, and timm.

What was imported and collected, two million objects, stays to the end: the garbage collector need not look through it
again and again (a full pass took 0.35 s, and some tests wait for several).
"""

import gc
import os
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported, which is after this line
os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is; tests/keras has a process for each backend

import pytest
from hypothesis import settings

from tests.vision import import_timm

settings.register_profile("house", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("house")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The real timm."""
    return import_timm()
