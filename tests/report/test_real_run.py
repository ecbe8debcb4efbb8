"""A run that happened: a plan, a balancer and an observer wrote it, and the report reads it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.balance import Balancer
from groupwise.balance.methods import PCGrad
from groupwise.observe import Observer
from groupwise.report import Report, describe
from groupwise.schedules import cosine

STEPS = 120


class Net(nn.Module):
    """A trunk, a head for each of two tasks, and a table that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(8, 8, bias=False).requires_grad_(False)
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.small, self.large = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = self.trunk(self.table(x))
        return self.small(shared), self.large(shared)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Report:
    torch.manual_seed(0)
    net, folder = Net(), tmp_path_factory.mktemp("real") / "run"
    rules = [Rule("*", optimizer="AdamW", lr=cosine(3e-3, warmup="10%"), clip=clip_norm(1.0), label="base")]
    plan = Plan([*rules, Rule("trunk", lr=scale(0.3)), Rule(["small", "large"], label="heads", weight_decay=0.0)])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer, total_steps=STEPS)
    balancer = Balancer(PCGrad())
    with Observer(optimizer, folder, every={"tasks": 10, "updates": 5}) as observer:
        for _ in range(STEPS):
            x = torch.randn(32, 8)
            small, large = net(x)
            target = x.sum(1, keepdim=True)
            losses = {"small": (small - target).square().mean(), "large": 1000 * (large + target).square().mean()}
            optimizer.zero_grad()
            result = balancer.backward(losses)
            observer.log(balance=result)
            optimizer.step()
            scheduler.step()
    return describe(folder)


def test_its_panels_are_drawn_but_for_the_noise_scale(real: Report) -> None:
    assert [panel.key for panel in real.runs[0].panels if panel.missing] == ["layers", "noise"]


def test_its_plan_is_shown_as_it_was_resolved(real: Report) -> None:
    facts, table = dict(real.runs[0].facts), real.runs[0].panels[0].figures[0]
    assert facts["steps"].startswith(f"0 to {STEPS - 1}")
    assert facts["state"] == "finished"
    assert "cosine(3e-3, warmup=10%) × 0.3" in str(table)


def test_its_verdict_names_the_task_that_is_a_thousand_times_too_loud(real: Report) -> None:
    heads = [sentence.head for sentence in real.runs[0].verdict if sentence.tone == "look"]
    assert heads[0].startswith("Task 'large' owns 'trunk'")
    learned = next(sentence for sentence in real.runs[0].verdict if sentence.rule == "task-learned")
    assert "'large' went from" in learned.text


def test_clipping_of_a_loss_in_thousands_is_told_as_what_it_is(real: Report) -> None:
    heads = [sentence.head for sentence in real.runs[0].verdict]
    assert any(head.startswith("Clipping normalised scope 'base' (median factor ") for head in heads)


def test_a_run_that_stops_before_the_length_it_was_given_is_told_as_a_part(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(KeyboardInterrupt, match="stop"), Observer(optimizer, tmp_path, total_steps=100) as observer:
        for _ in range(20):
            loss = net(torch.randn(8, 2)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            observer.log(loss=loss)
            optimizer.step()
        raise KeyboardInterrupt("stop")
    run = describe(tmp_path).runs[0]
    assert "The records cover 20 % of 100 steps" in [sentence.head for sentence in run.verdict]
    assert dict(run.facts)["steps"] == "0 to 19 of 100"


@pytest.mark.parametrize(("jointly", "told"), [(True, ["all 2 groups"]), (False, ["first", "second"])])
def test_a_clip_of_a_program_is_told_once_for_each_norm_that_it_takes(
    tmp_path: Path, jointly: bool, told: list[str]
) -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"first": nn.Linear(4, 8), "second": nn.Linear(8, 1)})
    optimizer = torch.optim.SGD([{"name": name, "params": part.parameters()} for name, part in net.items()], lr=0.1)
    with Observer(optimizer, tmp_path, every=1) as observer:
        for _ in range(60):
            net["second"](torch.tanh(net["first"](torch.randn(8, 4)))).square().mean().backward()
            observer.before_clip()
            for part in [net] if jointly else net.values():
                nn.utils.clip_grad_norm_(part.parameters(), 1e-3)
            optimizer.step()
            optimizer.zero_grad()
    heads = [said.head for said in describe(tmp_path).runs[0].verdict if said.rule == "clip-often"]
    assert sorted(head.split("'")[1] for head in heads) == told
