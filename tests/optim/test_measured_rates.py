"""Rates that follow measurements: closed forms in float64, published implementations, and whatever drives a step."""

import copy
import io
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import pytorch_optimizer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import (
    GroupedOptimizer,
    Parts,
    Plan,
    PlanScheduler,
    Rule,
    after,
    clip_norm,
    exact,
    gradient_share,
    scale,
    trust_ratio,
    update_ratio,
)
from groupwise.errors import OptimizerError, ResolutionError
from groupwise.optim import resolve
from groupwise.optim.measured_checks import follows_gradient, follows_rate
from groupwise.schedules import cosine, linear

CLOSE = 1e-11


class Net(nn.Module):
    """Two layers and a scale, of gradients that differ by orders of magnitude."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2, bias=False)
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.stem(x))) * self.temperature
        return out


class Matrices(nn.Sequential):
    """Two matrices and nothing else."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        super().__init__(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 2, bias=False))
        self.double()


def batch(i: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(i), dtype=torch.float64).to(dtype)


def backward(net: nn.Module, i: int) -> None:
    net.zero_grad()
    net(batch(i, next(net.parameters()).dtype)).square().mean().backward()


def run(optimizer: Any, net: nn.Module, steps: int, *after_each: Callable[[], object]) -> None:
    for i in range(steps):
        backward(net, i)
        optimizer.step()
        for call in after_each:
            call()


def apart(a: nn.Module, b: nn.Module) -> float:
    return max(
        float((p - q).detach().abs().max() / q.detach().abs().max().clamp(min=1e-30))
        for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# LAMB and LARS, where they are defined


@settings(max_examples=15)
@given(st.sampled_from([0.0, 0.01, 0.3]), st.floats(1e-4, 0.1), st.integers(1, 6), st.booleans())
def test_adamw_under_the_trust_ratio_is_the_published_lamb(
    timm: ModuleType, decay: float, lr: float, steps: int, clipped: bool
) -> None:
    from timm.optim.lamb import Lamb

    ours, theirs = Net(), Net()
    factor = trust_ratio(high=1.0) if clipped else trust_ratio()
    plan = Plan([Rule("*", optimizer="AdamW", lr=lr, weight_decay=decay, eps=1e-6), Rule("*", lr=scale(factor))])
    lamb = Lamb(theirs.parameters(), lr=lr, weight_decay=decay, eps=1e-6, max_grad_norm=None, trust_clip=clipped,
                always_adapt=True)  # fmt: skip
    run(GroupedOptimizer(ours, plan), ours, steps)
    run(lamb, theirs, steps)
    assert apart(ours, theirs) < 1e-9


@settings(max_examples=15)
@given(st.sampled_from([0.0, 0.01, 0.3]), st.sampled_from([0.0, 0.9]), st.booleans(), st.integers(1, 6))
def test_sgd_under_the_trust_ratio_of_the_gradient_is_the_published_lars(
    timm: ModuleType, decay: float, momentum: float, nesterov: bool, steps: int
) -> None:
    from timm.optim.lars import Lars

    nesterov = nesterov and momentum > 0
    ours, theirs = Net(), Net()
    own = {"lr": 2.0, "weight_decay": decay, "momentum": momentum, "nesterov": nesterov}
    plan = Plan([Rule("*", optimizer="SGD", **own), Rule("*", lr=trust_ratio(0.01, of="gradient"))])
    lars = Lars(theirs.parameters(), **own, trust_coeff=0.01, eps=0.0, always_adapt=True)
    run(GroupedOptimizer(ours, plan), ours, steps)
    run(lars, theirs, steps)
    assert apart(ours, theirs) < CLOSE
    ours, theirs = Matrices(), Matrices()  # that one leaves vectors alone
    run(GroupedOptimizer(ours, plan), ours, steps)
    run(pytorch_optimizer.LARS(theirs.parameters(), **own, trust_coefficient=0.01), theirs, steps)
    assert apart(ours, theirs) < CLOSE


def closed_form_lamb(net: nn.Module, steps: int, rate: Callable[[int], float], decay: float) -> None:
    """You et al. 2020, algorithm 2, with φ the identity, written out."""
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in net.parameters()]
    for t in range(1, steps + 1):
        backward(net, t - 1)
        with torch.no_grad():
            for p, (m, v) in zip(net.parameters(), moments, strict=True):
                m.mul_(0.9).add_(0.1 * p.grad)
                v.mul_(0.999).add_(0.001 * p.grad**2)
                r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
                u = r + decay * p
                p.sub_(rate(t - 1) * (p.norm() / u.norm()) * u)


