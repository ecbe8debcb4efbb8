"""What a person reads: the shortest plan, in the words of the program, and what it leaves out."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from groupwise import GroupedOptimizer, GroupwiseWarning, Plan, PlanScheduler, Rule, layer_decay, scale
from groupwise.adopt import adopt
from groupwise.errors import AuditError, GroupwiseError, OptimizerError, PlanError, ResolutionError
from groupwise.schedules import step_decay
from groupwise.select import ndim, role
from tests.adopt.programs import Net
from tests.vision import import_torchvision


def named(net: Net) -> dict[str, nn.Parameter]:
    return dict(net.named_parameters())


def test_one_group_is_one_rule() -> None:
    net = Net(2, tied=False, heads=1)
    plan = Plan.from_optimizer(net, torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.95)))
    assert plan == Plan([Rule("*", optimizer="AdamW", lr=1e-3, betas=(0.9, 0.95))])


def test_no_decay_is_a_second_rule_and_groups_keep_their_names() -> None:
    net = Net(2, tied=False, heads=1)
    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1, "name": "decay"}, {"params": vectors, "name": "no decay"}]
    plan = Plan.from_optimizer(net, torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0))
    assert plan == Plan([
        Rule("*", label="decay", optimizer="AdamW", lr=1e-3, weight_decay=0.1),
        Rule(ndim(1), label="no decay", weight_decay=0.0),
    ])  # fmt: skip


def test_the_slower_backbone_under_a_schedule_is_a_factor() -> None:
    net = Net(3, tied=False, heads=1)
    rest = [p for name, p in named(net).items() if not name.startswith("blocks")]
    optimizer = torch.optim.SGD([{"params": net.blocks.parameters(), "lr": 0.01}, {"params": rest}], lr=0.1)
    plan = Plan.from_optimizer(net, optimizer, lr_scheduler.StepLR(optimizer, 30))
    rate = step_decay(0.1, 0.1, every="30 steps")
    assert plan == Plan([Rule("*", optimizer="SGD", lr=rate), Rule("blocks.*", lr=scale(0.1))])


def test_layer_wise_decay_is_one_rule() -> None:
    net = Net(4, tied=False, heads=1)
    levels = {name: 0 if "embed" in name else int(name[7]) + 1 if "blocks" in name else 5 for name in named(net)}
    groups = [{"params": [p], "lr": 1e-3 * 0.75 ** (5 - levels[name])} for name, p in named(net).items()]
    plan = Plan.from_optimizer(net, torch.optim.AdamW(groups))
    assert plan == Plan([Rule("*", optimizer="AdamW", lr=1e-3), Rule("*", lr=layer_decay(0.75))])


def test_two_optimizers_are_one_plan_and_a_mapping_of_models_is_told_apart_by_network() -> None:
    networks = {"generator": nn.Linear(3, 3), "critic": nn.Linear(3, 1)}
    optimizers = {name: torch.optim.Adam(net.parameters(), lr=rate) for (name, net), rate in
                  zip(networks.items(), (1e-4, 4e-4), strict=True)}  # fmt: skip
    found = adopt(networks, optimizers)
    assert [(str(rule.match), rule.hyperparameters["lr"]) for rule in found.plan.rules] in (
        [("*", 4e-4), ("network(generator)", 1e-4)],
        [("*", 1e-4), ("network(critic)", 4e-4)],
    )
    assert "one, which steps all" in found.told[0]


def test_muon_for_matrices_is_a_rule_by_role() -> None:
    net = Net(2, tied=False, heads=1)
    matrices = [p for name, p in named(net).items() if "blocks" in name and p.ndim == 2]
    rest = [p for p in net.parameters() if all(p is not m for m in matrices)]
    plan = Plan.from_optimizer(
        net, [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=3e-4, weight_decay=0.0)]
    )
    assert plan == Plan([
        Rule("*", optimizer="AdamW", lr=3e-4, weight_decay=0.0),
        Rule(role("matrix"), optimizer="Muon", lr=0.02, weight_decay=0.1),
    ])  # fmt: skip


def test_what_no_optimizer_has_is_said_and_does_not_train() -> None:
    net = Net(2, tied=False, heads=1)
    found = adopt(net, torch.optim.SGD(net.head.parameters(), lr=0.1))
    assert found.plan.rules[1].trainable is not None
    assert "no optimizer has embed.weight" in found.text()
    optimizer = GroupedOptimizer(net, found.plan)
    assert [p.requires_grad for p in net.parameters()] == [name.startswith("head") for name in named(net)]
    assert len(optimizer.param_groups) == 2


def test_a_frozen_backbone_that_no_optimizer_has_needs_no_rule() -> None:
    net = Net(2, tied=False, heads=1).requires_grad_(False)
    net.head.requires_grad_(True)
    plan = Plan.from_optimizer(net, torch.optim.SGD(net.head.parameters(), lr=0.1))
    assert plan == Plan([Rule(role("head"), optimizer="SGD", lr=0.1)])


def test_a_lambda_stays_a_scheduler_and_the_rate_is_its_base() -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    found = adopt(net, optimizer, lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 10))
    assert found.plan == Plan([Rule("*", optimizer="SGD", lr=0.5)])
    assert "# - optimizer: LambdaLR: it calls a function of the program's own. Keep it" in found.text()
    with pytest.warns(GroupwiseWarning, match="not carried over: optimizer: LambdaLR"):
        Plan.from_optimizer(net, optimizer, lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine"])
def test_the_warmups_of_transformers_are_schedules(name: str, warmup: int) -> None:
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    scheduler = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=12)
    found = adopt(net, optimizer, scheduler)
    assert found.lost == ()
    ours = GroupedOptimizer(net, found.plan)
    ticking = PlanScheduler(ours)
    for _ in range(13):
        assert ours.param_groups[0]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-15)
        for each in (optimizer, ours, scheduler, ticking):
            each.step()


def test_steps_per_epoch_are_epochs_where_the_program_says_so() -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    scheduler = lr_scheduler.StepLR(optimizer, 30)
    plan = Plan.from_optimizer(net, optimizer, scheduler, schedulers_step="epoch")
    assert plan == Plan([Rule("*", optimizer="SGD", lr=step_decay(0.5, 0.1, every="30 epochs"))])
    smooth = lr_scheduler.CosineAnnealingLR(torch.optim.SGD(net.parameters(), lr=0.5), 30)
    assert "holds still within an epoch" in adopt(net, smooth.optimizer, smooth, schedulers_step="epoch").told[0]


def test_steps_that_were_taken_are_said() -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.5)
    scheduler = lr_scheduler.StepLR(optimizer, 3)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    found = adopt(net, optimizer, scheduler)
    assert "optimizer has taken steps: its state (exp_avg, exp_avg_sq, step) of 2 parameters" in found.lost[0]
    assert found.lost[1] == "StepLR stands at step 1; PlanScheduler begins at 0"


def test_keys_of_a_group_that_are_no_arguments_are_kept_for_who_reads_them() -> None:
    net = nn.Linear(2, 2)
    found = adopt(net, torch.optim.SGD([{"params": net.parameters(), "lr_scale": 0.5}], lr=0.1))
    assert found.plan == Plan([Rule("*", optimizer="SGD", lr=0.1, extra={"lr_scale": 0.5})])
    assert "SGD reads no 'lr_scale'" in found.told[0]


def test_a_tensor_of_a_rate_is_a_number() -> None:
    net = nn.Linear(2, 2)
    found = adopt(net, torch.optim.Adam(net.parameters(), lr=torch.tensor(0.5)))
    assert found.plan == Plan([Rule("*", optimizer="Adam", lr=0.5)])
    assert found.told == ("optimizer: lr is a tensor in the program and a number in the plan",)


def test_a_plan_is_its_own_adoption() -> None:
    net = nn.Linear(2, 2)
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1)])
    assert Plan.from_optimizer(net, GroupedOptimizer(net, plan)) == plan


class Wrapper(torch.optim.Optimizer):
    """Goes around another one, over the same groups, as Lookahead does."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        super().__init__([{"params": [p for g in inner.param_groups for p in g["params"]]}], {})
        self.param_groups = inner.param_groups
        for group in self.param_groups:
            group["counter"] = 0

    def step(self, closure: Any = None) -> Any:
        """The inner one's."""
        return self.inner.step(closure)


