"""The demo runs: the shipped plan trains above chance, twice alike, and the screen tells what happened."""

import io
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from groupwise.demos import demo
from groupwise.demos.comparison import Comparison, fresh_model, loudness
from groupwise.demos.contestants import naive, planned, shipped, tuned
from groupwise.demos.model import TwoDigitNet
from groupwise.demos.train import losses, train
from groupwise.demos.two_digits import load_scans, split
from groupwise.errors import BalanceError, GroupwiseError
from groupwise.records import read

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


def test_the_initial_weights_are_those_that_torch_gives_under_the_seed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = TwoDigitNet().state_dict()
    found = fresh_model(5).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(p.requires_grad for p in fresh_model(5).parameters())


def test_the_demo_leaves_the_threads_of_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail("the number of threads is the process's"))
    demo(steps=1, console=quiet())


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
    sizes = {
        pooled: sum(parameter.numel() for parameter in TwoDigitNet(pooled).parameters()) for pooled in (True, False)
    }
    assert 125_000 < sizes[True] < 135_000 < 2 * TwoDigitNet().dense.weight.numel()
    assert 340_000 < sizes[False] < 360_000


def test_the_sums_loss_is_the_loud_one() -> None:
    assert loudness(load_scans()) > 10


def test_the_plans_contestant_minimises_the_weighted_sum_that_the_file_states() -> None:
    by_task = {"left": torch.tensor(2.0), "right": torch.tensor(3.0), "sum": torch.tensor(40.0)}
    weight = torch.ones((), requires_grad=True)
    planned(shipped()).backward()({task: loss * weight for task, loss in by_task.items()})
    assert weight.grad == pytest.approx(2.0 + 3.0 + 0.05 * 40.0)


def test_a_plan_without_a_balance_table_is_refused(tmp_path: Path) -> None:
    text = shipped().read_text()
    (tmp_path / "plan.toml").write_text(text[: text.index("[balance]")])
    with pytest.raises(BalanceError, match="balance"):
        planned(tmp_path / "plan.toml").backward()


def test_with_a_folder_the_demo_leaves_a_run_of_each_contestant_and_a_report(tmp_path: Path) -> None:
    console = quiet()
    for _ in range(2):
        demo(steps=3, console=console, out=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-2"]
    for contestant in ("plan", "raw-sum", "tuned"):
        run = read(tmp_path / "out-2" / contestant)
        assert len(run) == 3
        assert len(run.series("tasks", "sum", "loss").values) == 3
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
    assert isinstance(console.file, io.StringIO)
    assert str(tmp_path / "out-2" / "report.html") in console.file.getvalue()


def test_without_plotly_the_demo_says_how_its_records_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    console = quiet()
    demo(steps=1, console=console, out=tmp_path / "out")
    assert isinstance(console.file, io.StringIO)
    assert "groupwise[report]" in console.file.getvalue()
    assert f"groupwise report {tmp_path / 'out' / 'plan'}" in console.file.getvalue()


def test_training_lowers_the_loss_and_returns_each_step() -> None:
    scans = load_scans()
    generator = torch.Generator().manual_seed(0)
    batches = split(scans, generator, train_pairs=256).train.batches(64, 30, generator)
    model, contestant = fresh_model(0), naive()
    optimizer, scheduler = contestant.build(model, 30)
    history = train(model, optimizer, scheduler, batches, contestant.backward())
    assert [step.number for step in history] == list(range(1, 31))
    assert history[-1].loss < history[0].loss / 2


def test_the_tuned_baseline_clips_and_follows_a_cosine() -> None:
    scans = load_scans()
    generator = torch.Generator().manual_seed(0)
    batch = next(split(scans, generator, train_pairs=64).train.batches(64, 1, generator))
    model, contestant = fresh_model(0), tuned()
    optimizer, scheduler = contestant.build(model, 100)
    assert scheduler is not None
    sum(9 * loss for loss in losses(model(batch.images), batch.targets).values()).backward()
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]) <= 1.0001
    assert rates[0] == pytest.approx(1e-2 / 5)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[-1] < 1e-4
