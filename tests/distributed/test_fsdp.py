"""FSDP2: each step is that of one process; what an algorithm cannot do on a part of a tensor it does on the whole."""

import gc
import weakref

import pytest
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

from groupwise import (
    GroupedOptimizer,
    GroupwiseError,
    Plan,
    Rule,
    clip_norm,
    layer_decay,
    scale,
)
from groupwise.optim import resolve
from groupwise.select import magnitude, role
from tests.distributed.jobs import (
    BASE,
    EMBED,
    MUON,
    PLANS,
    ROUNDING,
    STEPS,
    Net,
    alone,
    apart,
    backward,
    fsdp,
    part,
    same,
    sharded,
)
from tests.distributed.ranks import Ranks


def compared(plan: Plan) -> tuple[float, float, bool]:
    ours, theirs = fsdp(plan).steps(range(STEPS)), alone(plan).steps(range(STEPS))
    plain = not any(isinstance(x, DTensor) for found in ours.optimizer.measured.values() for x in found)
    return apart(ours.weights, theirs.weights), apart(ours.measured, theirs.measured), plain and same(ours.weights)


@pytest.mark.parametrize("name", PLANS)
def test_two_ranks_equal_one_process_on_the_joint_batch(two: Ranks, name: str) -> None:
    for weights, measured, equal in two(compared, PLANS[name]):
        assert weights < ROUNDING
        assert measured < 1e-6
        assert equal


def kept_alive() -> bool:
    """Whether the gradients of a step outlive it."""
    run = fsdp(PLANS["with muon, clipped by module"]).steps(range(2))
    references = [weakref.ref(p.grad.to_local()) for p in run.net.parameters() if isinstance(p.grad, DTensor)]
    run.optimizer.zero_grad()
    gc.collect()
    return any(reference() is not None for reference in references)


def test_nothing_that_was_lent_to_an_engine_outlives_the_step(two: Ranks) -> None:
    assert two(kept_alive) == [False] * 2


def sizes() -> bool:
    """Whether every part of the state takes the memory of a part."""
    run = fsdp(PLANS["with muon, clipped by module"]).steps(range(2))
    parts = [t.to_local() for own in run.optimizer.state.values() for t in own.values() if isinstance(t, DTensor)]
    return bool(parts) and all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in parts)


def test_the_state_of_what_was_gathered_takes_no_more_memory_than_its_part(two: Ranks) -> None:
    assert all(two(sizes))


def exchanges() -> dict[str, int]:
    counts = {}
    for name, clip in (("none", None), ("norm", clip_norm(1.0))):
        plan = Plan([BASE, EMBED, *([Rule("*", clip=clip)] if clip else [])], clip=clip)
        run = fsdp(plan).steps([0])
        backward(run.net, part(1))
        with CommDebugMode() as watch:
            run.optimizer.step()
        counts[name] = sum(watch.get_comm_counts().values())
    return counts


def test_all_the_norms_of_a_step_take_one_exchange_however_many_scopes_there_are(two: Ranks) -> None:
    assert two(exchanges) == [{"none": 0, "norm": 1}] * 2


RESOLVED = Plan(
    [
        BASE,
        EMBED,
        MUON,
        Rule("blocks.*", lr=layer_decay(0.5)),
        Rule(role("norm") | role("bias"), weight_decay=0.0),
        Rule(magnitude(above=0.5), label="large", weight_decay=0.3),
        Rule("head", clip=clip_norm(1.0)),
    ]
)


def resolved() -> tuple[bool, bool]:
    net = Net()
    before = resolve(net, RESOLVED)
    after = resolve(sharded(net), RESOLVED)
    facts = [[(i.names, i.shape, i.roles, i.depth) for i in found.parameters] for found in (before, after)]
    return str(before) == str(after), facts[0] == facts[1]


def test_a_plan_means_the_same_before_and_after_sharding(two: Ranks) -> None:
    assert two(resolved) == [(True, True)] * 2


def regrouped(walk: bool) -> tuple[float, str]:
    plan, new = (
        PLANS["with muon, clipped by module"],
        Rule("head", lr=scale(0.5), label="slow"),
    )
    ours, theirs = fsdp(plan).steps(range(3)), alone(plan).steps(range(3))
    for run in (ours, theirs):
        run.optimizer.regroup(run.optimizer.plan + [new], model=run.net if walk else None)
        run.steps(range(3, 6))
    return apart(ours.weights, theirs.weights), str(ours.optimizer.load_report)


@pytest.mark.parametrize("walk", [False, True], ids=["what is held", "the model walked again"])
def test_a_regroup_in_mid_run_equals_one_process(two: Ranks, walk: bool) -> None:
    for difference, report in two(regrouped, walk):
        assert difference < ROUNDING
        assert report == "2 moved (head.weight, head.bias)"


def sparse_on_parts() -> str:
    net = sharded(Net(sparse=True))
    table = Rule("embed.*", optimizer="SparseAdam", lr=0.05, weight_decay=0.0)
    try:
        GroupedOptimizer(net, Plan([BASE, table]))
    except GroupwiseError as error:
        return str(error)
    return "accepted"


def test_an_algorithm_for_sparse_gradients_is_refused_on_parts_with_the_way_out(two: Ranks) -> None:
    for message in two(sparse_on_parts):
        assert "'embed.weight'" in message
        assert "sparse=False" in message
        assert "ignored_params" in message
