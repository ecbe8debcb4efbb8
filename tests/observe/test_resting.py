"""Updates at which no family is due cost next to nothing, and change nothing of what is recorded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise.observe import Observer
from groupwise.observe.cadence import DEFAULT, Cadence
from groupwise.records import Run, read


def observed(folder: Path, every: Any, steps: int = 41, **options: Any) -> Run:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with Observer(optimizer, folder, every, **options) as observer:
        for step in range(steps):
            if step == 25:
                optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "name": "late"})
            loss = model(torch.randn(8, 4)).square().mean()
            loss.backward()
            observer.log(loss=loss if step % 2 else float(loss.detach()))
            optimizer.step()
            optimizer.zero_grad()
    return read(folder)


@pytest.mark.parametrize("factor", [3, 4, 7])
def test_what_is_recorded_rarely_is_what_would_have_been_recorded_there(tmp_path: Path, factor: int) -> None:
    often = observed(tmp_path / "often", dict.fromkeys(DEFAULT, 1) | {"tasks": 0})
    rarely = observed(tmp_path / "rarely", dict.fromkeys(DEFAULT, factor) | {"tasks": 0})
    assert list(rarely.series("scalars", "loss").values) == list(often.series("scalars", "loss").values)
    assert [group.name for group in rarely.groups] == [group.name for group in often.groups]
    for group in ("group 0", "late"):
        for key in often.names("groups", group):
            known = dict(zip(*often.series("groups", group, key), strict=True))
            steps, values = rarely.series("groups", group, key)
            assert len(steps)
            assert all(step % factor == 0 for step in steps)
            assert [known.get(step) for step in steps] == list(values)


def test_a_loss_that_a_tensor_had_is_written_in_the_nine_digits_of_its_precision(tmp_path: Path) -> None:
    run = observed(tmp_path, 50)
    values = run.series("scalars", "loss").values
    assert all(float(f"{value:.9g}") == value for value in values[1::2])
    assert any(float(f"{value:.9g}") != value for value in values[::2])  # a float is what was given


def test_gradients_that_are_shown_at_a_rest_are_of_that_update(tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Observer(optimizer, tmp_path, every=5) as observer:
        for _ in range(11):
            model(torch.randn(8, 4)).square().mean().backward()
            observer.before_clip()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
            optimizer.zero_grad()
    factors = read(tmp_path).series("groups", "group 0", "clip_factor")
    assert list(factors.steps) == [0, 5, 10]
    assert max(factors.values) < 0.1


@given(st.fixed_dictionaries({family: st.integers(0, 6) for family in DEFAULT}), st.integers(0, 100))
def test_a_step_rests_exactly_if_nothing_is_due_and_no_cosine_wants_its_gradients_or_is_looked_at_besides(
    every: dict[str, int], step: int
) -> None:
    cadence = Cadence(every)
    if cadence.rests(step):
        assert not cadence.due(step)
        assert not cadence.due_next("cosines", step)
    if not any(every.values()) or len(set(every.values())) == 1:
        assert cadence.rests(step) == (not cadence.due(step) and not cadence.due_next("cosines", step))
