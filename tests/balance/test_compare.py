"""The comparison of methods with tuned static weights: what it holds equal, what it counts, and what it says."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from groupwise.balance import LogSum, Static, Uncertainty, UPGrad
from groupwise.balance.comparing import Comparison, Entry, Job, Run, compare
from groupwise.balance.comparing.cost import peak, ratios
from groupwise.balance.comparing.training import lowest_cosine
from groupwise.errors import BalanceError

METHODS = [UPGrad(), Uncertainty()]
UPDATES = 30


class Two(nn.Module):
    """A point that two tasks pull at; `angle` 1 pulls it apart, 0 together, and `loud` is how loud the second is."""

    def __init__(self, seed: int, apart: float, loud: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.point = nn.Parameter(torch.randn(4, generator=generator))
        self.goals = torch.tensor([1.0, 1, 1, 1]), torch.tensor([1.0, 1, 1, 1]) * (1 - 2 * apart)
        self.loud = loud

    def losses(self, noise: Tensor) -> dict[str, Tensor]:
        first, second = ((self.point - goal + 0.01 * noise).square().mean() for goal in self.goals)
        return {"quiet": first, "loud": self.loud * second}

    def errors(self) -> dict[str, float]:
        with torch.no_grad():
            one, two = ((self.point - goal).norm().item() for goal in self.goals)
            return {"one": 1 + one, "two": 20 + two}  # so it pays to listen to the quiet task


def job(
    apart: float = 1.0, loud: float = 50.0, **wrong: Callable[[], Mapping[str, float]]
) -> Callable[[int, int], Job]:
    def build(seed: int, updates: int) -> Job:
        model = Two(seed, apart, loud)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=updates)

        def batches() -> Iterator[Tensor]:
            for _ in range(updates):
                yield torch.randn(4, generator=generator)

        return Job(model, optimizer, batches(), model.losses, model.errors, model.errors, scheduler)

    return build


@pytest.fixture(scope="module")
def conflicting() -> Comparison:
    """Two tasks that pull apart, the second fifty times as loud."""
    return compare(job(), [*METHODS, Static({"quiet": 1.0, "loud": 1.0})], updates=UPDATES, seeds=(0, 1))


def test_equal_and_tuned_weights_always_stand_beside_the_methods(conflicting: Comparison) -> None:
    names = [entry.name for entry in conflicting.entries]
    assert names[:2] == ["equal weights", "static weights, tuned"]
    assert names[2:4] == ["UPGrad()", "Uncertainty()"]


def test_the_tuned_weights_are_the_best_of_the_grid_and_their_tuning_is_counted(conflicting: Comparison) -> None:
    equal, tuned = conflicting.entries[:2]
    assert tuned.tries == 8  # four settings, two seeds
    assert equal.tries == 0
    assert sum(tuned.errors("one")) < sum(equal.errors("one"))
    assert isinstance(tuned.method, Static)


def test_a_method_is_given_fewer_updates_in_proportion_to_what_one_costs(conflicting: Comparison) -> None:
    for entry in conflicting.entries[2:]:
        assert entry.updates == max(1, round(UPDATES / max(1.0, entry.time)))
    assert all(entry.updates == UPDATES for entry in conflicting.entries[:2])


def test_seeds_are_shared_so_equal_methods_end_equal(conflicting: Comparison) -> None:
    equal, static = conflicting.entries[0], conflicting.entries[-1]
    if static.updates == equal.updates:
        assert static.errors("one") == equal.errors("one")
    again = compare(job(), METHODS, updates=UPDATES, seeds=(0, 1))
    assert again.entries[0].runs == conflicting.entries[0].runs


def test_errors_are_compared_with_those_of_tuned_weights_seed_by_seed(conflicting: Comparison) -> None:
    equal, tuned = conflicting.entries[:2]
    assert conflicting.against_tuned(tuned) == [1.0, 1.0]
    expected = [
        math.prod(equal.errors(name)[seed] / tuned.errors(name)[seed] for name in ("one", "two")) ** 0.5
        for seed in (0, 1)
    ]
    assert conflicting.against_tuned(equal) == pytest.approx(expected)


def test_better_and_worse_are_said_of_every_seed_or_not_at_all() -> None:
    said = {entry.name: conflict for entry, conflict in zip(VERDICTS.entries[2:], VERDICTS.verdicts()[2:], strict=True)}
    assert said["always lower"].endswith("errors ×0.50 (0.50 to 0.50) those of tuned weights: better in every seed.")
    assert said["always higher"].endswith(": worse in every seed.")
    assert said["sometimes"].endswith(": neither better nor worse in every seed.")


def entry(name: str, *errors: float) -> Entry:
    """An entry with one error a seed."""
    return Entry(name, UPGrad(), 1, 0, 1.0, 1.0, tuple(Run({"e": e}, {"e": e}, 0.5, -0.1) for e in errors))


VERDICTS = Comparison(
    (
        entry("equal", 1.0, 1.0),
        dataclasses.replace(entry("tuned", 1.0, 1.0), method=Uncertainty()),
        entry("always lower", 0.5, 0.5),
        entry("always higher", 1.5, 1.1),
        entry("sometimes", 0.5, 1.5),
    ),
    (0, 1),
    "equal",
    "tuned",
)


def test_conflict_is_measured_for_every_contestant(conflicting: Comparison) -> None:
    assert all(0 < run.conflicts <= 1 for entry in conflicting.entries for run in entry.runs)
    assert all(-1 <= run.cosine <= 1 for entry in conflicting.entries for run in entry.runs)
    assert re.match(r"The tasks were in conflict in \d+ % of the updates", conflicting.verdicts()[0])


def test_the_table_shows_every_contestant_with_cost_and_spread(conflicting: Comparison) -> None:
    lines = str(conflicting).splitlines()
    assert lines[0].split() == ["updates", "one", "two", "against", "tuned", "time", "memory", "conflict"]
    assert "the best of 4 by 8 runs" in str(conflicting)
    assert all("±" in line for line in lines[2:7])


def test_a_run_that_never_conflicted_says_so() -> None:
    alike = compare(job(apart=0.0), [UPGrad()], updates=5, seeds=(0,), probe=1)
    assert alike.conflicts == 0
    assert alike.verdicts()[0].startswith("The tasks were never in conflict")


def test_one_seed_has_no_spread_and_proves_nothing() -> None:
    found = compare(job(), [UPGrad()], updates=5, seeds=(0,))
    assert all("one seed proves nothing" in sentence for sentence in found.verdicts()[1:])


def test_a_method_that_cannot_be_run_has_a_row_that_says_why() -> None:
    found = compare(job(loud=-1.0), [LogSum()], updates=4, seeds=(0,), static=[])
    assert "did not end: " in found.verdicts()[-1]
    assert "'loud' has the loss -" in found.verdicts()[-1]
    assert "-" in str(found).splitlines()[4]


def test_the_grid_may_be_given() -> None:
    quieter = {"quiet": 1.0, "loud": 0.02}
    found = compare(job(), [UPGrad()], updates=10, seeds=(0,), static=[quieter])
    assert found.entry("static weights, tuned").method == Static(quieter)
    assert found.entry("static weights, tuned").tries == 2


@pytest.mark.parametrize(
    "wrong", [{"methods": []}, {"seeds": ()}, {"updates": 0}], ids=["no method", "no seed", "no update"]
)
def test_a_comparison_of_nothing_is_refused(wrong: dict[str, object]) -> None:
    given = {"methods": METHODS, "updates": 3, "seeds": (0,)} | wrong
    methods, updates, seeds = given["methods"], given["updates"], given["seeds"]
    with pytest.raises(BalanceError, match="a comparison needs methods, seeds and updates"):
        compare(job(), methods, updates=updates, seeds=seeds)  # type: ignore[arg-type]


def test_the_lowest_cosine_is_over_what_both_tasks_reach() -> None:
    model = nn.ModuleDict({"trunk": nn.Linear(3, 3), "a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})
    z = model["trunk"](torch.randn(5, 3))
    losses = {name: model[name](z).mean() for name in "ab"}
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(x, [*model["trunk"].parameters()], retain_graph=True)])
        for x in losses.values()
    ]
    expected = torch.cosine_similarity(rows[0], rows[1], dim=0).item()
    assert lowest_cosine(model, losses) == [pytest.approx(expected, abs=1e-6)]
    assert lowest_cosine(model, {"a": losses["a"]}) == []


def test_peak_memory_is_counted_from_making_to_freeing() -> None:
    million = 4 * 1_000_000

    def work() -> None:
        a = torch.zeros(1_000_000)
        b = a + 1
        del a
        view = b[:10]
        del b
        c = torch.zeros(1_000_000)
        del view, c

    assert peak(work) == 2 * million
    assert peak(lambda: None) == 0


def test_peak_memory_sees_what_a_backward_makes() -> None:
    net = nn.Sequential(*(nn.Linear(500, 500, bias=False) for _ in range(3)))
    gradients = 3 * 500 * 500 * 4
    assert peak(lambda: net(torch.randn(2, 500)).sum().backward()) == pytest.approx(gradients, rel=0.05)


def test_ratios_are_taken_round_by_round_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []
    found = ratios({name: lambda n=name: calls.append(n) for name in "xy"}, "x", rounds=3)  # type: ignore[misc]
    assert "".join(calls) == "xyyxxyyx"
    assert found["x"] == 1.0
    assert found["y"] > 0
