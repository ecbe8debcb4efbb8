"""A regroup or a load that raises, wherever it does, leaves everything as it was."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, clip_norm, scale
from groupwise.errors import GroupwiseError, GroupwiseWarning, LengthError
from groupwise.optim import freezing, grouped_optimizer, loading, regroup
from groupwise.optim.engines import Engines
from groupwise.optim.runtime import Runtime
from groupwise.optim.usage_monitor import UsageMonitor
from groupwise.schedules import cosine, linear

PLAN = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=linear(0.0, 0.1), clip=clip_norm(1.0)),
        Rule("body", trainable=after("4 steps")),
    ]
)
OTHER = Plan(
    [Rule("*", optimizer="AdamW", lr=cosine(1e-3)), Rule("head", trainable=False), Rule("body", lr=scale(0.5))]
)


class Stop(Exception):
    """What a stage raises."""


def stop(*_: object, **__: object) -> Any:
    raise Stop("here")


class Run:
    """A run in the middle: a part still frozen, a value held in a tensor, a scheduler, and a model that has changed."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
        self.optimizer = GroupedOptimizer(self.net, PLAN)
        self.scheduler = PlanScheduler(self.optimizer, total_steps=10)
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"])
        for _ in range(2):
            self.net["head"](torch.tanh(self.net["body"](torch.ones(2, 3)))).sum().backward()
            self.optimizer.step()
            self.scheduler.step()
        self.net["head"].bias = nn.Parameter(torch.zeros(2))
        self.net["more"] = nn.Linear(2, 2)
        self.net["head"].bias.grad = torch.ones(2)

    def held(self) -> dict[str, Any]:
        """Everything that a regroup or a load may touch, by identity where that counts."""
        o, s = self.optimizer, self.scheduler
        tensors = [p for group in o.param_groups for p in group["params"]] + list(self.net.parameters())
        return {
            "groups": [(id(group), {k: _plain(v) for k, v in group.items()}) for group in o.param_groups],
            "list": id(o.param_groups),
            "state": (id(o.state), {id(p): (id(own), _plain(own)) for p, own in o.state.items()}),
            "attributes": {k: id(v) for k, v in vars(o).items()},
            "scheduler": {k: id(v) for k, v in vars(s).items() if k not in ("_last_lr", "values")},
            "rates": _plain(s._last_lr),
            "monitor": {k: id(v) for k, v in vars(o._monitor).items()},
            "flags": [(id(p), p.requires_grad, id(p.grad)) for p in tensors],
            "hooks": [
                len(hooks) for hooks in (o._optimizer_load_state_dict_pre_hooks, o._optimizer_state_dict_pre_hooks)
            ],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return id(value), value.tolist()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


REGROUP_STAGES: dict[str, tuple[object, str]] = {
    "the walk": (grouped_optimizer, "infos_of"),
    "the plan": (Runtime, "of"),
    "matching": (regroup, "matched"),
    "laying out": (regroup, "transfer"),
    "remembering the model": (grouped_optimizer, "Origin"),
    "freezing": (grouped_optimizer, "freeze"),
    "freezing, half-way": (freezing, "may_flip"),
    "the monitor": (UsageMonitor, "regrouped"),
    "the clock": (PlanScheduler, "write"),
    "looking at the model": (grouped_optimizer, "drift"),
}


@pytest.mark.parametrize(("place", "name"), REGROUP_STAGES.values(), ids=REGROUP_STAGES)
@pytest.mark.parametrize("plan", [None, OTHER], ids=["the same plan", "another plan"])
def test_a_regroup_that_fails_at_any_stage_changes_nothing(
    place: Any, name: str, plan: Plan | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    before = run.held()
    with monkeypatch.context() as patched:
        patched.setattr(place, name, stop)
        with pytest.raises(Stop, match="here"):
            run.optimizer.regroup(plan, model=run.net)
    assert run.held() == before
    run.optimizer.regroup(plan, model=run.net)
    assert {id(p) for p in run.net.parameters()} == {id(p) for g in run.optimizer.param_groups for p in g["params"]}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="1 epoch"))]), LengthError, "epoch"),
        (Plan([Rule("nothing", optimizer="AdamW", lr=1e-2)]), GroupwiseError, "matches no parameter"),
        (Plan([Rule("*", optimizer="SGD", lr=cosine(1e-2), momentum=0.9)]), GroupwiseWarning, "starts afresh"),
    ],
    ids=["a schedule without its length", "a dead rule", "a warning made an error"],
)
@pytest.mark.filterwarnings("error")
def test_a_plan_that_cannot_run_is_refused_and_changes_nothing(change: Plan, error: type, words: str) -> None:
    run = Run()
    before = run.held()
    with pytest.raises(error, match=words):
        run.optimizer.regroup(change, model=run.net)
    assert run.held() == before


LOAD_STAGES: dict[str, tuple[object, str]] = {
    "reading": (loading, "read"),
    "laying out": (loading, "transfer"),
    "the engines": (Engines, "loaded"),
    "looking at the model": (grouped_optimizer, "drift"),
}


@pytest.mark.parametrize(("place", "name"), LOAD_STAGES.values(), ids=LOAD_STAGES)
def test_a_load_that_fails_at_any_stage_changes_nothing(place: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    run.optimizer.regroup(model=run.net)
    saved = copy.deepcopy(run.optimizer.state_dict())
    before = run.held()
    with monkeypatch.context() as patched:
        patched.setattr(place, name, stop)
        with pytest.raises(Stop, match="here"):
            run.optimizer.load_state_dict(saved)
    assert run.held() == before
    run.optimizer.load_state_dict(saved)


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_a_load_that_fails_in_a_users_hook_changes_nothing(kind: str) -> None:
    run = Run()
    run.optimizer.regroup(model=run.net)
    saved = copy.deepcopy(run.optimizer.state_dict())
    register: Callable[..., Any] = getattr(run.optimizer, f"register_load_state_dict_{kind}_hook")
    hook = register(stop)
    before = run.held()
    with pytest.raises(Stop, match="here"):
        run.optimizer.load_state_dict(saved)
    hook.remove()
    after_removal = run.held()
    assert {k: v for k, v in after_removal.items() if k != "hooks"} == {k: v for k, v in before.items() if k != "hooks"}


@pytest.mark.filterwarnings("error")
def test_a_load_whose_warning_is_an_error_changes_nothing() -> None:
    run = Run()
    run.optimizer.regroup(model=run.net)
    saved = copy.deepcopy(run.optimizer.state_dict())
    saved["param_groups"][0]["param_names"][0] = "gone"
    before = run.held()
    with pytest.raises(GroupwiseWarning, match=r"1 new .*1 lost"):
        run.optimizer.load_state_dict(saved)
    assert run.held() == before
