"""Keys that a class reads from its group dicts, and that its constructor does not take."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.errors import GroupwiseError
from groupwise.optim import resolve
from groupwise.plan import Algorithm
from groupwise.schedules import linear
from groupwise.select import parameters_of


class LowRank(torch.optim.Optimizer):
    """Gradient descent with momentum, on gradients of the rank that a group says, if it says one, as GaLore has it."""

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.5) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                moved = p.grad
                if "rank" in group:
                    u, s, v = torch.linalg.svd(p.grad, full_matrices=False)
                    rank = int(group["rank"])
                    moved = u[:, :rank] * s[:rank] @ v[:rank] * group.get("gain", 1.0)
                old = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.sub_(old.mul_(group["momentum"]).add_(moved), alpha=group["lr"])


class ReadsInItsConstructor(LowRank):
    """Fails where a key is missing that every group must have, as soon as it is built."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            group["rank"] = int(group["rank"])


class Forgetful(LowRank):
    """Keeps of its groups what it knows."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group({key: param_group[key] for key in ("params", "lr", "momentum") if key in param_group})


BASE = Rule("*", optimizer=LowRank, lr=0.1)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, scheduler: Any = None) -> None:
    for i in range(steps):
        optimizer.zero_grad()
        model(torch.cos(torch.arange(12.0) + i).view(3, 4)).square().sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 2, 3]), st.sampled_from([0.25, 1.0, 2.0]))
def test_a_plan_with_extra_keys_trains_as_the_class_with_such_group_dicts(rank: int, gain: float) -> None:
    ours, plain = net(), net()
    plan = Plan([BASE, Rule("0.weight", extra={"rank": rank}), Rule(["0.weight", "1.weight"], extra={"gain": gain})])
    train(ours, GroupedOptimizer(ours, plan), 4)
    weight, other, *rest = plain[0].weight, plain[1].weight, plain[0].bias, plain[1].bias, *plain[2].parameters()
    groups = [{"params": [weight], "rank": rank, "gain": gain}, {"params": [other], "gain": gain}, {"params": rest}]
    train(plain, LowRank(groups, lr=0.1), 4)
    assert equal(ours, plain)


def test_an_extra_key_is_scheduled_and_scaled_as_a_hyperparameter_is() -> None:
    model = net()
    plan = Plan([BASE, Rule("*.weight", extra={"rank": linear(2, 1)}), Rule("1.*", extra={"rank": scale(2)})])
    with pytest.raises(GroupwiseError, match="cannot multiply rank, which is undeclared"):
        resolve(model, plan)
    optimizer = GroupedOptimizer(model, Plan([*plan.rules[:2], Rule("1.weight", extra={"rank": scale(2)})]))
    scheduler = PlanScheduler(optimizer, total_steps=4)
    seen = []
    for _ in range(5):
        seen.append([group.get("rank") for group in optimizer.param_groups])
        train(model, optimizer, 1, scheduler)
    assert seen == [[None, 2 - t / 4, 4 - t / 2] for t in range(5)]


def test_the_last_word_on_an_extra_key_wins_and_the_table_shows_it() -> None:
    model = net()
    plan = Plan([BASE, Rule("*.weight", extra={"rank": 1}), Rule("1.weight", extra={"rank": 2, "gain": 0.5})])
    resolution = resolve(model, plan)
    head, *rows = (line.split() for line in str(resolution).splitlines()[:5])
    assert head[-3:] == ["rank", "gain", "trains"]
    assert [row[-3:] for row in rows[1:]] == [["-", "-", "yes"], ["1", "-", "yes"], ["2", "0.5", "yes"]]
    assert "rule 2 '*.weight' → rule 3 '1.weight': 1  [overridden]" in str(resolution.explain("1.weight"))
    assert [group.get("rank") for group in resolution.torch_groups()] == [None, 1, 2]
    with pytest.raises(GroupwiseError, match=r"rule 2 '1\.weight' has no effect: everything that it declares"):
        resolve(model, Plan([BASE, Rule("1.weight", extra={"rank": 2}), Rule("*.weight", extra={"rank": 1})]))


def test_extra_keys_of_a_rule_that_names_an_algorithm_are_of_that_algorithm() -> None:
    model = net()
    plan = Plan(
        [
            Rule("*.weight", optimizer=LowRank, lr=0.1, extra={"rank": 1}),
            Rule("*.bias", optimizer="SGD", lr=0.1),
            Rule("2", optimizer="SGD", lr=0.1, momentum=0.0),
        ]
    )
    ranks = {info.name: g.settings.get("rank") for g in resolve(model, plan).groups for info in g.parameters}
    assert [name for name, rank in ranks.items() if rank is not None] == ["0.weight", "1.weight"]


def test_extra_keys_follow_through_checkpoints_pickles_copies_and_regroupings() -> None:
    plan = Plan([BASE, Rule("0.weight", extra={"rank": 1})])
    model = net()
    optimizer = GroupedOptimizer(model, plan)
    train(model, optimizer, 2)
    again = net()
    again.load_state_dict(model.state_dict())
    resumed = GroupedOptimizer(again, plan)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 2)
    train(again, resumed, 2)
    assert equal(model, again)
    edited = GroupedOptimizer(again, Plan([BASE, Rule("0.weight", extra={"rank": 2})]))
    edited.load_state_dict(optimizer.state_dict())
    assert [group.get("rank") for group in edited.param_groups] == [None, 2]
    assert [group.get("rank") for group in pickle.loads(pickle.dumps(edited)).param_groups] == [None, 2]
    edited.regroup(Plan([BASE, Rule("0", extra={"gain": 2.0})]))
    assert [(group.get("rank"), group.get("gain")) for group in edited.param_groups] == [(None, None), (None, 2.0)]
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_class_that_reads_the_key_when_it_is_built_is_built_with_it() -> None:
    model = net()
    rules = [Rule("*.weight", optimizer=ReadsInItsConstructor, lr=0.1), Rule("*.bias", optimizer="SGD", lr=0.1)]
    with pytest.raises(GroupwiseError, match="refuses: 'rank'"):
        resolve(model, Plan(rules))
    optimizer = GroupedOptimizer(model, Plan([*rules, Rule("*.weight", extra={"rank": 1.0})]))
    train(model, optimizer, 2)
    assert [group.get("rank") for group in optimizer.param_groups] == [1, None]


def test_a_group_that_is_added_has_no_extra_key_of_the_plans() -> None:
    optimizer = GroupedOptimizer({"net": net()}, Plan([BASE, Rule("*.weight", extra={"rank": 1})]))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))]})
    assert "rank" not in optimizer.param_groups[-1]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("0.weight", extra={"ranks": 1}), "reads no 'ranks' from its groups; did you mean 'rank'?"),
        (Rule("0.weight", extra={"momentun": 1}), "reads no 'momentun' from its groups; did you mean 'momentum'?"),
        (Rule("0.weight", extra={"lr": 1.0}), "'lr' is a hyperparameter of .*LowRank: say lr=, not extra="),
        (Rule("0.weight", rank=1), "unknown hyperparameter of .*LowRank 'rank' .* is said as extra={'rank': …}"),
        (Rule("0.weight", momentun=0.5), r"unknown hyperparameter .* did you mean 'momentum'\? \(there is: lr, mom"),
        (Rule("0.weight", extra={"rank": (linear(1, 2), 1)}), "only where the default is a tuple may an element be"),
    ],
)
def test_a_key_that_is_not_meant_is_refused(rule: Rule, message: str) -> None:
    with pytest.raises(GroupwiseError, match=message):
        resolve(net(), Plan([BASE, rule]))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"params": 1}, "extra cannot hold 'params', which every group has"),
        ({"declared": 1}, "extra cannot hold 'declared'"),
        (3, "extra is a mapping of names to values, not 3"),
        ({"a b": 1}, "'a b' is not the name of a key of a group"),
        ({"lr": 1}, "it declares lr twice: as a hyperparameter and in extra"),
        ({"rank": {}}, "rank must be a number, text, bool, tuple, schedule or factor, not dict"),
    ],
)
def test_what_cannot_be_an_extra_key_is_refused_where_it_is_written(extra: Any, message: str) -> None:
    with pytest.raises(GroupwiseError, match=message):
        Rule("*", lr=0.1, extra=extra)


def test_a_misspelt_extra_is_told_so() -> None:
    with pytest.raises(GroupwiseError, match=r"extras must be a number.* did you mean extra="):
        Rule("*", extras={"rank": 1})


def test_a_key_that_the_class_does_not_read_stands_there_for_others_and_the_table_says_so() -> None:
    resolution = resolve(net(), Plan([Rule("*", optimizer="AdamW", lr=0.1, extra={"lr_scale": 0.5})]))
    assert "AdamW reads no 'lr_scale' in its first update: it stands in the groups for others" in str(resolution)
    assert "reads no" not in str(resolve(net(), Plan([BASE, Rule("0.weight", extra={"rank": 1})])))


def test_a_class_that_keeps_no_other_keys_is_refused_as_the_one_for_an_extra_key() -> None:
    plan = Plan([Rule("*", optimizer=Forgetful, lr=0.1, extra={"rank": 1})])
    with pytest.raises(GroupwiseError, match="Forgetful does not keep 'rank', an extra key, in its groups"):
        resolve(net(), plan)


def test_algorithms_without_group_dicts_refuse_extra_keys() -> None:
    plan = Plan([Rule("*", optimizer="Adam", lr=0.1, extra={"rank": 1})])
    with pytest.raises(GroupwiseError, match=r"Adam has no group dicts that could hold 'rank': extra= is for PyTorch"):
        plan.resolve(parameters_of(net()), {"Adam": Algorithm("Adam", {"lr": 1e-3})})
