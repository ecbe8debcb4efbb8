"""The demo runs: the shipped plan trains above chance, twice alike, and the screen tells what happened."""

import io
import sys

import pytest
import torch
from rich.console import Console

from groupwise.demos import demo
from groupwise.demos.contestants import load_plan, naive, planned, tuned
from groupwise.demos.model import TwoDigitNet
from groupwise.demos.run import Comparison, fresh_model, loudness
from groupwise.demos.train import losses, train, weighted
from groupwise.demos.two_digits import load_scans, split
from groupwise.errors import GroupwiseError, PlanError
from groupwise.plan import Plan

STEPS = 60


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def screened() -> tuple[Comparison, str]:
    console = quiet()
    comparison = demo(steps=STEPS, console=console)
    assert isinstance(console.file, io.StringIO)
    return comparison, console.file.getvalue()


def test_sixty_steps_under_the_plan_are_far_above_chance(screened: tuple[Comparison, str]) -> None:
    (result,) = screened[0].runs["the plan"]
    assert result.score.left > 0.5
    assert result.score.right > 0.5
    assert result.score.sum_error < 4.0


def test_the_same_seed_gives_the_same_numbers(screened: tuple[Comparison, str]) -> None:
    again = demo(steps=STEPS, console=quiet())
    assert {name: [run.score for run in runs] for name, runs in again.runs.items()} == {
        name: [run.score for run in runs] for name, runs in screened[0].runs.items()
    }


def test_the_screen_shows_the_plan_before_and_the_words_after(screened: tuple[Comparison, str]) -> None:
    shown = screened[1]
    assert shown.index("Muon") < shown.index("unseen scans") < shown.index("The usual way")
    assert all(name in shown for name in ("the plan", "one AdamW, raw sum", "one AdamW, tuned"))
    assert "±" not in shown[shown.index("unseen scans") :]


def test_several_seeds_show_their_spread() -> None:
    console = quiet()
    comparison = demo(seeds=2, steps=3, console=console)
    assert isinstance(console.file, io.StringIO)
    assert [len(runs) for runs in comparison.runs.values()] == [2, 2, 2]
    assert "mean ± sd of 2 seeds" in console.file.getvalue()


def test_the_demo_leaves_torchs_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    fresh_model(0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("seeds", "steps"), [(0, 10), (1, 0)])
def test_no_seed_or_no_step_is_refused(seeds: int, steps: int) -> None:
    with pytest.raises(GroupwiseError, match="at least one"):
        demo(seeds=seeds, steps=steps, console=quiet())


def test_without_scikit_learn_the_demo_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(GroupwiseError, match="scikit-learn is not installed"):
        demo(steps=1, console=quiet())


def test_the_network_has_the_size_that_its_docstring_claims() -> None:
    assert 340_000 < sum(parameter.numel() for parameter in TwoDigitNet().parameters()) < 360_000


def test_the_sums_loss_is_the_loud_one() -> None:
    assert loudness(load_scans()) > 10


def test_the_shipped_plan_names_the_tasks_weights() -> None:
    assert planned(load_plan()).weights == {"left": 1.0, "right": 1.0, "sum": 0.05}


@pytest.mark.parametrize("balance", [None, {"method": "UW"}, {"method": "Static", "weights": {"left": 1.0}}])
def test_a_plan_without_plain_task_weights_is_refused(balance: dict[str, object] | None) -> None:
    plan = load_plan()
    with pytest.raises(PlanError, match="plain task weights"):
        planned(Plan(plan.rules, balance=balance))


def test_training_lowers_the_loss_and_returns_each_step() -> None:
    scans = load_scans()
    generator = torch.Generator().manual_seed(0)
    batches = split(scans, generator, train_pairs=256).train.batches(64, 30, generator)
    model, contestant = fresh_model(0), naive()
    optimizer, scheduler = contestant.build(model, 30)
    history = train(model, optimizer, scheduler, batches, contestant.weights)
    assert [step.number for step in history] == list(range(1, 31))
    assert history[-1].loss < history[0].loss / 2


def test_the_tuned_baseline_clips_and_follows_a_cosine() -> None:
    scans = load_scans()
    generator = torch.Generator().manual_seed(0)
    batch = next(split(scans, generator, train_pairs=64).train.batches(64, 1, generator))
    model, contestant = fresh_model(0), tuned()
    optimizer, scheduler = contestant.build(model, 100)
    assert scheduler is not None
    weighted(losses(model(batch.images), batch.targets), {"left": 9.0, "right": 9.0, "sum": 9.0}).backward()
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]) <= 1.0001
    assert rates[0] == pytest.approx(1e-2 / 5)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[-1] < 1e-4