def test_a_schedule_of_the_plan_multiplies_the_ratio() -> None:
    ours, theirs = Net(), Net()
    rate = cosine(0.01, warmup="3 steps")
    plan = Plan([Rule("*", optimizer="AdamW", lr=rate, weight_decay=0.1), Rule("*", lr=trust_ratio())])
    optimizer = GroupedOptimizer(ours, plan)
    scheduler = PlanScheduler(optimizer, total_steps=9)
    run(optimizer, ours, 9, scheduler.step)
    closed_form_lamb(theirs, 9, lambda t: rate.at(t, 9), 0.1)
    assert apart(ours, theirs) < CLOSE


def test_a_torch_scheduler_multiplies_the_ratio_and_sees_the_rate_without_it() -> None:
    ours, theirs = Net(), Net()
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.02, weight_decay=0.1), Rule("*", lr=trust_ratio())])
    optimizer = GroupedOptimizer(ours, plan)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    run(optimizer, ours, 6, scheduler.step)
    closed_form_lamb(theirs, 6, lambda t: 0.02 * 0.5 ** (t // 2), 0.1)
    assert apart(ours, theirs) < CLOSE
    assert scheduler.get_last_lr() == [0.02 * 0.5**3]


ENGINES = ["SGD", "AdamW", "Adam", "RMSprop", "NAdam", "Adamax", "Adadelta", "pytorch_optimizer:Lion"]


@pytest.mark.parametrize("engine", ENGINES)
def test_under_any_class_a_tensor_moves_by_the_rate_times_its_norm(engine: str) -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer=engine, lr=0.03), Rule("*", lr=trust_ratio(0.5))]))
    for i in range(4):
        before = [p.detach().clone() for p in net.parameters()]
        backward(net, i)
        optimizer.step()
        for p, q in zip(net.parameters(), before, strict=True):
            assert float((p - q).detach().norm() / q.norm()) == pytest.approx(0.03 * 0.5, rel=1e-9)


def test_muon_moves_every_matrix_by_the_rate_times_its_norm() -> None:
    net = Net()
    rules = [Rule("*", optimizer="AdamW", lr=1e-3), Rule("*.weight", optimizer="Muon", lr=0.03)]
    optimizer = GroupedOptimizer(net, Plan([*rules, Rule("*.weight", lr=trust_ratio())]))
    before = net.stem.weight.detach().clone()
    run(optimizer, net, 1)
    assert float((net.stem.weight - before).detach().norm() / before.norm()) == pytest.approx(0.03, rel=1e-9)


def test_per_group_the_norms_are_of_all_its_tensors() -> None:
    net = Net()
    factor = trust_ratio(0.5, per="group")
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="AdamW", lr=0.03), Rule("*", lr=factor)]))
    plain, own = Net(), torch.optim.AdamW
    reference = own(plain.parameters(), lr=0.03)
    before = torch.cat([p.detach().flatten() for p in net.parameters()])
    run(optimizer, net, 1)
    run(reference, plain, 1)
    now, there = (torch.cat([p.detach().flatten() for p in each.parameters()]) for each in (net, plain))
    u = (before - there) / 0.03
    assert torch.allclose(now, before - 0.03 * 0.5 * before.norm() / u.norm() * u, rtol=1e-12)


def test_where_a_norm_is_zero_the_step_is_the_classs_own_bit_for_bit() -> None:
    ours, theirs = Net(), Net()
    for net in (ours, theirs):
        nn.init.zeros_(net.stem.bias)
        nn.init.zeros_(net.head.weight)
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.03, weight_decay=0.0), Rule("*", lr=trust_ratio())])
    run(GroupedOptimizer(ours, plan), ours, 1)
    run(torch.optim.AdamW(theirs.parameters(), lr=0.03, weight_decay=0.0), theirs, 1)
    assert torch.equal(ours.head.weight, theirs.head.weight)
    assert torch.equal(ours.stem.bias, theirs.stem.bias)  # its gradient is zero as well
    assert not torch.equal(ours.temperature, theirs.temperature) or theirs.temperature.grad.norm() == 0


