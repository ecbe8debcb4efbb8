"""What every test shares: one thread per process (two cores, two workers), profiles of Hypothesis, and timm.

What was imported and collected, two million objects, stays to the end: the garbage collector need not look through it
again and again (a full pass took more than a second, and there is one in every training of Hugging Face's trainer).
"""

import gc
import os
import re
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported, which is after this line
os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is; tests/keras has a process for each backend

import pytest
from hypothesis import settings

from tests.vision import import_timm

settings.register_profile(
    "house", deadline=None, derandomize="CI" in os.environ, print_blob=True, max_examples=40
)  # of schedules, select, plan and records they kill every mutant of tests/mutation that 100 do
settings.register_profile("thorough", settings.get_profile("house"), derandomize=False, max_examples=1000)
settings.load_profile("house")


LONG = ("keras", "contract", "benchmarks", "integrations", "docs", "cli")  # packages whose files take longest
_PLACE = re.compile(r"tests/(\w+)/[^:]*(?:::test_on\[(\w+))?")


def _place_of(nodeid: str) -> tuple[int, str]:
    """When the tests of a place are started, and its name: a file, or a backend of tests/keras."""
    found = _PLACE.match(nodeid)
    if found is None:
        return len(LONG), nodeid.partition("::")[0]
    return LONG.index(found[1]) if found[1] in LONG else len(LONG), found[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long starts first, so that workers end together."""
    items.sort(key=lambda item: _place_of(item.nodeid)[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With -n, a worker gets whole files: what a module sets up, and a backend's process, start in one alone."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _place_of(nodeid)[1]

    config.option.loadscopereorder = False
    return ByPlace(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The real timm."""
    return import_timm()
