"""Classes that are not torch's run as engines beside AdamW, as they run alone; those that cannot are refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import groupwise
from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.errors import GroupwiseError, LawBroken, OptimizerError, PlanError, ResolutionError
from groupwise.schedules import linear
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


def test_sam_goes_around_the_whole_optimizer() -> None:
    """It builds what it steps from a class: a function that hands out the optimizer of the plan will do. What it reads
    from the groups is said there."""

    def passes(model: nn.Module, around: Any) -> None:
        for seed in range(4):
            for step in (around.first_step, around.second_step):
                run(model, range(seed, seed + 1))
                step(zero_grad=True)

    ours, theirs = net(), net()
    slow = [p for i in (0, 1) for p in theirs[i].parameters()]
    rest = [p for i in (2, 3, 4) for p in theirs[i].parameters()]
    own = {"rho": 0.05, "adaptive": False}
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-2, extra=own), Rule(["0.*", "1.*"], lr=scale(0.1))])
    optimizer = GroupedOptimizer(ours, plan)
    passes(ours, library.SAM(ours.parameters(), base_optimizer=lambda groups, **_: optimizer, rho=0.05))
    groups = [{"params": slow, "lr": 1e-3}, {"params": rest, "lr": 1e-2}]
    passes(theirs, library.SAM(groups, base_optimizer=torch.optim.AdamW, rho=0.05))
    assert_same(ours, theirs)


class Flagged(torch.optim.Optimizer):
    """Notes on itself what it reads from its state at every step."""

    def __init__(self, params: Any, lr: float = 0.1, every: int = 2) -> None:
        super().__init__(params, {"lr": lr, "every": every})
        self.slow = False

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no loss is returned
        """Half a step where the flag is up."""
        for group in self.param_groups:
            for p in group["params"]:
                taken = self.state[p]["taken"] = self.state[p].get("taken", 0) + 1
                self.slow = taken % group["every"] == 1
                p.sub_(p.grad * group["lr"] * (0.5 if self.slow else 1.0))


class Counting(Flagged):
    """Counts on itself."""

    taken = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # as above
        """Half a step at each other step."""
        self.taken += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad * group["lr"] * (0.5 if self.taken % 2 else 1.0))


class OnceReady(Flagged):
    """Begins its state where its flag says that it has not."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # as above
        """Momentum."""
        for group in self.param_groups:
            for p in group["params"]:
                before = self.state[p]["mean"] if self.slow else torch.zeros_like(p)
                self.state[p]["mean"] = before * 0.9 + p.grad
                p.sub_(self.state[p]["mean"] * group["lr"])
        self.slow = True


class InTensors(Flagged):
    """Keeps its rate in a tensor, and insists on it, as torchao's classes do."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # as above
        """Plain descent."""
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad * group["lr"].clone())


def test_a_class_that_keeps_its_rate_in_a_tensor_gets_one_for_each_group() -> None:
    model = net()
    optimizer = GroupedOptimizer(
        model, Plan([Rule("*", optimizer=InTensors, lr=linear(0.5, over="4 steps")), Rule("1.*", lr=scale(0.5))])
    )
    scheduler = PlanScheduler(optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert [*map(float, rates)] == [0.5, 0.25]
    run(model, range(1), optimizer)
    scheduler.step()
    assert [*map(float, rates)] == [0.375, 0.1875]
    assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, rates, strict=True))


def test_what_each_step_makes_anew_is_no_progress() -> None:
    GroupedOptimizer(net(), Plan([Rule("*", optimizer=Flagged, lr=0.1)]))


@pytest.mark.parametrize(("cls", "attribute"), [(Counting, "taken"), (OnceReady, "slow")])
def test_what_no_step_makes_anew_is_progress(cls: Class, attribute: str) -> None:
    with pytest.raises(ResolutionError, match=f"{cls.__name__} keeps progress in its attribute '{attribute}'"):
        GroupedOptimizer(net(), Plan([Rule("*", optimizer=cls, lr=0.1)]))


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