@given(st.floats(0.0, 0.5), st.floats(0.6, 3.0))
def test_the_ratio_stays_within_its_bounds(low: float, high: float) -> None:
    net, plain = Net(), Net()
    factor = trust_ratio(low=low, high=high)
    run(GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=factor)])), net, 1)
    before = [p.detach().clone() for p in plain.parameters()]
    run(torch.optim.SGD(plain.parameters(), lr=0.1), plain, 1)
    for q, p, there in zip(before, net.parameters(), plain.parameters(), strict=True):
        ratio = min(max(float(q.norm() / ((q - there.detach()) / 0.1).norm()), low), high)
        assert torch.allclose(p, q + ratio * (there - q), rtol=1e-10, atol=1e-14)


def test_parts_of_a_parameter_equal_separate_parameters() -> None:
    class Joint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.qkv = nn.Linear(4, 12, bias=False, dtype=torch.float64)

    class Apart(nn.Module):
        def __init__(self, whole: torch.Tensor) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Parameter(part.clone()) for part in whole.detach().chunk(3))

    joint = Joint()
    other = Apart(joint.qkv.weight)
    base = Rule("*", optimizer="AdamW", lr=0.03, weight_decay=0.1)
    parts = [Parts("qkv.weight", axis=0, into=["q", "k", "v"])]
    one = GroupedOptimizer(joint, Plan([base, Rule("*@q", lr=scale(0.5)), Rule("*", lr=trust_ratio())], parts=parts))
    two = GroupedOptimizer(other, Plan([base, Rule("q", lr=scale(0.5)), Rule("*", lr=trust_ratio())]))
    for i in range(3):
        gradient = torch.randn(12, 4, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        joint.qkv.weight.grad = gradient.clone()
        for p, own in zip((other.q, other.k, other.v), gradient.chunk(3), strict=True):
            p.grad = own.clone()
        one.step()
        two.step()
        assert torch.allclose(joint.qkv.weight, torch.cat([other.q, other.k, other.v]), rtol=1e-14)


# update_ratio


def closed_form_controller(net: nn.Module, steps: int, rate: Callable[[int], float], peak: float) -> list[float]:
    """SGD whose factor is log f + speed (log target - log of |update| / |weights| at the peak), within bounds."""
    log, factors = 0.0, list[float]()
    for t in range(steps):
        backward(net, t)
        with torch.no_grad():
            weights = math.sqrt(sum(float(p.square().sum()) for p in net.parameters()))
            gradient = math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters()))
            factors.append(math.exp(log))
            for p in net.parameters():
                p.sub_(rate(t) * factors[-1] * p.grad)
            if rate(t) > 0:
                ratio = factors[-1] * peak * gradient / weights
                log = min(max(log + 0.2 * (math.log(3e-3) - math.log(ratio)), math.log(0.2)), math.log(5))
    return factors


@pytest.mark.parametrize("rate", [0.1, cosine(0.1, warmup="4 steps"), linear(0.1, 0.0)], ids=str)
def test_the_controller_is_its_formula_and_undoes_no_schedule(rate: Any) -> None:
    ours, theirs = Net(), Net()
    factor = update_ratio(3e-3, speed=0.2, low=0.2, high=5)
    optimizer = GroupedOptimizer(ours, Plan([Rule("*", optimizer="SGD", lr=rate), Rule("*", lr=factor)]))
    scheduler = PlanScheduler(optimizer, total_steps=12) if rate != 0.1 else None
    found = []
    for i in range(12):
        backward(ours, i)
        optimizer.step()
        found.append(float(optimizer.param_groups[0]["rate_factor"]))
        if scheduler is not None:
            scheduler.step()
    at = (lambda t: rate.at(t, 12)) if scheduler is not None else lambda t: rate
    assert found == pytest.approx(closed_form_controller(theirs, 12, at, 0.1), rel=1e-5)
    assert apart(ours, theirs) < 1e-5  # its factor is float32