def test_what_goes_around_an_optimizer_is_looked_through() -> None:
    net = nn.Linear(2, 2)
    found = adopt(net, Wrapper(torch.optim.SGD(net.parameters(), lr=0.1)))
    assert found.plan == Plan([Rule("*", optimizer="SGD", lr=0.1)])
    assert found.lost == ("Wrapper goes around SGD: put it around the GroupedOptimizer, if it takes one",)


def test_a_class_inside_a_function_is_fit_for_python_and_not_for_a_file() -> None:
    class Own(torch.optim.SGD):
        """Somebody's."""

    net = nn.Linear(2, 2)
    found = adopt(net, Own(net.parameters(), lr=0.1))
    GroupedOptimizer(net, found.plan)
    with pytest.raises(PlanError, match=r"no file can name the class .*Own, which no import finds"):
        found.text()


Make = Any
BAD: dict[str, tuple[Make, type[GroupwiseError], str]] = {
    "LBFGS": (lambda net: torch.optim.LBFGS(net.parameters()), OptimizerError, "LBFGS evaluates the loss itself"),
    "a tensor of no module": (
        lambda net: torch.optim.SGD([*net.parameters(), nn.Parameter(torch.ones(3))], lr=0.1),
        ResolutionError,
        r'group 0 has a tensor of shape \(3,\) that is no parameter of the model; give a mapping .*"temperature"',
    ),
    "two owners": (
        lambda net: [torch.optim.SGD(net.parameters(), lr=0.1), torch.optim.Adam([net.bias], lr=0.1)],
        ResolutionError,
        "'bias' is in two groups",
    ),
    "no optimizer": (lambda net: "adam", AuditError, "is no optimizer"),
}


