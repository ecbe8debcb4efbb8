"""A run that stops anywhere and goes on elsewhere is the run that did not stop, bit for bit."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoint.runs import STEPS, Run, differences, runs


@settings(max_examples=50)
@given(made=runs(), stop=st.integers(0, STEPS))
def test_any_plan_stopped_anywhere_goes_on_bit_for_bit(made: Callable[[int], Run], stop: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run.pt"
        straight = made(0)
        straight.train(range(stop))
        straight.save(path)
        straight.train(range(stop, STEPS))
        told = straight.everything()
        other = made(50)
        other.load(path)
        other.train(range(stop, STEPS))
        assert not differences(told, other.everything())


@settings(max_examples=5)
@given(made=runs())
def test_saving_disturbs_nothing(made: Callable[[int], Run]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        silent, saving = made(0), None
        silent.train(range(STEPS))
        told = silent.everything()
        saving = made(0)
        for step in range(STEPS):
            saving.train([step])
            saving.save(Path(directory) / "run.pt")
        assert not differences(told, saving.everything())
