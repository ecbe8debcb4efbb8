"""What is saved comes back, part by part; what refuses after all takes everything back."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, scale
from groupwise.checkpoint import load, save
from groupwise.errors import GroupwiseWarning, StateError
from groupwise.schedules import cosine
from tests.checkpoint.parts import PLAN, Balancer, Parts, net, same


def test_a_fresh_run_becomes_the_saved_one(tmp_path: Path) -> None:
    run = Parts(1)
    path = run.written(tmp_path / "run.pt")
    told = run.held()
    fresh = Parts(2, steps=0)
    loaded = load(path, **fresh.given())
    of_the_process = {"gradients": 0, "report": 0, "scheduler": fresh.scheduler.last_epoch}
    assert loaded.restored == ("model", "optimizer", "balancer", "generator", "rng", "scheduler")
    assert same(fresh.held() | of_the_process, told | of_the_process | {"scheduler": 3})
    assert str(loaded).endswith("scheduler; every parameter found its state")


def test_parts_that_nobody_asks_for_stay_in_the_file_and_are_reported(tmp_path: Path) -> None:
    path = Parts(1).written(tmp_path / "run.pt", extra={"epoch": 3})
    run = Parts(2, steps=0)
    before = run.held()
    loaded = load(path, model=run.model)
    assert loaded.unused == ("optimizer", "balancer", "generator", "scheduler")
    assert (loaded.report, loaded.extra) == (None, {"epoch": 3})
    assert str(loaded) == "restored model, rng; left optimizer, balancer, generator, scheduler in the file"
    assert same({**run.held(), "model": 0, "random": 0}, {**before, "model": 0, "random": 0})


def test_extra_takes_plain_data_such_as_pythons_own_random_state(tmp_path: Path) -> None:
    random.seed(4)
    save(tmp_path / "run.pt", extra={"random": random.getstate(), "names": ["a"], "t": torch.arange(3)})
    extra = load(tmp_path / "run.pt").extra
    expected = random.random()
    random.setstate(extra["random"])
    assert random.random() == expected
    assert same(extra["t"], torch.arange(3))


def test_several_generators_come_back_by_name(tmp_path: Path) -> None:
    named = {name: torch.Generator().manual_seed(i) for i, name in enumerate("ab")}
    save(tmp_path / "run.pt", generator=named)
    expected = {name: torch.rand(3, generator=generator) for name, generator in named.items()}
    others = {name: torch.Generator() for name in "ba"}
    load(tmp_path / "run.pt", generator=others)
    assert same({name: torch.rand(3, generator=others[name]) for name in "ab"}, expected)


def test_the_global_random_state_goes_on_where_it_was(tmp_path: Path) -> None:
    save(tmp_path / "run.pt", model=net())
    expected = torch.rand(3)
    torch.rand(5)
    load(tmp_path / "run.pt", model=net(3))
    assert torch.equal(torch.rand(3), expected)


def test_the_global_random_state_of_another_rank_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "run.pt", model=net())
    monkeypatch.setattr("groupwise.checkpoint.randomness._rank", lambda: 1)
    torch.manual_seed(8)
    loaded = load(tmp_path / "run.pt", model=(model := net(3)))
    assert loaded.restored == ("model",)
    net(3)
    torch.manual_seed(3)
    assert loaded.unused == ()
    assert same(dict(model.state_dict()), dict(net(0).state_dict()))


class Versioned(nn.Module):
    """Keeps a format version, and a state of its own that is no tensor."""

    _version = 5

    def __init__(self, note: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.note = note
        self.seen: object = None

    def get_extra_state(self) -> object:
        return {"note": self.note}

    def set_extra_state(self, state: Any) -> None:
        if state["note"] == "poison":
            raise ValueError("a poisonous note")
        self.note = state["note"]

    def _load_from_state_dict(self, state_dict: Any, prefix: Any, local_metadata: Any, *rest: Any) -> None:
        self.seen = local_metadata.get("version")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def test_modules_find_their_own_version_and_extra_state(tmp_path: Path) -> None:
    save(tmp_path / "run.pt", model=nn.Sequential(Versioned("hello")))
    model = nn.ModuleDict({"module": nn.Sequential(Versioned())})
    load(tmp_path / "run.pt", model=model)
    assert (model["module"][0].note, model["module"][0].seen) == ("hello", 5)


@pytest.mark.parametrize("compiled", ["when saved", "when loaded"])
def test_a_model_is_seen_through_its_wrappers(compiled: str, tmp_path: Path) -> None:
    saved, fresh = net(1), net(2)
    wrapped = {
        "when saved": (torch.compile(saved, backend="eager"), fresh),
        "when loaded": (saved, torch.compile(fresh, backend="eager")),
    }[compiled]
    save(tmp_path / "run.pt", model=wrapped[0])
    load(tmp_path / "run.pt", model=wrapped[1])
    assert same(dict(fresh.state_dict()), dict(saved.state_dict()))


def test_networks_are_saved_as_the_optimizer_takes_them(tmp_path: Path) -> None:
    def made(seed: int) -> tuple[dict[str, Any], GroupedOptimizer]:
        networks = {"critic": net(seed), "temperature": nn.Parameter(torch.tensor(float(seed)))}
        return networks, GroupedOptimizer(networks, Plan([Rule("*", optimizer="Adam", lr=0.1)]))

    networks, optimizer = made(1)
    (networks["critic"](torch.ones(4, 3)).sum() * networks["temperature"]).backward()
    optimizer.step()
    save(tmp_path / "run.pt", model=networks, optimizer=optimizer)
    fresh, resumed = made(2)
    load(tmp_path / "run.pt", model=fresh, optimizer=resumed)
    assert torch.equal(fresh["temperature"], networks["temperature"])
    assert same(dict(fresh["critic"].state_dict()), dict(networks["critic"].state_dict()))
    assert "exp_avg" in resumed.state[fresh["temperature"]]


def test_any_torch_optimizer_and_scheduler_will_do(tmp_path: Path) -> None:
    def made(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        model = net(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)

    model, optimizer, scheduler = made(1)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step(), scheduler.step()
    save(tmp_path / "run.pt", model=model, optimizer=optimizer, scheduler=scheduler)
    fresh, resumed, again = made(2)
    load(tmp_path / "run.pt", model=fresh, optimizer=resumed, scheduler=again)
    assert resumed.param_groups[0]["lr"] == pytest.approx(0.01)
    assert again.last_epoch == 1
    assert same(resumed.state_dict()["state"], optimizer.state_dict()["state"])


@pytest.mark.parametrize(("prefer", "rate"), [("unchanged", 0.5), ("checkpoint", 1e-3), ("plan", 0.5)])
def test_which_values_stand_can_be_said(prefer: Any, rate: float, tmp_path: Path) -> None:
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-3)])
    save(tmp_path / "run.pt", optimizer=GroupedOptimizer(net(), plan))
    resumed = GroupedOptimizer(net(), Plan([Rule("*", optimizer="AdamW", lr=0.5)]))
    load(tmp_path / "run.pt", optimizer=resumed, prefer=prefer)
    assert resumed.param_groups[0]["lr"] == rate


def test_the_report_tells_what_an_edited_plan_did_to_the_state(tmp_path: Path) -> None:
    path = Parts(1).written(tmp_path / "run.pt")
    model = net()
    optimizer = GroupedOptimizer(model, Plan([*PLAN.rules, Rule("2", label="top", lr=scale(2.0))]))
    assert str(load(path, optimizer=optimizer).report) == "2 moved (2.weight, 2.bias)"
    sgd = GroupedOptimizer(model, Plan([*PLAN.rules, Rule("2", optimizer="SGD", lr=0.1, weight_decay=0.01)]))
    with pytest.warns(GroupwiseWarning, match=r"2 restarted \(2\.weight, 2\.bias\)"):
        load(path, optimizer=sgd)


def test_a_part_that_refuses_after_all_takes_everything_back(tmp_path: Path) -> None:
    path = Parts(1).written(tmp_path / "run.pt")
    run = Parts(2)
    run.balancer.broken = True
    before = run.held()
    with pytest.raises(StateError, match=r"run\.pt: balancer: I would rather not"):
        load(path, **run.given())
    assert same(run.held(), before)


def test_a_model_that_refuses_half_way_is_as_it_was(tmp_path: Path) -> None:
    def made(note: str, seed: int) -> nn.Module:
        return nn.Sequential(net(seed), Versioned(note), net(seed + 1))

    save(tmp_path / "run.pt", model=made("poison", 1))
    model = made("hello", 5)
    before = {name: torch.clone(value) for name, value in model.named_parameters()}
    with pytest.raises(StateError, match="model: a poisonous note"):
        load(tmp_path / "run.pt", model=model)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert model[1].note == "hello"


class Refusing(PlanScheduler):
    """Loads, and then raises."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict["last_epoch"] == 3:
            raise RuntimeError("not this one")


