"""Every schedule with a torch twin gives the twin's numbers, over whole runs and past their ends."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedules

from groupwise.errors import ScheduleError
from groupwise.schedules import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    epochs,
    exponential,
    function,
    linear,
    multi_step,
    one_cycle,
    percent,
    polynomial,
    step_decay,
    steps,
    triangular,
)

Attach = Callable[[torch.optim.Optimizer], Any]

lrs = st.floats(1e-4, 10)
shares = st.floats(0.0, 1.0, allow_subnormal=False)
runs = st.integers(1, 50)


def twin(attach: Attach, updates: int, lr: float = 1.0, key: str = "lr") -> list[float]:
    """The values of `key` before each of `updates` updates, and after the last."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=lr, momentum=0.5)
    scheduler = attach(optimizer)
    values = [optimizer.param_groups[0][key]]
    for _ in range(updates):
        optimizer.step()
        scheduler.step()
        values.append(optimizer.param_groups[0][key])
    return values


def agree(s: Schedule, expected: list[float], total: int | None = None, per_epoch: int | None = None) -> None:
    ours = [s.at(t, total, per_epoch) for t in range(len(expected))]
    largest = max(abs(value) for value in expected)
    assert ours == pytest.approx(expected, rel=1e-12, abs=1e-12 * largest)


@given(lrs, st.floats(0.05, 1), st.floats(0, 1), runs)
def test_linear_is_LinearLR(lr: float, first: float, last: float, n: int) -> None:
    expected = twin(lambda o: torch_schedules.LinearLR(o, first, last, total_iters=n), n + 5, lr)
    agree(linear(lr * first, lr * last, over=steps(n)), expected)
    agree(linear(lr * first, lr * last), expected, total=n)


@given(lrs, shares, runs)
def test_cosine_is_CosineAnnealingLR_until_its_end(lr: float, end: float, n: int) -> None:
    expected = twin(lambda o: torch_schedules.CosineAnnealingLR(o, T_max=n, eta_min=end), n, lr)
    agree(cosine(lr, end, over=steps(n)), expected)
    agree(cosine(lr, end), expected, total=n)


@given(lrs, st.floats(0.5, 1.05), st.integers(1, 8))
def test_exponential_is_ExponentialLR_at_whole_periods(lr: float, gamma: float, per_epoch: int) -> None:
    expected = twin(lambda o: torch_schedules.ExponentialLR(o, gamma), 30, lr)
    agree(exponential(lr, gamma, every=steps(1)), expected)
    s = exponential(lr, gamma)
    by_epoch = [s.at(epoch * per_epoch, steps_per_epoch=per_epoch) for epoch in range(31)]
    assert by_epoch == pytest.approx(expected, rel=1e-12)


@given(lrs, st.floats(0.2, 4), runs)
def test_polynomial_is_PolynomialLR(lr: float, power: float, n: int) -> None:
    expected = twin(lambda o: torch_schedules.PolynomialLR(o, total_iters=n, power=power), n + 5, lr)
    agree(polynomial(lr, power=power, over=steps(n)), expected)
    agree(polynomial(lr, power=power), expected, total=n)


@given(lrs, st.floats(0.05, 1.05), st.integers(1, 20))
def test_step_decay_is_StepLR(lr: float, gamma: float, every: int) -> None:
    expected = twin(lambda o: torch_schedules.StepLR(o, every, gamma), 60, lr)
    agree(step_decay(lr, gamma, every=steps(every)), expected)
    agree(step_decay(lr, gamma, every=epochs(1)), expected, per_epoch=every)