@given(st.floats(1e-4, 1e-1), st.floats(0.05, 0.5))
def test_a_group_of_constant_updates_comes_to_the_target(target: float, speed: float) -> None:
    weight = nn.Parameter(torch.ones(5, dtype=torch.float64))
    factor = update_ratio(target, speed=speed, low=1e-3, high=1e3)
    optimizer = GroupedOptimizer({"w": weight}, Plan([Rule("*", optimizer="SGD", lr=1e-2), Rule("*", lr=factor)]))
    ratio = 0.0
    for _ in range(int(12 / speed)):
        before = weight.detach().clone()
        weight.grad = before / before.norm() * weight.norm().detach()
        optimizer.step()
        ratio = float((weight - before).detach().norm() / before.norm())
    assert ratio == pytest.approx(target, rel=1e-3)


def test_the_controller_of_a_group_that_does_not_move_stands_still() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = GroupedOptimizer(
        {"w": weight}, Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=update_ratio())])
    )
    for gradient in (torch.zeros(3), torch.full((3,), math.inf), torch.full((3,), math.nan)):
        weight.data.fill_(1.0)
        weight.grad = gradient
        optimizer.step()
        assert float(optimizer.state[weight]["update_ratio_log"]) == 0.0


@pytest.mark.parametrize("target", [1e-1, 1e-9])
def test_the_controller_does_not_fall_back_where_a_gradient_comes_now_and_then(target: float) -> None:
    weights = nn.ParameterDict({name: torch.ones(4, dtype=torch.float64) for name in ("always", "seldom")})
    factor = update_ratio(target, speed=0.1, low=1e-9, high=1e9)
    optimizer = GroupedOptimizer(weights, Plan([Rule("*", optimizer="SGD", lr=1e-6), Rule("*", lr=factor)]))
    found = []
    for i in range(20):
        weights["always"].grad = torch.ones(4, dtype=torch.float64) if i != 12 else None
        weights["seldom"].grad = torch.ones(4, dtype=torch.float64) if i % 6 == 0 else None
        optimizer.step()
        found.append(float(optimizer.param_groups[0]["rate_factor"]))
    assert found == sorted({*found}, reverse=target == 1e-9)
    assert torch.equal(*(optimizer.state[p]["update_ratio_log"] for p in weights.values()))


# gradient_share


def networks(dtype: torch.dtype = torch.float64) -> nn.ModuleDict:
    """An audio and a visual network, of which one has a thousand times the gradient."""
    torch.manual_seed(0)
    return nn.ModuleDict({"audio": nn.Linear(4, 3), "visual": nn.Linear(4, 3)}).to(dtype)


def give(nets: nn.ModuleDict, i: int, big: float = 1000.0) -> None:
    generator = torch.Generator().manual_seed(i)
    for name, net in nets.items():
        for p in net.parameters():
            own = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
            p.grad = own * (big if name == "visual" else 1.0)


def two_networks(nets: nn.ModuleDict, *rules: Rule, engine: str = "SGD") -> GroupedOptimizer:
    return GroupedOptimizer(dict(nets.items()), Plan([Rule("*", optimizer=engine, lr=1e-3), *rules]))


@given(st.sampled_from([-1.0, -0.5, 0.5, 1.0]), st.floats(0.0, 0.95), st.integers(1, 6), st.floats(1.5, 100))
def test_shares_are_their_formula(power: float, smoothing: float, steps: int, high: float) -> None:
    nets = networks()
    factor = gradient_share(power, per="network", smoothing=smoothing, low=1 / high, high=high)
    optimizer = two_networks(nets, Rule("*", lr=factor))
    averages: dict[str, float] = {}
    for i in range(steps):
        give(nets, i)
        squares = {name: sum(float(p.grad.square().sum()) for p in net.parameters()) for name, net in nets.items()}
        averages = {n: smoothing * averages.get(n, x) + (1 - smoothing) * x for n, x in squares.items()}
        before = copy.deepcopy(nets)
        optimizer.step()
    mean = math.exp(sum(0.5 * math.log(x) for x in averages.values()) / 2)
    for name, net in nets.items():
        wanted = min(max((math.sqrt(averages[name]) / mean) ** power, 1 / high), high)
        update = (before[name].weight - net.weight).detach()
        assert torch.allclose(update, 1e-3 * wanted * net.weight.grad, rtol=1e-4)