def test_a_scheduler_that_refuses_leaves_hand_made_values_gradients_and_freezing_as_they_were(tmp_path: Path) -> None:
    plan = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2)), Rule("0", trainable=after("2 steps"))])

    def made(steps: int) -> tuple[nn.Module, GroupedOptimizer, PlanScheduler]:
        model = net()
        optimizer = GroupedOptimizer(model, plan)
        scheduler = Refusing(optimizer, total_steps=10)
        for _ in range(steps):
            model(torch.ones(4, 3)).sum().backward()
            optimizer.step(), scheduler.step()
        return model, optimizer, scheduler

    _, optimizer, scheduler = made(3)
    save(tmp_path / "run.pt", optimizer=optimizer, scheduler=scheduler)
    model, optimizer, scheduler = made(1)
    optimizer.param_groups[0]["lr"] = 0.123
    gradients = [p.grad for p in model.parameters()]
    with pytest.raises(StateError, match="scheduler: not this one"):
        load(tmp_path / "run.pt", optimizer=optimizer, scheduler=scheduler)
    assert (optimizer.param_groups[0]["lr"], scheduler.last_epoch) == (0.123, 1)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True, True, True]
    assert all(p.grad is gradient for p, gradient in zip(model.parameters(), gradients, strict=True))


def test_a_load_that_is_interrupted_takes_everything_back(tmp_path: Path) -> None:
    class Interrupted(Balancer):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            previous, self.weight = self.weight, state["weight"]
            if previous != state["weight"] and state["weight"] == 1.0:
                raise KeyboardInterrupt("ctrl-C")

    path = Parts(1).written(tmp_path / "run.pt")
    run = Parts(2)
    run.balancer = Interrupted(2.0)
    before = run.held()
    with pytest.raises(KeyboardInterrupt, match="ctrl-C"):
        load(path, **run.given())
    assert same(run.held(), before)