@pytest.mark.parametrize(("make", "error", "match"), BAD.values(), ids=BAD)
def test_what_no_plan_can_say_is_refused(make: Make, error: type[GroupwiseError], match: str) -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(error, match=match):
        adopt(net, make(net))


def test_a_unit_that_is_none_is_refused() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(PlanError, match='is "update" or "epoch", not \'batch\''):
        Plan.from_optimizer(net, torch.optim.SGD(net.parameters(), lr=0.1), schedulers_step="batch")


def test_nothing_of_the_program_is_changed() -> None:
    net = Net(2, tied=True, heads=2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 20)
    before = optimizer.state_dict(), scheduler.state_dict(), {n: p.clone() for n, p in named(net).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adopt(net, optimizer, scheduler)
    assert (optimizer.state_dict(), scheduler.state_dict()) == before[:2]
    assert all(torch.equal(p, before[2][name]) for name, p in named(net).items())


@pytest.mark.parametrize(
    "make", [lambda o: lr_scheduler.ExponentialLR(o, 1.2), lambda o: lr_scheduler.StepLR(o, 1, 2.0)]
)
def test_a_rate_that_grows_without_end_as_in_a_range_test_is_carried_over(make: Any) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)
    scheduler = make(optimizer)
    found = adopt(model, optimizer, scheduler)
    ours = PlanScheduler(grouped := GroupedOptimizer(model, found.plan))
    for _ in range(30):
        assert grouped.param_groups[0]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        for each in (grouped, ours, optimizer, scheduler):
            each.step()


L = lr_scheduler
MISREAD: dict[str, Any] = {
    "cosine to a floor × warmup": lambda o: [L.LinearLR(o, 0.1, 1.0, 3), L.CosineAnnealingLR(o, 8, eta_min=0.01)],
    "chained to a floor": lambda o: L.ChainedScheduler(
        [L.CosineAnnealingLR(o, 8, eta_min=0.05), L.ExponentialLR(o, 0.7)]
    ),
    "chained restarts": lambda o: L.ChainedScheduler([L.CosineAnnealingWarmRestarts(o, 4), L.ExponentialLR(o, 0.9)]),
    "chained one cycle": lambda o: L.ChainedScheduler([L.ExponentialLR(o, 0.9), L.OneCycleLR(o, 0.1, total_steps=14)]),
    "cycles in a sequence": lambda o: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, 1.0, 3), L.CyclicLR(o, 0.01, 0.1, step_size_up=3, cycle_momentum=False)], [3]
    ),
    "momentum in a sequence": lambda o: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, 1.0, 3), L.OneCycleLR(o, 0.2, total_steps=8)], [3]
    ),
    "a constant of no steps": lambda o: L.ConstantLR(o, 0.25, 0),
}


@pytest.mark.parametrize("make", MISREAD.values(), ids=MISREAD)
def test_a_schedule_that_is_not_what_the_schedulers_do_is_not_handed_out(make: Any) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedulers = make(optimizer)
    before = [dict(group) for group in optimizer.param_groups]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = adopt(model, optimizer, schedulers)
    (lost,) = found.lost
    assert "where what was read" in lost or "and what was read of it" in lost
    assert "Keep it, over the GroupedOptimizer" in lost
    assert [dict(group) for group in optimizer.param_groups] == before