@pytest.mark.parametrize("strange", [0.0, math.nan, math.inf])
def test_a_gradient_that_is_zero_at_the_start_or_not_finite_is_in_no_average(strange: float) -> None:
    nets = networks(torch.float32)
    factor = gradient_share(1.0, per="network", low=1e-3, high=1e3)
    optimizer = two_networks(nets, Rule("*", lr=factor), engine="Adam")
    for i in range(3):
        give(nets, 0)
        for p in nets.audio.parameters() if i == 0 else ():
            p.grad.mul_(strange)
        held = copy.deepcopy(nets.audio.state_dict())
        optimizer.step()
        if i == 0:
            nets.audio.load_state_dict(held)
    found = {group["network"]: float(group["rate_factor"]) for group in optimizer.param_groups}
    give(nets, 0)
    norms = {n: math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters())) for n, net in nets.items()}
    assert found["visual"] == pytest.approx((norms["visual"] / norms["audio"]) ** 0.5, rel=1e-5)
    assert found["audio"] == pytest.approx(1 / found["visual"], rel=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e-25, 1e20, 1e25])
@pytest.mark.parametrize("per", ["network", "parameter"])
def test_shares_do_not_depend_on_the_size_of_all_gradients(size: float, per: str) -> None:
    """In float32 the squares of such gradients are 0 or infinite."""
    found = []
    for by in (1.0, size):
        nets = networks(torch.float32)
        factor = gradient_share(1.0, per=per, smoothing=0.5, low=1e-3, high=1e3)
        optimizer = two_networks(nets, Rule("*", lr=factor), engine="Adam")
        for i in range(3):
            give(nets, i, 10.0)
            for p in nets.parameters():
                p.grad.mul_(by)
            optimizer.step()
        found.append([float(group["rate_factor"]) for group in optimizer.param_groups])
        state = optimizer.state_dict()["state"]
        again = two_networks(networks(torch.float32), Rule("*", lr=factor), engine="Adam")
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for name, own in again.state_dict()["state"].items():
            assert torch.equal(own["gradient_norm"], state[name]["gradient_norm"])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[0][0] != pytest.approx(found[0][1], rel=0.1)


def test_two_networks_in_one_optimizer_come_to_move_alike() -> None:
    nets = networks()
    optimizer = two_networks(nets, Rule("*", lr=gradient_share(per="network", low=1e-3, high=1e3)))
    give(nets, 0)
    before = copy.deepcopy(nets)
    optimizer.step()
    pairs = {n: zip(nets[n].parameters(), before[n].parameters(), strict=True) for n in nets}
    audio, visual = (math.sqrt(sum(float((p - q).detach().square().sum()) for p, q in own)) for own in pairs.values())
    assert visual == pytest.approx(audio, rel=1e-5)


def test_layers_are_compared_within_one_group() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=gradient_share(1.0))]))
    assert len(optimizer.param_groups) == 1
    backward(net, 0)
    norms = {
        "stem": math.hypot(float(net.stem.weight.grad.norm()), float(net.stem.bias.grad.norm())),
        "head": float(net.head.weight.grad.norm()),
        "": float(net.temperature.grad.norm()),
    }
    mean = math.exp(sum(math.log(norm) for norm in norms.values()) / 3)
    before = net.stem.bias.detach().clone()
    optimizer.step()
    wanted = min(max(norms["stem"] / mean, 0.1), 10)
    assert torch.allclose(net.stem.bias, before - 0.1 * wanted * net.stem.bias.grad, rtol=1e-5)


def test_networks_that_alternate_are_compared_as_of_their_own_last_steps() -> None:
    nets = networks()
    optimizer = two_networks(nets, Rule("*", lr=gradient_share(per="network", low=1e-3, high=1e3)))
    give(nets, 0)
    for name in nets:
        optimizer.only(name).step()
    found = {group["network"]: float(group["rate_factor"]) for group in optimizer.param_groups}
    assert found["audio"] == 1.0  # the first to step has nothing to be compared with
    assert found["visual"] == pytest.approx(1000**-0.5, rel=0.5)
    optimizer.only("audio").step()
    assert float(optimizer.param_groups[0]["rate_factor"]) == pytest.approx(1 / found["visual"], rel=1e-4)


# what drives a step


