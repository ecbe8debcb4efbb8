"""Section d: `torch.compile` around a step. Graphs may break at the engines; numbers may not."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm
from groupwise.observe import Observer
from groupwise.observe.sinks import Memory
from groupwise.schedules import cosine
from tests.contract.mixes import MIX, MIXES, Mix, Net, assert_same, assert_unmoved, backward, steps, train, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    pytest.mark.filterwarnings("ignore:Profiler record function"),
    pytest.mark.slow,
]
STARTS = [*((mix, 0) for mix in MIXES.values()), (MIX, 2)]
NAMES = [*(f"{name} from the first step" for name in MIXES), "sgd+adamw from the third step"]


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


def flags_of(optimizer: GroupedOptimizer) -> list[list[object]]:
    """Which kernels the groups ask for."""
    return [[group.get(key) for key in ("capturable", "fused", "foreach")] for group in optimizer.param_groups]


@pytest.mark.parametrize(("mix", "before"), STARTS, ids=NAMES)
def test_a_compiled_step_equals_separate_optimizers_while_lr_is_edited_and_goes_on_uncompiled(
    mix: Mix, before: int
) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    counter = CompileCounter()
    train(ours, range(before), optimizer.step)
    train(theirs, range(before), steps(separate))
    step, flags = compiled(optimizer, counter), flags_of(optimizer)
    for seed in range(before, before + 5):
        train(ours, [seed], step)
        train(theirs, [seed], steps(separate))
        for group in [*optimizer.param_groups, *(g for one in separate for g in one.param_groups)]:
            group["lr"] *= 0.9
    assert_same(ours, theirs)
    assert counter.frame_count > 0
    assert flags_of(optimizer) == flags

    resumed = mix.optimizer(ours)
    resumed.load_state_dict(optimizer.state_dict())
    train(ours, range(3), resumed.step)
    train(theirs, range(3), steps(separate))
    assert_same(ours, theirs)


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
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-5)  # Adam's corrections are traced
    assert counts[5] == counts[-1]


def test_an_observed_step_compiles_to_the_same_records_without_a_word() -> None:
    records, nets = [], [MIX.net(), MIX.net()]
    for net, around in zip(nets, (compiled, lambda optimizer, _: optimizer.step), strict=True):
        optimizer, memory = MIX.optimizer(net), Memory(size=3)
        with Observer(optimizer, None, every={"updates": 1, "weights": 1}, sinks=[memory]), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            train(net, range(3), around(optimizer, CompileCounter()))
        records.append([values for _, values in memory.records])
    assert_same(*nets)
    assert records[0] == [pytest.approx(values, rel=1e-4, abs=1e-6) for values in records[1]]


def test_a_compiled_step_clips() -> None:
    ours, theirs = MIX.net(), MIX.net()
    plan = Plan([*MIX.plan.rules, Rule("hidden.*", clip=clip_norm(0.01))], clip=clip_norm(0.5))
    optimizer, plain = GroupedOptimizer(ours, plan), GroupedOptimizer(theirs, plan)
    train(ours, range(3), compiled(optimizer, CompileCounter()))
    train(theirs, range(3), plain.step)
    assert_same(ours, theirs)
    torch.testing.assert_close(optimizer.measured["plan"].norm, plain.measured["plan"].norm)


def test_a_compiled_step_of_one_network_moves_that_one_alone() -> None:
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-2), Rule("*.hidden.*", optimizer="SGD", lr=0.1, momentum=0.9)])
    ours, theirs = (nn.ModuleDict({"left": Net(), "right": Net()}) for _ in range(2))
    before = weights(ours["right"])
    optimizer, plain = GroupedOptimizer(dict(ours.items()), plan), GroupedOptimizer(dict(theirs.items()), plan)
    step = torch.compile(lambda: optimizer.only("left").step(), backend=CompileCounter())
    for nets, run in ((ours, step), (theirs, plain.only("left").step)):
        for seed in range(2):
            for net in nets.values():
                backward(net, seed)
            run()
    assert_same(ours, theirs)
    assert_unmoved(ours["right"], before)
    assert len(optimizer.param_groups) == 4


def test_several_optimizers_are_compiled_in_one_process_and_none_of_them_again() -> None:
    """As many as of torch's own: what a step counts is no constant of its graph. (torch gives up at eight.)"""
    counter, runs = CompileCounter(), []
    for i in range(5):
        plan = Plan(
            [*MIX.plan.rules, Rule("hidden.*", label=f"own {i}", lr=cosine(0.01 * (i + 1)), clip=clip_norm(0.1))]
        )
        ours, theirs = MIX.net(), MIX.net()
        optimizer, plain = GroupedOptimizer(ours, plan), GroupedOptimizer(theirs, plan)
        schedulers = PlanScheduler(optimizer, total_steps=20), PlanScheduler(plain, total_steps=20)
        runs.append((ours, compiled(optimizer, counter), schedulers[0].step))
        runs.append((theirs, plain.step, schedulers[1].step))
        before = counter.frame_count
        for net, step, tick in runs[-2:]:
            train(net, range(4), step, tick)
        assert counter.frame_count > before
    with torch.compiler.set_stance("fail_on_recompile"):
        for net, step, tick in runs:
            train(net, range(4, 7), step, tick)
    for (ours, *_), (theirs, *_) in zip(runs[::2], runs[1::2], strict=True):
        torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-5)
