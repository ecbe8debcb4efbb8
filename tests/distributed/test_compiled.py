"""A compiled model and a compiled step: few graphs, the same numbers, the names of the model inside."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from groupwise import (
    GroupedOptimizer,
    Plan,
    PlanScheduler,
    Rule,
    after,
    gradient_share,
    trust_ratio,
    until,
    update_ratio,
)
from groupwise.schedules import cosine, linear
from tests.distributed.jobs import BASE, EMBED, ROUNDING, Net, Run, alone, apart, joint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    pytest.mark.filterwarnings("ignore:Profiler record function"),
]
SCHEDULED = Rule("*", optimizer="AdamW", lr=cosine(1e-2), betas=(linear(0.85, 0.95, over="9 steps"), 0.98))
MOVING = Plan([BASE, Rule("blocks.0", trainable=after("3 steps")), Rule("embed.*", trainable=until("5 steps"))])


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No graphs from elsewhere."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def graphs(plan: Plan, steps: int = 10) -> tuple[list[int], float]:
    """How many graphs there are after each step of a compiled `optimizer.step`, and the difference from a plain run."""
    ours, theirs, counter = alone(plan), alone(plan), CompileCounter()
    step: Any = torch.compile(ours.optimizer.step, backend=counter)
    counts = []
    for i in range(steps):
        theirs.steps([i])
        nn.functional.cross_entropy(ours.net(joint(i)[0]), joint(i)[1]).backward()
        step()
        ours.scheduler.step()
        ours.optimizer.zero_grad()
        counts.append(counter.frame_count)
    return counts, apart(ours.weights, theirs.weights)


@pytest.mark.parametrize(
    ("plan", "most"),
    [(Plan([BASE]), 6), (Plan([SCHEDULED]), 6), (Plan([BASE, EMBED]), 12)],
    ids=["adamw", "its betas too", "adamw and sgd"],
)
def test_a_scheduled_value_is_compiled_in_the_first_two_steps_and_never_again(plan: Plan, most: int) -> None:
    counts, difference = graphs(plan)
    assert counts[1] == counts[-1] <= most
    assert difference < 1e-5  # Adam's corrections are traced


def test_a_timeline_makes_the_model_compile_anew_only_where_it_moves() -> None:
    plain, net, counter = alone(MOVING), Net(), CompileCounter()
    model: Any = torch.compile(net, backend=counter)
    run = Run(net, MOVING, model, alone=True)
    counts = []
    for i in range(8):
        run.steps([i])
        plain.steps([i])
        counts.append(counter.frame_count)
    moves = [i for i in range(1, 8) if counts[i] > counts[i - 1]]
    assert set(moves) <= {1, 3, 5}
    assert apart(run.weights, plain.weights) < ROUNDING


def test_a_compiled_model_has_the_names_of_the_model_inside_and_their_checkpoint() -> None:
    plan = Plan([BASE, EMBED])
    run = alone(plan).steps(range(2))
    model: Any = torch.compile(Net(), backend="eager")
    assert all(name.startswith("_orig_mod.") for name, _ in model.named_parameters())
    optimizer = GroupedOptimizer(model, plan)
    PlanScheduler(optimizer, total_steps=20)
    assert str(optimizer.resolution) == str(run.optimizer.resolution)
    report = optimizer.resume(run.optimizer.state_dict())
    assert str(report) == "every parameter found its state"


MEASURED = {
    "trust_ratio": trust_ratio(),
    "update_ratio": update_ratio(1e-2, speed=0.5),
    "gradient_share": gradient_share(smoothing=0.5),
}


@pytest.mark.parametrize("factor", MEASURED.values(), ids=MEASURED)
def test_rates_that_follow_measurements_are_compiled_as_well(factor: Any) -> None:
    counts, difference = graphs(Plan([BASE, Rule("*", lr=factor)]), steps=7)
    assert counts[2] == counts[-1] <= 14
    assert difference < 1e-5


def test_the_ratio_of_the_gradient_is_compiled_as_well() -> None:
    factor = trust_ratio(0.02, of="gradient")
    rules = [Rule("*", optimizer="SGD", lr=0.05, momentum=0.9, weight_decay=0.01), Rule("*", lr=factor)]
    counts, difference = graphs(Plan(rules), steps=7)
    assert counts[2] == counts[-1] <= 14
    assert difference < 1e-5
