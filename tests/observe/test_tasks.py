"""What is told of tasks: losses, a balancer's result, shares and cosines of their gradients, the noise scale."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from groupwise.balance import DWA, Balancer, Method, Static, UPGrad
from groupwise.errors import RecordError
from groupwise.observe import Observer
from groupwise.observe.noise import KEEP
from groupwise.records import read
from groupwise.report import describe
from tests.observe.nets import ALL, Net, groups, losses, net


def observed(folder: Path, sparse: bool = False, **given: Any) -> tuple[Net, torch.optim.Optimizer, Observer]:
    model = net(sparse)
    optimizer = torch.optim.SGD([{**group, "lr": 0.0} for group in groups(model)])
    return model, optimizer, Observer(optimizer, folder, **{"every": ALL, **given})


def gradients(model: Net, task: str, step: int) -> dict[str, list[torch.Tensor | None]]:
    """Each group's gradients of one task, from a backward of its own."""
    model.zero_grad()
    losses(model, step)[task].backward()
    dense = {id(p): None if p.grad is None else p.grad.to_dense().double() for p in model.parameters()}
    model.zero_grad()
    return {group["name"]: [dense[id(p)] for p in group["params"]] for group in groups(model)}


def norm(grads: list[torch.Tensor | None]) -> float:
    return math.sqrt(sum(g.square().sum().item() for g in grads if g is not None))


@pytest.mark.parametrize("sparse", [False, True])
def test_shares_and_cosines_are_those_of_a_backward_for_each_task(sparse: bool, tmp_path: Path) -> None:
    model, optimizer, observer = observed(tmp_path, sparse)
    reference = {task: gradients(model, task, 0) for task in ("left", "right")}
    told = losses(model, 0)
    assert observer.tasks(told)
    assert all(p.grad is None for p in model.parameters())
    sum(told.values()).backward()  # the graph is still there
    optimizer.step()
    record = observer.last
    for name in ("trunk", "heads"):
        norms = {task: norm(reference[task][name]) for task in reference}
        for task in reference:
            share = norms[task] / sum(norms.values())
            assert record.shares[task][name] == pytest.approx(share, rel=1e-5)
    assert "frozen" not in record.shares["left"]
    trunk = [torch.cat([g.flatten() for g in reference[task]["trunk"] if g is not None]) for task in ("left", "right")]
    cosine = torch.dot(*trunk) / trunk[0].norm() / trunk[1].norm()
    assert record.cosines == [("left", "right", pytest.approx(cosine.item(), rel=1e-5))]
    every = math.hypot(*(norm(reference["left"][name]) for name in ("trunk", "heads")))
    assert record.tasks["left"]["norm"] == pytest.approx(every, rel=1e-5)
    assert record.tasks["right"]["loss"] == pytest.approx(told["right"].item())


def test_shares_are_taken_at_their_cadence_and_losses_always(tmp_path: Path) -> None:
    model, optimizer, observer = observed(tmp_path, every={"tasks": 3})
    due = []
    with observer:
        for step in range(5):
            due.append(observer.tasks(losses(model, step)))
            optimizer.step()
    run = read(tmp_path)
    assert due == [True, False, False, True, False]
    assert list(run.series("shares", "left", "trunk").steps) == [0, 3]
    assert list(run.series("tasks", "left", "loss").steps) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", [UPGrad(), DWA()])
def test_the_result_of_a_balancer_is_recorded(method: Method, tmp_path: Path) -> None:
    model, optimizer, observer = observed(tmp_path)
    balancer = Balancer(method)
    with observer:
        for step in range(2):
            optimizer.zero_grad()
            result = balancer.backward(losses(model, step))
            observer.log(balance=result)
            shares = result.shares
            optimizer.step()
    record = observer.last
    assert set(record.tasks) == {"left", "right"}
    assert record.tasks["left"]["weight"] == pytest.approx(result.weights["left"])
    assert record.tasks["right"]["loss"] == pytest.approx(result.losses["right"])
    assert record.scalars["loss"] == pytest.approx(result.loss)
    assert record.conflicting == result.conflicting
    if isinstance(method, UPGrad):
        assert record.cosines == [("left", "right", pytest.approx(result.cosines["left", "right"]))]
        assert record.tasks["left"]["norm"] == pytest.approx(result.norms["left"])
        rows = shares.square().sum(1).sqrt()  # all shared parameters are of the trunk
        assert record.shares["left"]["trunk"] == pytest.approx((rows[0] / rows.sum()).item(), rel=1e-5)
        assert "heads" not in record.shares["left"]


@dataclass
class Result:
    """Something that looks like a balancer's result."""

    tasks: tuple[str, ...] = ("a",)
    loss: float = 1.0
    losses: dict[str, float] = field(default_factory=lambda: {"a": 1.0, "b": math.nan})
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0})
    norms: dict[str, float] = field(default_factory=dict)
    cosines: dict[tuple[str, str], float] = field(default_factory=dict)
    conflicting: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=lambda: {"b": "its loss is nan"})
    shared: tuple[torch.Tensor, ...] = ()
    shares: torch.Tensor | None = None


