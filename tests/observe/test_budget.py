"""Measuring keeps within its share of the training's time, as far as cadences can do that."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise.observe import Observer, budget
from groupwise.observe.budget import FARTHEST, FEWEST, SETTLING, SHARE, UPDATES, Budget
from groupwise.observe.cadence import DEFAULT
from groupwise.records import read


class Training:
    """Updates of P seconds, of which each costs F to observe and every k-th M more."""

    def __init__(self, rest: float, fixed: float, measured: float, total_steps: int | None = None) -> None:
        self.now, self.rest, self.fixed, self.measured, self.k = 0.0, rest, fixed, measured, 1
        self.budget = Budget(total_steps, 20, lambda: self.now)

    def settle(self) -> int:
        """Train until nothing is stretched any more; by how much the cadences are."""
        for step in range(100 * UPDATES * FARTHEST):
            with self.budget.observing:
                self.now += self.fixed
                if step % self.k == 0:
                    with self.budget.measuring:
                        self.now += self.measured
            self.now += self.rest
            if self.budget.ended():
                factor = self.budget.stretch()
                if factor == 1:
                    return self.k
                self.k *= factor
        raise AssertionError("it goes on stretching")


@given(st.floats(0, 0.02), st.floats(0, 2.0))
def test_the_cadences_are_the_closest_that_keep_the_budget(fixed: float, measured: float) -> None:
    k = Training(1.0, fixed, measured).settle()
    assert fixed + measured / k <= SHARE * 1.001 or k == FARTHEST
    closest = max(1, math.ceil(measured / max(SHARE - fixed, SHARE / 5)))
    assert k <= min(FARTHEST, closest + 1)


@given(st.floats(0.03, 0.5), st.floats(0.03, 0.5))
def test_where_what_is_fixed_costs_more_than_the_budget_measuring_takes_a_fifth_of_it(fixed: float, m: float) -> None:
    k = Training(1.0, fixed, m).settle()
    assert m / k <= SHARE / 5 * 1.001 or k > FARTHEST / 2


@given(st.integers(1, 100_000))
def test_a_run_of_known_length_keeps_its_exact_updates(total_steps: int) -> None:
    k = Training(1.0, 0.0, 100.0, total_steps).settle()
    assert k == 1 or total_steps // (20 * k) >= FEWEST


def test_a_run_of_a_few_seconds_is_recorded_whole() -> None:
    training = Training(1e-6, 0.0, 1.0)
    training.measured = 1e-3
    assert not any(training.budget.ended() for _ in range(SETTLING + UPDATES * 10))


def trained(where: Path, steps: int, **options: object) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Observer(optimizer, where, **options) as observer:  # type: ignore[arg-type]
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model(torch.randn(4, 2)).square().mean()
            loss.backward()
            observer.log(loss=loss)
            optimizer.step()


def test_an_observer_that_costs_too_much_stretches_its_cadences_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SECONDS", 0.0)
    monkeypatch.setattr(budget, "SHARE", 1e-9)
    trained(tmp_path / "run", SETTLING + UPDATES + 250)
    run = read(tmp_path / "run")
    (event,) = [event for event in run.events if event.event == "cadence"]
    assert event.step == SETTLING + UPDATES
    assert f"gradients every {FARTHEST}, " in event.text
    steps = run.series("groups", "group 0", "grad_norm")[0]
    assert [*steps] == [*range(event.step), *range(300, SETTLING + UPDATES + 250, FARTHEST)]
    assert len(run.series("scalars", "loss")[0]) == SETTLING + UPDATES + 250, "what is logged is always written"


@pytest.mark.parametrize("every", [1, 3, DEFAULT])
def test_cadences_that_were_asked_for_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: object) -> None:
    monkeypatch.setattr(budget, "SECONDS", 0.0)
    monkeypatch.setattr(budget, "SHARE", 1e-9)
    trained(tmp_path / "run", SETTLING + UPDATES + 1, every=every)
    assert [event.event for event in read(tmp_path / "run").events] == ["finished"]