@given(lrs, st.floats(0.05, 1.05), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_multi_step_is_MultiStepLR_repeated_milestones_included(lr: float, gamma: float, milestones: list[int]) -> None:
    expected = twin(lambda o: torch_schedules.MultiStepLR(o, sorted(milestones), gamma), 60, lr)
    agree(multi_step(lr, gamma, at=[steps(n) for n in milestones]), expected)
    agree(multi_step(lr, gamma, at=[percent(n) for n in milestones]), expected, total=100)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@given(lrs, lrs, st.integers(1, 15), st.one_of(st.none(), st.integers(1, 15)), st.floats(0.8, 1.0))
def test_triangular_is_CyclicLR_in_every_mode(
    mode: Any, low: float, high: float, up: int, down: int | None, gamma: float
) -> None:
    def attach(o: torch.optim.Optimizer) -> Any:
        return torch_schedules.CyclicLR(o, low, high, up, down, mode, gamma, base_momentum=0.8, max_momentum=0.9)

    lengths = {"up": steps(up), "down": None if down is None else steps(down)}
    agree(triangular(low, high, mode=mode, gamma=gamma, **lengths), twin(attach, 70))
    agree(triangular(0.9, 0.8, mode=mode, gamma=gamma, **lengths), twin(attach, 70, key="momentum"))


@given(st.integers(1, 15))
def test_triangular_without_a_way_down_is_CyclicLR_too(up: int) -> None:
    expected = twin(lambda o: torch_schedules.CyclicLR(o, 0.1, 1.0, up, 0, cycle_momentum=False), 50)
    agree(triangular(0.1, 1.0, up=steps(up), down=steps(0)), expected)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("shape", "torch_shape"), [("cosine", "cos"), ("linear", "linear")])
@given(lrs, st.integers(2, 60), st.floats(0.0, 1.0), st.floats(0.5, 100), st.floats(0.5, 1e5))
def test_one_cycle_is_OneCycleLR_in_every_variant(
    shape: Any, torch_shape: Any, three_phase: bool, lr: float, n: int, rise: float, start: float, end: float
) -> None:
    def attach(o: torch.optim.Optimizer) -> Any:
        return torch_schedules.OneCycleLR(
            o, lr, n, None, None, rise, torch_shape, True, 0.85, 0.95, start, end, three_phase
        )

    assume(rise * n != 1)  # torch divides by zero here
    expected = twin(attach, n - 1)
    s = one_cycle(lr, rise, shape, start, end, three_phase)
    agree(s, expected, total=n)
    agree(one_cycle(lr, rise, shape, start, end, three_phase, over=steps(n)), expected)
    assert s.at(n, n) == s.at(n - 1, n)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("shape", "torch_shape"), [("cosine", "cos"), ("linear", "linear")])
def test_one_cycle_with_divisors_below_one_is_the_momentum_of_OneCycleLR(
    shape: Any, torch_shape: Any, three_phase: bool
) -> None:
    def attach(o: torch.optim.Optimizer) -> Any:
        return torch_schedules.OneCycleLR(o, 1.0, 50, anneal_strategy=torch_shape, three_phase=three_phase)

    s = one_cycle(0.85, shape=shape, start_divisor=0.85 / 0.95, end_divisor=1, three_phase=three_phase)
    agree(s, twin(attach, 49, key="momentum"), total=50)


def test_one_cycle_of_one_step_is_where_OneCycleLR_is() -> None:
    agree(one_cycle(1.0), twin(lambda o: torch_schedules.OneCycleLR(o, 1.0, 1), 0), total=1)


@given(lrs, shares, st.integers(1, 12), st.integers(1, 3))
def test_cosine_restarts_is_CosineAnnealingWarmRestarts(lr: float, end: float, first: int, factor: int) -> None:
    def attach(o: torch.optim.Optimizer) -> Any:
        return torch_schedules.CosineAnnealingWarmRestarts(o, first, factor, end)

    agree(cosine_restarts(lr, end, first=steps(first), factor=factor), twin(attach, 100, lr))


@given(lrs, st.floats(0.05, 1), st.integers(1, 40))
def test_two_constants_are_ConstantLR(lr: float, factor: float, n: int) -> None:
    expected = twin(lambda o: torch_schedules.ConstantLR(o, factor, n), 50, lr)
    agree(constant(lr * factor).then(constant(lr), at=steps(n)), expected)


@given(lrs, st.integers(1, 30))
def test_function_is_LambdaLR(lr: float, n: int) -> None:
    def factor(step: int) -> float:
        return min(1.0, (step + 1) / n) / (1 + step)

    agree(function(factor).scaled(lr), twin(lambda o: torch_schedules.LambdaLR(o, factor), 50, lr))
    agree(function(lambda step: lr * factor(step)), twin(lambda o: torch_schedules.LambdaLR(o, factor), 50, lr))