FACTORS = {
    "trust_ratio": trust_ratio(0.5),
    "of the gradient": trust_ratio(0.5, of="gradient"),
    "update_ratio": update_ratio(1e-2, speed=0.3),
    "gradient_share": gradient_share(smoothing=0.5),
    "all": trust_ratio(0.5) * update_ratio(1e-2, speed=0.3) * gradient_share(smoothing=0.5),
}
factors = pytest.mark.parametrize("name", FACTORS)


def built(net: nn.Module, name: str, *rules: Rule, **options: Any) -> GroupedOptimizer:
    base = Rule("*", optimizer="SGD", lr=0.05, momentum=0.9, weight_decay=0.01)
    return GroupedOptimizer(net, Plan([base, Rule("*", lr=FACTORS[name]), *rules], **options))


def state_of(optimizer: GroupedOptimizer) -> list[dict[str, Any]]:
    return [copy.deepcopy(dict(optimizer.state[p])) for group in optimizer.param_groups for p in group["params"]]


def equal_states(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> bool:
    return all(
        own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)
        for own, other in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@factors
def test_a_run_resumes_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    whole, parted = Net(dtype), Net(dtype)
    run(built(whole, name), whole, 7)
    first = built(parted, name)
    run(first, parted, 4)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = built(parted, name)
    second.load_state_dict(torch.load(file, weights_only=True))
    for i in range(4, 7):
        backward(parted, i)
        second.step()
    assert same(whole, parted)


@factors
def test_regrouping_into_other_groups_keeps_what_was_measured(name: str) -> None:
    net = Net()
    optimizer = built(net, name)
    run(optimizer, net, 3)
    before = {n: dict(optimizer.state[p]) for n, p in net.named_parameters()}
    optimizer.regroup(optimizer.plan + [Rule("head", weight_decay=0.02)])
    assert len(optimizer.param_groups) == 2
    for n, p in net.named_parameters():
        assert optimizer.state[p].keys() == before[n].keys()
        assert all(torch.equal(optimizer.state[p][key], value) for key, value in before[n].items())
    run(optimizer, net, 1)


def test_groups_that_come_together_go_on_at_the_lowest_factor() -> None:
    net = Net()
    optimizer = built(net, "update_ratio", Rule("head", weight_decay=0.02))
    run(optimizer, net, 5)
    logs = [float(optimizer.state[group["params"][0]]["update_ratio_log"]) for group in optimizer.param_groups]
    assert logs[0] != logs[1]
    optimizer.regroup(Plan(optimizer.plan.rules[:2]))
    backward(net, 5)
    optimizer.step()
    assert float(optimizer.param_groups[0]["rate_factor"]) == pytest.approx(math.exp(min(logs)), rel=1e-6)


@factors
def test_a_step_that_is_left_out_measures_nothing(name: str) -> None:
    net = Net(torch.float32)
    optimizer = built(net, name, clip=clip_norm(1.0, nonfinite="skip_step"))
    run(optimizer, net, 2)
    before, weights = state_of(optimizer), [p.detach().clone() for p in net.parameters()]
    backward(net, 2)
    net.head.weight.grad[0, 0] = math.inf
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step()
    assert equal_states(before, state_of(optimizer))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), weights, strict=True))


@factors
def test_a_step_that_grad_scaler_skips_measures_nothing(name: str) -> None:
    net = Net(torch.float32)
    optimizer = built(net, name)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for i in range(3):
        net.zero_grad()
        loss = net(batch(i, torch.float32)).square().mean()
        scaler.scale(loss).backward()
        before = state_of(optimizer)
        if i == 2:
            net.head.weight.grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()
    assert equal_states(before, state_of(optimizer))