def test_a_task_that_a_balancer_left_out_is_an_event(tmp_path: Path) -> None:
    _, optimizer, observer = observed(tmp_path)
    with observer:
        observer.log(loss=2.0, balance=Result())
        optimizer.step()
    run = read(tmp_path)
    assert run.events[0].text == "task 'b' was left out: its loss is nan"
    assert math.isnan(run.series("tasks", "b", "loss").values[0])
    assert list(run.series("scalars", "loss").values) == [2.0]


def test_what_is_told_twice_stands_as_told_last_and_what_no_update_follows_is_not_lost(tmp_path: Path) -> None:
    _, optimizer, observer = observed(tmp_path)
    with observer:
        observer.log(loss=1.0)
        observer.log(loss=2.0, scalars={"loss scale": torch.tensor([8.0])}, losses={"a": 0.5})
        optimizer.step()
        observer.log(loss=3.0)
    run = read(tmp_path)
    assert list(run.series("scalars", "loss")) == [run.steps, run.series("scalars", "loss").values]
    assert list(run.series("scalars", "loss").values) == [2.0, 3.0]
    assert list(run.series("scalars", "loss scale").values) == [8.0]
    assert list(run.series("tasks", "a", "loss").values) == [0.5]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"loss": torch.ones(2)}, r"Observer.log: 'loss' is a tensor of shape \[2\]: log one real number"),
        ({"loss": "low"}, r"Observer.log: 'loss' is 'low': log one number"),
        ({"losses": {"a": None}}, r"Observer.log: 'a loss' is None: log one number"),
    ],
)
def test_what_is_no_number_is_a_clear_error(told: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        observed(tmp_path)[2].log(**told)


def test_a_balancers_result_without_its_name_is_told_it(tmp_path: Path) -> None:
    model, _, observer = observed(tmp_path)
    with pytest.raises(RecordError, match=r"'loss' is .*: say balance= for what a balancer returned"):
        observer.log(Balancer(Static({"left": 1.0, "right": 1.0})).backward(losses(model, 0)))  # type: ignore[arg-type]


def test_losses_that_are_none_are_clear_errors(tmp_path: Path) -> None:
    model, _, observer = observed(tmp_path)
    for given, message in (
        ({"a": torch.ones(2, requires_grad=True)}, "'a loss' is a tensor of shape"),
        ({"a": 1.0}, "the loss of task 'a' is not a tensor of one number"),
        ({"a": torch.ones(())}, r"the loss of task 'a' does not require grad: call tasks\(\) before backward"),
        ({"a": torch.ones((), requires_grad=True) * 2}, "the loss of task 'a' reaches no parameter"),
        ({}, "no losses"),
    ):
        with pytest.raises(RecordError, match=message):
            observer.tasks(given)  # type: ignore[arg-type]
    assert all(p.grad is None for p in model.parameters())


def noise_of(model: Net, step: int, batches: int) -> tuple[float, float]:
    """|G|² and S from the first micro-batch and from all, as the appendix has them."""
    each = []
    for i in range(batches):
        model.zero_grad()
        sum(losses(model, step * 10 + i).values()).backward()
        each.append(torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None]))
    model.zero_grad()
    small, large = 16, 16 * batches
    first, mean = each[0].square().sum().item(), torch.stack(each).mean(0).square().sum().item()
    return (large * mean - small * first) / (large - small), (first - mean) / (1 / small - 1 / large)


@pytest.mark.parametrize("divided", [True, False])
def test_the_noise_scale_is_the_quotient_of_moving_averages(divided: bool, tmp_path: Path) -> None:
    model, optimizer, observer = observed(tmp_path, every=1)
    averages = (0.0, 0.0)
    told = []
    for step in range(20):
        now = noise_of(model, step, 4)
        averages = (KEEP * averages[0] + (1 - KEEP) * now[0], KEEP * averages[1] + (1 - KEEP) * now[1])
        optimizer.zero_grad()
        for i in range(4):
            (sum(losses(model, step * 10 + i).values()) / (4 if divided else 1)).backward()
            observer.micro_batch(16, divided)
        optimizer.step()
        if averages[0] > 0 and averages[1] > 0:
            assert observer.last.scalars["noise_scale"] == pytest.approx(averages[1] / averages[0], rel=1e-4)
            told.append(step)
        else:
            assert "noise_scale" not in observer.last.scalars
    assert told
    assert any("noise_scale" in numbers for numbers in observer.last.groups.values())


def test_one_micro_batch_or_several_sizes_have_no_noise_scale(tmp_path: Path) -> None:
    model, optimizer, observer = observed(tmp_path)
    for sizes in ((16,), (16, 8)):
        for size in sizes:
            sum(losses(model, size).values()).backward()
            observer.micro_batch(size)
        optimizer.step()
        assert "noise_scale" not in observer.last.scalars