def test_a_rate_that_was_written_and_a_group_that_came_after_the_scheduler_are_told() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
    scheduler = L.StepLR(optimizer, 2, 0.5)
    optimizer.param_groups[0]["lr"] = 0.03
    assert "brings lr to 0.03 at step 0" in adopt(first, optimizer, scheduler).lost[0]

    optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
    scheduler = L.LinearLR(optimizer, 0.1, 1.0, 4)
    optimizer.add_param_group({"params": second.parameters(), "lr": 0.1})
    assert "brings lr to" in adopt(nn.ModuleList([first, second]), optimizer, scheduler).lost[0]


def test_state_that_steps_have_not_made_is_not_lost_and_what_names_are_needed_for_is_said() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert adopt(model, torch.optim.Adagrad(model.parameters())).lost == ()
    for named, way_out in ((False, "starts afresh"), (True, "which GroupedOptimizer.load_state_dict reads")):
        groups = [part.named_parameters(str(i)) if named else part.parameters() for i, part in enumerate(model)]
        optimizer = torch.optim.Adam([{"params": own, "lr": 0.1 * (i + 1)} for i, own in enumerate(groups)])
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        found = adopt(model, optimizer)
        assert way_out in found.lost[0]
        if named:
            GroupedOptimizer(model, found.plan).load_state_dict(optimizer.state_dict())


def test_hooks_of_a_step_are_told() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: None)
    assert "has hooks of its step" in adopt(model, optimizer).lost[0]


def test_a_file_holds_the_plan_of_groups_of_which_one_sets_what_is_none_elsewhere() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(4, 2), "rest": nn.Linear(2, 2)})
    groups = [{"params": model["embed"].parameters(), "fused": True}, {"params": model["rest"].parameters()}]
    found = adopt(model, torch.optim.AdamW(groups, lr=0.1))
    assert Plan.loads(found.text(), allow=found.allow) == found.plan


class OwnName(torch.optim.SGD):
    """Its first argument has a name of its own."""

    def __init__(self, tensors: Any, lr: float = 0.1) -> None:
        super().__init__(tensors, lr=lr)


def test_the_first_argument_of_a_class_is_the_parameters_whatever_its_name() -> None:
    model = nn.Linear(2, 2)
    found = adopt(model, OwnName(model.parameters(), lr=0.2))
    optimizer = GroupedOptimizer(model, found.plan)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2]


SINGLE: dict[str, Any] = {
    "step": lambda o: L.StepLR(o, 4, 0.5),
    "steps": lambda o: L.MultiStepLR(o, [3, 9], 0.3),
    "exponential": lambda o: L.ExponentialLR(o, 0.9),
    "linear": lambda o: L.LinearLR(o, 0.2, 1.0, 5),
    "constant": lambda o: L.ConstantLR(o, 0.25, 6),
    "polynomial": lambda o: L.PolynomialLR(o, 25, 2.0),
    "cosine": lambda o: L.CosineAnnealingLR(o, 40),
    "cosine to a floor": lambda o: L.CosineAnnealingLR(o, 40, eta_min=0.01),
    "restarts": lambda o: L.CosineAnnealingWarmRestarts(o, 6),
    "one cycle": lambda o: L.OneCycleLR(o, 0.3, total_steps=50),
    "cyclic": lambda o: L.CyclicLR(o, 0.02, 0.2, step_size_up=4),
}
TOGETHER: dict[str, Any] = {
    "beside": lambda o, made: [each(o) for each in made],
    "chained": lambda o, made: [L.ChainedScheduler([each(o) for each in made])],
    "in turn": lambda o, made: [L.SequentialLR(o, [each(o) for each in made], [7])],
}


@pytest.mark.parametrize("together", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("second", SINGLE.values(), ids=SINGLE)
@pytest.mark.parametrize("first", SINGLE.values(), ids=SINGLE)
def test_whatever_schedulers_are_put_together_the_plan_is_what_they_do_or_says_that_it_is_not(
    first: Any, second: Any, together: Any
) -> None:
    model, twin = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedulers = together(optimizer, (first, second))
    found = adopt(model, optimizer, schedulers)
    if found.lost:
        return
    ours = PlanScheduler(grouped := GroupedOptimizer(twin, found.plan))
    for _ in range(35):
        for key in ("lr", "momentum"):
            expected = optimizer.param_groups[0][key]
            assert grouped.param_groups[0][key] == pytest.approx(expected, rel=1e-6, abs=1e-7), key
        for each in (optimizer, *schedulers, grouped, ours):
            each.step()