@factors
def test_a_scaled_loss_and_accumulated_gradients_are_the_plain_step(name: str) -> None:
    plain, scaled, parts = Net(), Net(), Net()
    run(built(plain, name), plain, 3)
    optimizer, scaler = built(scaled, name), torch.amp.GradScaler("cpu", init_scale=2.0**8)
    accumulating = built(parts, name)
    for i in range(3):
        scaled.zero_grad()
        scaler.scale(scaled(batch(i)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        parts.zero_grad()
        for half in batch(i).chunk(2):
            (parts(half).square().mean() / 2).backward()
        accumulating.step()
    assert apart(scaled, plain) < 1e-6
    assert apart(parts, plain) < 1e-6


@factors
def test_what_is_frozen_keeps_its_value_and_its_measurements(name: str) -> None:
    net = Net()
    optimizer = built(net, name, Rule("stem", trainable=after("3 steps")))
    scheduler = PlanScheduler(optimizer, total_steps=9)
    weight = net.stem.weight.detach().clone()
    run(optimizer, net, 2, scheduler.step)
    assert torch.equal(net.stem.weight, weight)
    assert not optimizer.state[net.stem.weight]
    run(optimizer, net, 4, scheduler.step)
    assert not torch.equal(net.stem.weight, weight)


@factors
def test_a_step_that_raises_leaves_gradients_decay_and_measurements(name: str) -> None:
    net = Net()
    optimizer = built(net, name)
    run(optimizer, net, 2)
    backward(net, 2)
    gradients, before = [p.grad for p in net.parameters()], state_of(optimizer)
    optimizer.state[net.head.weight]["momentum_buffer"] = torch.zeros(7, dtype=torch.float64)
    with pytest.raises(OptimizerError, match="shape"):
        optimizer.step()
    assert all(p.grad is own for p, own in zip(net.parameters(), gradients, strict=True))
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
    for own, held in zip(state_of(optimizer), before, strict=True):
        assert all(torch.equal(own[key], held[key]) for key in held if key != "momentum_buffer")


@factors
def test_a_copy_goes_on_as_the_original(name: str) -> None:
    net = Net()
    optimizer = built(net, name)
    run(optimizer, net, 2)
    twin, twin_net = copy.deepcopy((optimizer, net))
    for each, own in ((optimizer, net), (twin, twin_net)):
        run(each, own, 2)
    assert same(net, twin_net)


def test_parameters_without_a_measured_factor_are_stepped_as_ever() -> None:
    ours, theirs = Net(), Net()
    rules = [Rule("*", optimizer="AdamW", lr=0.02)]
    run(GroupedOptimizer(ours, Plan([*rules, Rule("head", lr=trust_ratio())])), ours, 3)
    run(GroupedOptimizer(theirs, Plan(rules)), theirs, 1)
    other = Net()
    run(GroupedOptimizer(other, Plan([*rules, Rule("head", lr=trust_ratio())])), other, 1)
    assert torch.equal(other.stem.weight, theirs.stem.weight)
    assert torch.equal(other.temperature, theirs.temperature)
    assert not torch.equal(other.head.weight, theirs.head.weight)


def test_a_rate_in_a_tensor_is_filled_by_schedulers_and_multiplied() -> None:
    ours, theirs = Net(), Net()
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.02, weight_decay=0.1), Rule("*", lr=trust_ratio())])
    optimizer = GroupedOptimizer(ours, plan)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.02, dtype=torch.float64)
    run(optimizer, ours, 3)
    closed_form_lamb(theirs, 3, lambda t: 0.02, 0.1)
    assert apart(ours, theirs) < CLOSE


def test_nothing_of_a_step_is_kept_alive() -> None:
    import gc
    import weakref

    net = Net()
    optimizer = built(net, "all")
    run(optimizer, net, 2)
    references = [weakref.ref(p.grad) for p in net.parameters()]
    net.zero_grad()
    gc.collect()
    assert all(reference() is None for reference in references)


# the cascade


def test_exact_escapes_and_the_last_word_keeps_the_factor() -> None:
    base = Rule("*", optimizer="SGD", lr=0.1)
    net, factor = Net(), Rule("*", lr=trust_ratio(0.5))
    found = {
        info.name: str(group.settings["lr"])
        for group in resolve(net, Plan([base, factor, Rule("head", lr=0.2), Rule("stem", lr=exact(0.3))])).groups
        for info in group.parameters
    }
    assert found == {
        "temperature": "0.1 × trust_ratio(0.5)",
        "head.weight": "0.2 × trust_ratio(0.5)",
        "stem.weight": "0.3",
        "stem.bias": "0.3",
    }


def test_a_rate_follows_one_factor_of_a_kind() -> None:
    with pytest.raises(ResolutionError, match=r"trust_ratio\(1\) and trust_ratio\(0.5\) would both multiply one rate"):
        resolve(Net(), Plan([Rule("*", optimizer="SGD", lr=trust_ratio()), Rule("head", lr=trust_ratio(0.5))]))


