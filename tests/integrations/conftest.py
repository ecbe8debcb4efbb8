"""The real trainers, imported where torchvision may be broken, each test with Accelerate's globals fresh."""

from collections.abc import Iterator

import pytest

from tests.vision import import_torchvision

import_torchvision()


@pytest.fixture(autouse=True)
def _fresh_globals() -> Iterator[None]:
    yield
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