def test_lines_are_plain_json(tmp_path: Path) -> None:
    _, optimizer, observer = observed(tmp_path)
    with observer:
        observer.log(scalars={"nan": math.nan, "up": math.inf, "down": -math.inf})
        optimizer.step()
    lines = (tmp_path / "part-000001.jsonl").read_text().splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    told = [json.loads(line, parse_constant=refuse) for line in lines]
    assert told[1]["scalars"] == {"nan": "nan", "up": "inf", "down": "-inf"}


def test_a_module_that_owns_no_parameter_of_the_optimizer_is_no_task() -> None:
    other = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    loss = sum(losses(net(), 0).values())
    with Observer(optimizer, None) as observer, pytest.raises(RecordError, match="reaches no parameter"):
        observer.tasks({"a": loss})


def owners(folder: Path, way: str) -> list[str]:
    """What the report says of ownership when the left loss is weighted by 1,000, in one of several ways."""
    model = net()
    optimizer = torch.optim.SGD(groups(model), lr=1e-4)
    weights = {"left": 1000.0, "right": 1.0}
    balancer = Balancer(Static(weights))
    with Observer(optimizer, folder, every=ALL) as observer:
        for step in range(4):
            told = losses(model, step)
            optimizer.zero_grad()
            if way == "by hand":
                observer.tasks(told, weights={task: torch.tensor(weight) for task, weight in weights.items()})
                sum(weights[task] * loss for task, loss in told.items()).backward()
            else:
                observer.tasks(told)
                observer.log(balance=balancer.backward(told))
            optimizer.step()
    return [s.head for s in describe(folder).runs[0].verdict if s.rule == "owner"]


@pytest.mark.parametrize("way", ["by hand", "static"])
def test_who_owns_a_group_does_not_depend_on_how_the_weights_came_about(way: str, tmp_path: Path) -> None:
    (head,) = owners(tmp_path, way)
    assert head.startswith("Task 'left' owns 'trunk'")


def test_weights_of_other_tasks_are_a_clear_error(tmp_path: Path) -> None:
    model, _, observer = observed(tmp_path)
    told = losses(model, 0)
    with observer:
        with pytest.raises(RecordError, match=r"Observer\.tasks: weights is a number for .*'right', not 'x'"):
            observer.tasks(told, weights={"x": 1.0})
        with pytest.raises(RecordError, match="weights is a number for each of 'left', 'right', not a list"):
            observer.tasks(told, weights=[1.0, 2.0])  # type: ignore[arg-type]


def weighted(method: Method, folder: Path | None, asked: bool, **given: Any) -> tuple[list[torch.Tensor], Any]:
    """The gradients of an update that a method of losses weights, and the record of it."""
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.SGD(groups(model), lr=0.1)
    told, balancer = losses(model, 0), Balancer(method)
    if folder is None:
        balancer.backward(told)
        return [p.grad for p in model.parameters() if p.grad is not None], None
    with Observer(optimizer, folder, **{"every": ALL, **given}) as observer:
        if asked:
            observer.tasks(told)
        observer.log(balance=balancer.backward(told))
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
    return grads, observer.last


@pytest.mark.parametrize("method", [Static({"left": 3.0, "right": 1.0}), DWA()])
def test_a_method_that_weights_losses_is_recorded_with_the_shares_that_a_loop_would_ask_for(
    method: Method, tmp_path: Path
) -> None:
    plain, _ = weighted(method, None, asked=False)
    grads, record = weighted(method, tmp_path / "left to it", asked=False)
    _, asked = weighted(method, tmp_path / "asked", asked=True)
    assert all(torch.equal(a, b) for a, b in zip(grads, plain, strict=True))
    assert record.shares == asked.shares
    assert record.cosines == asked.cosines
    assert record.shares["left"]


def test_shares_are_taken_at_their_cadence_and_of_losses_that_reach_the_optimizer_only(tmp_path: Path) -> None:
    method = Static({"left": 1.0, "right": 1.0})
    assert not weighted(method, tmp_path / "never", asked=False, every={"tasks": 0})[1].shares
    other = nn.Linear(1, 1)
    with Observer(torch.optim.SGD(other.parameters(), lr=0.1), None, every=ALL) as observer:
        weighted(method, tmp_path / "of another", asked=False)
        other(torch.ones(1, 1)).sum().backward()
        observer._recorder._optimizer.step()
        assert not observer.last.shares  # type: ignore[union-attr]


def test_without_shares_the_report_says_when_a_method_of_losses_is_recorded_with_them(tmp_path: Path) -> None:
    model, optimizer, observer = observed(tmp_path, every={"tasks": 0})
    with observer:
        observer.log(balance=Balancer(Static({"left": 1.0, "right": 1.0})).backward(losses(model, 0)))
        optimizer.step()
    (panel,) = (panel for panel in describe(tmp_path).runs[0].panels if panel.key == "shares")
    assert "at the cadence of `tasks`" in panel.missing