def test_only_a_learning_rate_is_multiplied() -> None:
    base = Rule("*", optimizer="AdamW", lr=0.1)
    with pytest.raises(ResolutionError, match="multiplies a learning rate, and weight_decay is none"):
        resolve(Net(), Plan([base, Rule("*", weight_decay=trust_ratio())]))


@pytest.mark.parametrize(
    "engine", ["Rprop", "ASGD", "pytorch_optimizer:ScheduleFreeAdamW", "pytorch_optimizer:Prodigy"]
)
def test_a_class_whose_update_is_not_proportional_to_its_rate_is_refused(engine: str) -> None:
    with pytest.raises(ResolutionError, match="is not proportional to its lr"):
        resolve(Net(), Plan([Rule("*", optimizer=engine, lr=0.1), Rule("*", lr=update_ratio())]))


@pytest.mark.parametrize("engine", ["AdamW", "Adam", "RMSprop", "Adagrad"])
def test_the_ratio_of_the_gradient_is_refused_where_the_update_is_not_proportional_to_it(engine: str) -> None:
    with pytest.raises(ResolutionError, match=r"trust_ratio\(…\) without of='gradient' is of the update"):
        resolve(Net(), Plan([Rule("*", optimizer=engine, lr=0.1), Rule("*", lr=trust_ratio(of="gradient"))]))


def test_maximising_sgd_is_proportional_to_its_gradient_only_without_decay() -> None:
    own = {"lr": 0.1, "maximize": True}
    assert follows_gradient(torch.optim.SGD, own, 2)
    assert not follows_gradient(torch.optim.SGD, {**own, "weight_decay": 0.1}, 2)
    assert follows_rate(torch.optim.SGD, {**own, "weight_decay": 0.1}, 2)


def test_a_share_of_one_unit_is_a_dead_rule_unless_it_is_optional() -> None:
    base = Rule("*", optimizer="SGD", lr=0.1)
    with pytest.raises(
        ResolutionError, match=r"gradient_share\(-1, per='network'\) does nothing, for it compares netw"
    ):
        resolve(Net(), Plan([base, Rule("*", lr=gradient_share(per="network"))]))
    resolve(Net(), Plan([base, Rule("*", lr=gradient_share(per="network"), optional=True)]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_refused_before_and_in_a_step(dtype: torch.dtype) -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=trust_ratio())])
    with pytest.raises(ResolutionError, match="too coarse"):
        resolve(Net(dtype), plan)
    net = Net()
    optimizer = GroupedOptimizer(net, plan)
    net.to(dtype)
    backward(net, 0)
    weight = net.head.weight.detach().clone()
    with pytest.raises(OptimizerError, match="too coarse"):
        optimizer.step()
    assert torch.equal(net.head.weight, weight)
    of_gradient = Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=trust_ratio(0.1, of="gradient"))])
    run(GroupedOptimizer(net, of_gradient), net, 1)


def test_sparse_gradients_are_refused_before_and_in_a_step() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    with pytest.raises(ResolutionError, match="is sparse"):
        resolve(table, Plan([Rule("*", optimizer="SparseAdam", lr=0.1), Rule("*", lr=trust_ratio())]))
    dense = nn.Embedding(5, 3)
    optimizer = GroupedOptimizer(dense, Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=trust_ratio())]))
    dense.weight.grad = torch.ones(5, 3).to_sparse(1)
    with pytest.raises(OptimizerError, match="sparse gradient"):
        optimizer.step()


def test_parts_have_no_ratio_of_the_gradient() -> None:
    plan = Plan(
        [Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=trust_ratio(of="gradient"))],
        parts=[Parts("stem.weight", axis=0, into=["a", "b"])],
    )
    with pytest.raises(ResolutionError, match="is taken apart by the plan"):
        resolve(Net(), plan)


def test_tensors_in_the_place_of_a_groups_own_are_refused() -> None:
    net = Net()
    optimizer = built(net, "trust_ratio")
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in net.parameters()]))
    optimizer.param_groups[0]["params"] = [flat]
    flat.grad = torch.ones_like(flat)
    with pytest.raises(OptimizerError, match="what flattens parameters"):
        optimizer.step()
