"""Classes that are not torch's run as engines beside AdamW, as they run alone; those that cannot are refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import groupwise
from groupwise import GroupedOptimizer, Plan, Rule, scale
from groupwise.errors import GroupwiseError, LawBroken, OptimizerError, PlanError, ResolutionError
from groupwise.testing import laws_of
from tests.contract.mixes import assert_same

library = pytest.importorskip("pytorch_optimizer")

ENGINES = [
    *("Lion", "Adan", "Lamb", "ADOPT", "Prodigy", "Ranger", "AdaBelief", "AdEMAMix", "Tiger", "SOAP", "MARS"),
    *("Shampoo", "AdaFactor", "SPAM", "AdaShift", "Kron", "DAdaptAdam", "StableAdamW", "MADGRAD", "SWATS"),
]
FREE = ["ScheduleFreeAdamW", "ScheduleFreeSGD", "ScheduleFreeRAdam"]
LIKE = {name: getattr(library, name) for name in [*ENGINES, *FREE]}
engines = pytest.mark.parametrize("cls", LIKE.values(), ids=LIKE)
schedule_free = pytest.mark.parametrize("cls", [LIKE[name] for name in FREE], ids=FREE)
UNSAFE = {("AdaShift", "what was saved, as plain data, goes on like the original")}
Class = type[torch.optim.Optimizer]


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))


def mixed(cls: Class, model: nn.Sequential) -> GroupedOptimizer:
    """The class on two layers, the second at half the rate, between layers under AdamW."""
    slow = Rule("2.*", lr=scale(0.5))
    return GroupedOptimizer(
        model, Plan([Rule("*", optimizer="AdamW", lr=1e-2), Rule(["1.*", "2.*"], optimizer=cls, lr=1e-2), slow])
    )


def alone(cls: Class, model: nn.Sequential) -> list[torch.optim.Optimizer]:
    groups = [{"params": [*model[1].parameters()], "lr": 1e-2}, {"params": [*model[2].parameters()], "lr": 5e-3}]
    rest = [p for i in (0, 3, 4) for p in model[i].parameters()]
    return [cls(groups, lr=1e-2), torch.optim.AdamW(rest, lr=1e-2)]  # type: ignore[call-arg]


def switch(mode: str, *optimizers: Any) -> None:
    for optimizer in optimizers:
        if callable(getattr(optimizer, mode, None)):
            getattr(optimizer, mode)()


def run(model: nn.Module, seeds: range, *optimizers: torch.optim.Optimizer) -> None:
    """Steps with random gradients; a class that draws numbers draws the same ones."""
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        torch.manual_seed(seed)
        for optimizer in optimizers:
            optimizer.step()


@engines
def test_a_class_obeys_the_laws_of_engines(cls: Class) -> None:
    for law in laws_of(cls):
        if (cls.__name__, str(law)) not in UNSAFE:
            law()


@pytest.mark.parametrize(("name", "law"), UNSAFE)
def test_a_class_whose_state_is_no_plain_data_is_told_so(name: str, law: str) -> None:
    broken = next(other for other in laws_of(LIKE[name]) if str(other) == law)
    with pytest.raises(LawBroken, match=r"weights_only=True refuses it: .*collections\.deque"):
        broken()


@schedule_free
def test_train_and_eval_are_forwarded_to_an_engine_that_knows_them(cls: Class) -> None:
    ours, theirs = net(), net()
    optimizer, separate = mixed(cls, ours), alone(cls, theirs)
    for mode in ("train", "eval", "train"):
        switch(mode, optimizer, *separate)
        assert_same(ours, theirs)
        if mode == "train":
            run(ours, range(5), optimizer)
            run(theirs, range(5), *separate)
            assert_same(ours, theirs)


@schedule_free
def test_eval_moves_the_weights_to_their_average_and_train_back(cls: Class) -> None:
    model = net()
    optimizer = mixed(cls, model)
    optimizer.train()
    run(model, range(12), optimizer)
    before = copy.deepcopy(model)
    optimizer.eval()
    assert not torch.equal(model[1].weight, before[1].weight)
    assert torch.equal(model[0].weight, before[0].weight)
    optimizer.train()
    torch.testing.assert_close(model[1].weight, before[1].weight)


def test_train_and_eval_do_nothing_where_no_engine_knows_them() -> None:
    model = net()
    optimizer = mixed(torch.optim.SGD, model)
    before = copy.deepcopy(model)
    optimizer.train()
    optimizer.eval()
    assert_same(model, before)


def test_a_class_may_be_named_with_its_package_where_that_is_allowed() -> None:
    text = '[[rule]]\nmatch = "*"\noptimizer = "pytorch_optimizer:Lion"\nlr = 1e-3\n'
    assert GroupedOptimizer(net(), Plan.loads(text, allow=["pytorch_optimizer"]))
    with pytest.raises(PlanError, match="pytorch_optimizer"):
        Plan.loads(text)


REFUSED: dict[str, tuple[str, type[GroupwiseError], str]] = {
    "whole-vector": ("LBFGS", OptimizerError, "evaluates the loss itself and treats all parameters as one vector"),
    "progress outside": ("StableSPAM", ResolutionError, "keeps progress in its attribute 'total_step', outside state"),
    "the model wanted": ("AdamMini", ResolutionError, "AdamMini requires model"),
    "a length wanted": ("Ranger21", ResolutionError, "Ranger21 requires num_iterations"),
    "second derivatives": ("SophiaH", ResolutionError, "SophiaH refuses"),
    "around another": ("SAM", OptimizerError, r"SAM goes around another optimizer \(its argument 'base_optimizer'\)"),
    "around an instance": ("Lookahead", OptimizerError, "put it around the GroupedOptimizer if it takes one"),
    "no class": ("load_optimizer", OptimizerError, "has no class 'load_optimizer'"),
}


@pytest.mark.parametrize(("name", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_an_engine_is_refused_before_anything_runs(
    name: str, error: type[GroupwiseError], words: str
) -> None:
    with pytest.raises(error, match=words):
        GroupedOptimizer(net(), Plan([Rule("*", optimizer=f"pytorch_optimizer:{name}", lr=1e-3)]))


def test_a_refusal_names_the_rule_and_the_class() -> None:
    model = net()
    with pytest.raises(OptimizerError, match=r"optimizer 'LBFGS' cannot be used in a plan: LBFGS"):
        groupwise.GroupedOptimizer(model, Plan([Rule("*", optimizer="LBFGS", lr=1.0)]))
    with pytest.raises(ResolutionError, match=r"rules 1 'all'\), parameter '0.weight': .*StableSPAM refuses"):
        GroupedOptimizer(model, Plan([Rule("*", label="all", optimizer=library.StableSPAM, lr=1e-3)]))


def test_lookahead_goes_around_the_whole_optimizer() -> None:
    def wrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        around: torch.optim.Optimizer = library.Lookahead(optimizer, k=2)
        return around

    ours, theirs = net(), net()
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-2)])
    run(ours, range(6), wrapped(GroupedOptimizer(ours, plan)))
    run(theirs, range(6), wrapped(torch.optim.AdamW(theirs.parameters(), lr=1e-2)))
    assert_same(ours, theirs)


def test_an_engine_may_be_driven_by_a_torch_scheduler() -> None:
    ours, theirs = net(), net()
    optimizer, separate = mixed(library.Adan, ours), alone(library.Adan, theirs)
    make: Callable[[Any], Any] = lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.5)  # noqa: E731
    schedulers = [make(optimizer)], [make(one) for one in separate]
    for seed in range(8):
        run(ours, range(seed, seed + 1), optimizer)
        run(theirs, range(seed, seed + 1), *separate)
        for scheduler in (*schedulers[0], *schedulers[1]):
            scheduler.step()
    assert_same(ours, theirs)
