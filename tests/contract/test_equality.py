"""The law under all others: a mixed plan's step is the steps of plain torch optimizers on the slices."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groupwise import GroupedOptimizer, Plan, Rule
from tests.contract.mixes import MIXES, Mix, Net, assert_same, backward, steps, train

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
ALGORITHMS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    "AdamW": {"weight_decay": 0.1, "amsgrad": True},
    "Adam": {"betas": (0.8, 0.95)},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adagrad": {"lr_decay": 0.01},
    "NAdam": {"decoupled_weight_decay": True, "weight_decay": 0.05},
    "Adafactor": {"weight_decay": 0.01},
    "Rprop": {"etas": (0.6, 1.3)},
}


@mixes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_step_equals_separate_optimizers_over_many_steps_with_edits_of_lr_between(
    mix: Mix, dtype: torch.dtype
) -> None:
    ours, theirs = mix.net(dtype), mix.net(dtype)
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    for seed in range(30):
        train(ours, [seed], optimizer.step)
        train(theirs, [seed], steps(separate))
        assert_same(ours, theirs)
        if seed % 7 == 0:
            for group in [*optimizer.param_groups, *(g for other in separate for g in other.param_groups)]:
                group["lr"] *= 0.7


@mixes
def test_state_equals_that_of_separate_optimizers(mix: Mix) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    train(ours, range(5), optimizer.step)
    train(theirs, range(5), steps(separate))
    expected = {p: state for other in separate for p, state in other.state.items()}
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert optimizer.state[p].keys() == expected[q].keys()
        for key, value in expected[q].items():
            torch.testing.assert_close(optimizer.state[p][key], value, rtol=1e-5, atol=1e-7)


@given(
    algorithms=st.lists(st.sampled_from(sorted(ALGORITHMS)), min_size=4, max_size=4),
    absent=st.lists(st.sets(st.integers(0, 6)), min_size=4, max_size=8),
    factors=st.lists(st.sampled_from([1.0, 0.5, 2.0]), min_size=8, max_size=8),
)
def test_any_assignment_of_algorithms_to_parts_equals_separate_optimizers(
    algorithms: Sequence[str], absent: Sequence[set[int]], factors: Sequence[float]
) -> None:
    parts = ["embed", "hidden", "norm", "head"]
    ours, theirs = Net(dtype=torch.float64), Net(dtype=torch.float64)
    rules = [
        Rule(f"{part}.*", optimizer=algorithm, lr=1e-2, **ALGORITHMS[algorithm])
        for part, algorithm in zip(parts, algorithms, strict=True)
    ]
    optimizer = GroupedOptimizer(ours, Plan(rules))
    separate = [
        getattr(torch.optim, algorithm)(getattr(theirs, part).parameters(), lr=1e-2, **ALGORITHMS[algorithm])
        for part, algorithm in zip(parts, algorithms, strict=True)
    ]
    for seed, (missing, factor) in enumerate(zip(absent, factors, strict=False)):
        for net, step in ((ours, optimizer.step), (theirs, steps(separate))):
            backward(net, seed)
            for i, p in enumerate(net.parameters()):
                p.grad = None if i in missing else p.grad
            step()
        assert_same(ours, theirs)
        for group in [*optimizer.param_groups, *(g for other in separate for g in other.param_groups)]:
            group["lr"] *= factor


def test_half_precision_parameters_are_updated_as_alone_to_a_few_bits() -> None:
    mix = MIXES["sgd+adamw"]
    ours, theirs = mix.net(), mix.net()
    for net in (ours, theirs):
        net.hidden.to(torch.bfloat16)
        net.head.to(torch.bfloat16)
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    for seed in range(5):
        for net in (ours, theirs):
            generator = torch.Generator().manual_seed(seed)
            for p in net.parameters():
                p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()
        steps(separate)()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-2)  # fused kernels compute in single precision


def test_a_parameter_that_joins_late_is_updated_as_alone() -> None:
    mix = MIXES["sgd+adamw"]
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    for seed in range(6):
        for net, step in ((ours, optimizer.step), (theirs, steps(separate))):
            backward(net, seed)
            if seed < 3:  # the momentum of one of the two begins later
                net.hidden.bias.grad = None
            step()
    assert_same(ours, theirs)


def test_the_reference_is_able_to_disagree() -> None:
    mix = MIXES["sgd+adamw"]
    ours, theirs = mix.net(), mix.net()
    train(ours, range(3), mix.optimizer(ours).step)
    train(theirs, range(3), steps(mix.separate(theirs)[:1]))
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_same(ours, theirs)


def test_a_copy_of_the_net_is_the_same_net() -> None:
    net = Net()
    assert_same(net, copy.deepcopy(net))