@given(lrs, st.integers(1, 20), st.integers(1, 20), st.floats(0.5, 0.99))
def test_then_is_SequentialLR(lr: float, n: int, m: int, gamma: float) -> None:
    def attach(o: torch.optim.Optimizer) -> Any:
        parts = [
            torch_schedules.LinearLR(o, 0.1, 1.0, total_iters=n),
            torch_schedules.StepLR(o, 3, gamma),
            torch_schedules.CosineAnnealingWarmRestarts(o, 10, 2, 0.01),
        ]
        return torch_schedules.SequentialLR(o, parts, milestones=[n, n + m])

    first = linear(0.1 * lr, lr)
    rest = step_decay(lr, gamma, every=steps(3)).then(cosine_restarts(lr, 0.01, first=steps(10), factor=2), at=steps(m))
    agree(first.then(rest, at=steps(n)), twin(attach, 70, lr))


@given(lrs, st.integers(1, 20), st.integers(1, 30))
def test_a_warmup_is_LambdaLR_and_SequentialLR_before_the_curve(lr: float, n: int, m: int) -> None:
    def attach(o: torch.optim.Optimizer) -> Any:
        ramp = torch_schedules.LambdaLR(o, lambda step: (step + 1) / n)
        return torch_schedules.SequentialLR(o, [ramp, torch_schedules.CosineAnnealingLR(o, m)], milestones=[n])

    agree(cosine(lr, warmup=steps(n)), twin(attach, n + m, lr), total=n + m)


@given(st.floats(0.1, 1), st.floats(0.5, 1.0), st.integers(1, 30))
def test_scaled_by_a_schedule_is_ChainedScheduler(first: float, gamma: float, n: int) -> None:
    def attach(o: torch.optim.Optimizer) -> Any:
        ramp, decay = torch_schedules.LinearLR(o, first, 1.0, n), torch_schedules.ExponentialLR(o, gamma)
        return torch_schedules.ChainedScheduler([ramp, decay], o)

    s = exponential(1.0, gamma, every=steps(1)).scaled(linear(first, 1.0, over=steps(n)))
    agree(s, twin(attach, 40))


CYCLES = {
    "two phases": (one_cycle(0.3), lambda o: torch_schedules.OneCycleLR(o, 0.3, total_steps=40)),
    "three phases": (
        one_cycle(0.3, rise=0.4, three_phase=True),
        lambda o: torch_schedules.OneCycleLR(o, 0.3, total_steps=40, pct_start=0.4, three_phase=True),
    ),
    "linear": (
        one_cycle(0.3, shape="linear"),
        lambda o: torch_schedules.OneCycleLR(o, 0.3, total_steps=40, anneal_strategy="linear"),
    ),
}
TRIANGLES = {
    "triangular": (
        triangular(0.01, 0.3, up="4 steps"),
        lambda o: torch_schedules.CyclicLR(o, 0.01, 0.3, step_size_up=4),
    ),
    "triangular2": (
        triangular(0.01, 0.3, up="4 steps", down="6 steps", mode="triangular2"),
        lambda o: torch_schedules.CyclicLR(o, 0.01, 0.3, step_size_up=4, step_size_down=6, mode="triangular2"),
    ),
}


@pytest.mark.parametrize(("rate", "twin"), [*CYCLES.values(), *TRIANGLES.values()], ids=[*CYCLES, *TRIANGLES])
def test_the_momentum_of_a_cycle_is_the_twins_by_default(rate: Any, twin: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.5)
    scheduler, momentum = twin(optimizer), rate.momentum()
    for step in range(40):
        group = optimizer.param_groups[0]
        assert rate.at(step, 40) == pytest.approx(group["lr"])
        assert momentum.at(step, 40) == pytest.approx(group["momentum"])
        optimizer.step()
        if step < 39:
            scheduler.step()


@pytest.mark.parametrize(
    "rate", [one_cycle(0.3, warmup="2 steps"), triangular(0.1, 0.3, up="2 steps", warmup="2 steps")]
)
def test_a_cycle_after_a_warmup_has_no_momentum_of_a_twin(rate: Any) -> None:
    with pytest.raises(ScheduleError, match=r"(has|have) no twin"):
        rate.momentum()
