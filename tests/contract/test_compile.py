"""Section d: `torch.compile` around a step. Graphs may break at the engines; numbers may not."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm
from groupwise.schedules import cosine
from tests.contract.mixes import MIX, MIXES, Mix, assert_same, steps, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    pytest.mark.filterwarnings("ignore:Profiler record function"),
]
mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No graphs from elsewhere."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(optimizer: torch.optim.Optimizer, counter: CompileCounter) -> Callable[[], None]:
    """A compiled function that steps."""

    def step() -> None:
        optimizer.step()

    run: Callable[[], None] = torch.compile(step, backend=counter)
    return run


@mixes
@pytest.mark.parametrize("before", [0, 2], ids=["from the first step", "from the third step"])
def test_a_compiled_step_equals_separate_optimizers_while_lr_is_edited(mix: Mix, before: int) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    counter = CompileCounter()
    train(ours, range(before), optimizer.step)
    train(theirs, range(before), steps(separate))
    step = compiled(optimizer, counter)
    for seed in range(before, before + 6):
        train(ours, [seed], step)
        train(theirs, [seed], steps(separate))
        for group in [*optimizer.param_groups, *(g for one in separate for g in one.param_groups)]:
            group["lr"] *= 0.9
    assert_same(ours, theirs)
    assert counter.frame_count > 0


def test_a_scheduled_rate_is_compiled_for_a_few_steps_and_then_no_more() -> None:
    ours, theirs = MIX.net(), MIX.net()
    plan = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="3 steps")), *MIX.plan.rules[1:]])
    counter = CompileCounter()
    counts = []
    optimizer, plain = GroupedOptimizer(ours, plan), GroupedOptimizer(theirs, plan)
    scheduler, other = PlanScheduler(optimizer, total_steps=20), PlanScheduler(plain, total_steps=20)
    step = compiled(optimizer, counter)
    for seed in range(12):
        train(ours, [seed], step, scheduler.step)
        train(theirs, [seed], plain.step, other.step)
        counts.append(counter.frame_count)
    assert_same(ours, theirs)
    assert counts[5] == counts[-1]


def test_a_compiled_step_clips() -> None:
    ours, theirs = MIX.net(), MIX.net()
    plan = Plan([*MIX.plan.rules, Rule("hidden.*", clip=clip_norm(0.01))], clip=clip_norm(0.5))
    optimizer, plain = GroupedOptimizer(ours, plan), GroupedOptimizer(theirs, plan)
    train(ours, range(3), compiled(optimizer, CompileCounter()))
    train(theirs, range(3), plain.step)
    assert_same(ours, theirs)
    torch.testing.assert_close(optimizer.measured["plan"].norm, plain.measured["plan"].norm)


def test_a_compiled_step_leaves_the_groups_flags_as_they_are() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    flags = [{key: group.get(key) for key in ("capturable", "fused", "foreach")} for group in optimizer.param_groups]
    train(net, range(2), compiled(optimizer, CompileCounter()))
    assert [
        {key: group.get(key) for key in flag} for group, flag in zip(optimizer.param_groups, flags, strict=True)
    ] == flags


def test_an_optimizer_that_was_compiled_is_saved_and_goes_on_uncompiled() -> None:
    net, theirs = MIX.net(), MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(3), compiled(optimizer, CompileCounter()))
    resumed = MIX.optimizer(net)
    resumed.load_state_dict(optimizer.state_dict())
    train(net, range(3, 6), resumed.step)
    train(theirs, range(6), steps(MIX.separate(theirs)))
    assert_same(net, theirs)
