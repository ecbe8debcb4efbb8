"""Distributed checkpoints: written by some number of ranks, read by another, and the run goes on."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

from groupwise import Plan, Rule, after, clip_norm, scale
from groupwise.errors import GroupwiseWarning
from tests.distributed.jobs import BASE, EMBED, MUON, ROUNDING, Run, alone, apart, ddp, fsdp, whole
from tests.distributed.ranks import Ranks

forms = pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])
HEAD = Rule("head", optimizer="SGD", lr=0.1, weight_decay=0.0)  # no momentum, no state
PLANS = {
    "muon": Plan([BASE, EMBED, MUON, HEAD, Rule("*", clip=clip_norm(0.05))], clip=clip_norm(0.06)),
    "adafactor": Plan([BASE, Rule("blocks.*", optimizer="Adafactor", lr=1e-2, weight_decay=0.0)]),
}
plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
SLOWER = Rule("blocks.0", label="slower", lr=scale(0.5))
THAW = Plan([BASE, Rule("blocks.*", trainable=after("3 steps"))])


@pytest.fixture(scope="module")
def one() -> Iterator[Ranks]:
    """One rank."""
    ranks = Ranks(1)
    yield ranks
    ranks.close()


def options(flatten: bool, **others: bool) -> StateDictOptions:
    return StateDictOptions(flatten_optimizer_state_dict=flatten, **others)


def moments(run: Run) -> dict[str, torch.Tensor]:
    """Every tensor of the state, whole, by parameter and key."""
    held = {name: run.optimizer.state.get(p, {}) for name, p in run.net.named_parameters()}
    return {f"{name} {key}": whole(t).clone() for name, own in held.items() for key, t in own.items()}


def handed_over(plan: Plan, flatten: bool, before: int, regroup: bool, gathered: bool) -> tuple[float, float]:
    """From one sharded run to a fresh one, through memory; how far they are apart at once, and three steps on."""
    run, other = fsdp(plan).steps(range(before)), fsdp(plan)
    if regroup:
        run.optimizer.regroup(plan + [SLOWER])
        other.optimizer.regroup(plan + [SLOWER])
    how = options(flatten, full_state_dict=gathered)
    saved = copy.deepcopy(get_optimizer_state_dict(run.net, run.optimizer, options=how))
    other.scheduler.load_state_dict(run.scheduler.state_dict())
    set_optimizer_state_dict(other.net, other.optimizer, saved, options=how)
    other.net.load_state_dict(run.net.state_dict())
    state = apart(moments(run), moments(other))
    return state, apart(run.steps(range(6, 9)).weights, other.steps(range(6, 9)).weights)


@forms
@plans
@pytest.mark.parametrize(
    ("before", "regroup"), [(0, False), (3, False), (3, True)], ids=["before the first step", "later", "regrouped"]
)
def test_a_sharded_run_is_read_and_set_bit_for_bit(
    two: Ranks, plan: Plan, flatten: bool, before: int, regroup: bool
) -> None:
    assert two(handed_over, plan, flatten, before, regroup, False) == [(0.0, 0.0)] * 2


@plans
def test_a_state_dict_gathered_whole_is_set_bit_for_bit(two: Ranks, plan: Plan) -> None:
    assert two(handed_over, plan, False, 3, False, True) == [(0.0, 0.0)] * 2


def thawed_or_not(before: int, flatten: bool, wrap: Any) -> float:
    run, other = wrap(THAW).steps(range(before)), wrap(THAW)
    saved = copy.deepcopy(get_optimizer_state_dict(run.net, run.optimizer, options=options(flatten)))
    other.scheduler.load_state_dict(run.scheduler.state_dict())
    set_optimizer_state_dict(other.net, other.optimizer, saved, options=options(flatten))
    other.net.load_state_dict(run.net.state_dict())
    return apart(run.steps(range(6, 9)).weights, other.steps(range(6, 9)).weights)


@forms
@pytest.mark.parametrize("before", [1, 3, 5], ids=["frozen", "thawed, not stepped", "thawed and stepped"])
@pytest.mark.parametrize("wrap", [ddp, fsdp])
def test_a_run_that_thaws_is_read_and_set_at_every_moment(two: Ranks, wrap: Any, before: int, flatten: bool) -> None:
    assert two(thawed_or_not, before, flatten, wrap) == [0.0] * 2


def start(plan: Plan, sharded: bool) -> Run:
    return fsdp(plan) if sharded else alone(plan)


def written(directory: Path, plan: Plan, steps: Sequence[int], flatten: bool) -> Any:
    """Train from scratch and save; the weights and the state that were saved, whole."""
    run = fsdp(plan).steps(steps)
    save(run, directory, flatten)
    return run.weights, moments(run)


def went_on(directory: Path, plan: Plan, steps: Sequence[int], flatten: bool, sharded: bool, to: Path | None) -> Any:
    """Load, go on, and save again where `to` says; the state as it was loaded, and the weights then and at the end."""
    run = start(plan, sharded)
    load(run, directory, flatten)
    begun, state = run.weights, moments(run)
    run.steps(steps)
    if to is not None:
        save(run, to, flatten)
    return begun, state, run.weights, moments(run)


def save(run: Run, directory: Path, flatten: bool) -> None:
    model, optimizer = get_state_dict(run.net, run.optimizer, options=options(flatten))
    dcp.save({"model": model, "optimizer": optimizer, "scheduler": run.scheduler.state_dict()}, checkpoint_id=directory)


def load(run: Run, directory: Path, flatten: bool) -> None:
    """The scheduler first: what its step has thawed has room for a state then."""
    clock = {"scheduler": run.scheduler.state_dict()}
    dcp.load(clock, checkpoint_id=directory)
    run.scheduler.load_state_dict(clock["scheduler"])
    model, optimizer = get_state_dict(run.net, run.optimizer, options=options(flatten))
    room = {"model": model, "optimizer": optimizer}
    dcp.load(room, checkpoint_id=directory)
    set_state_dict(
        run.net, run.optimizer, model_state_dict=model, optim_state_dict=room["optimizer"], options=options(flatten)
    )


def straight(plan: Plan, steps: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    run = alone(plan).steps(range(steps))
    return run.weights, moments(run)


@pytest.mark.parametrize("sharded", [True, False], ids=["fully_shard", "plain"])
@forms
@plans
def test_two_ranks_save_and_one_goes_on(
    two: Ranks, one: Ranks, tmp_path: Path, plan: Plan, flatten: bool, sharded: bool
) -> None:
    (weights, state), _ = two(written, tmp_path, plan, range(3), flatten)
    ((begun, loaded, ended, _),) = one(went_on, tmp_path, plan, range(3, 6), flatten, sharded, None)
    assert apart(begun, weights) == 0.0
    assert apart(loaded, state) == 0.0
    assert apart(ended, straight(plan, 6)[0]) < ROUNDING


@plans
def test_two_ranks_save_and_four_go_on(two: Ranks, four: Ranks, tmp_path: Path, plan: Plan) -> None:
    (weights, state), _ = two(written, tmp_path, plan, range(3), False)
    for begun, loaded, ended, _ in four(went_on, tmp_path, plan, range(3, 6), False, True, None):
        assert apart(begun, weights) == 0.0
        assert apart(loaded, state) == 0.0
        assert apart(ended, straight(plan, 6)[0]) < ROUNDING


@forms
@plans
def test_from_two_ranks_to_one_to_two_equals_the_straight_run(
    two: Ranks, one: Ranks, tmp_path: Path, plan: Plan, flatten: bool
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    two(written, first, plan, range(3), flatten)
    ((_, _, weights, state),) = one(went_on, first, plan, range(3, 6), flatten, True, second)
    for begun, loaded, ended, moved in two(went_on, second, plan, range(6, 9), flatten, True, None):
        assert apart(begun, weights) == 0.0
        assert apart(loaded, state) == 0.0
        expected, moments_expected = straight(plan, 9)
        assert apart(ended, expected) < ROUNDING
        assert apart(moved, moments_expected) < ROUNDING


def test_a_thawed_part_keeps_its_moments_from_two_ranks_to_one_to_two(two: Ranks, one: Ranks, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    two(written, first, THAW, range(5), False)
    one(went_on, first, THAW, range(5, 6), False, True, second)
    for _, _, ended, moved in two(went_on, second, THAW, range(6, 9), False, True, None):
        expected, moments_expected = straight(THAW, 9)
        assert apart(ended, expected) < ROUNDING
        assert apart(moved, moments_expected) < ROUNDING


def late(flatten: bool) -> None:
    """The wrong order: the optimizer is loaded while the part that had been trained is still frozen."""
    run, other = fsdp(THAW).steps(range(5)), fsdp(THAW)
    saved = copy.deepcopy(get_optimizer_state_dict(run.net, run.optimizer, options=options(flatten)))
    set_optimizer_state_dict(other.net, other.optimizer, saved, options=options(flatten))
    with pytest.warns(GroupwiseWarning, match="no state for it.*Load the scheduler first, then the optimizer"):
        other.scheduler.load_state_dict(run.scheduler.state_dict())


@forms
def test_a_part_that_is_thawed_only_after_the_load_lost_its_moments_and_a_warning_says_so(
    two: Ranks, flatten: bool
) -> None:
    two(late, flatten)


def between_thaw_and_update(directory: Path) -> None:
    save(fsdp(THAW).steps(range(3)), directory, False)
    with pytest.raises(CheckpointException, match=r"Missing key in checkpoint.*blocks"):
        load(fsdp(THAW), directory, False)


def test_files_written_between_a_thaw_and_the_next_update_are_refused_by_dcp_itself(two: Ranks, tmp_path: Path) -> None:
    two(between_thaw_and_update, tmp_path)


def edited(flatten: bool) -> tuple[float, float, list[float]]:
    """A plan that splits a group, and changes one of the new groups, since the checkpoint was written."""
    plan = PLANS["muon"]
    run, other, expected = fsdp(plan).steps(range(3)), fsdp(plan + [SLOWER]), alone(plan).steps(range(3))
    saved = copy.deepcopy(get_optimizer_state_dict(run.net, run.optimizer, options=options(flatten)))
    other.scheduler.load_state_dict(run.scheduler.state_dict())
    set_optimizer_state_dict(other.net, other.optimizer, saved, options=options(flatten))
    other.net.load_state_dict(run.net.state_dict())
    expected.optimizer.regroup(plan + [SLOWER])
    state = apart(moments(run), moments(other))
    values = [group["weight_decay"] - twin["weight_decay"] for group, twin in groups_of(other, expected)]
    return state, apart(other.steps(range(3, 6)).weights, expected.steps(range(3, 6)).weights), values


def groups_of(ours: Run, theirs: Run) -> Any:
    return zip(ours.optimizer.param_groups, theirs.optimizer.param_groups, strict=True)


@forms
def test_a_plan_that_was_edited_since_takes_over_state_and_is_obeyed(two: Ranks, flatten: bool) -> None:
    for state, weights, values in two(edited, flatten):
        assert state == 0.0
        assert weights < ROUNDING
        assert not any(values)


def plainly_saved(plan: Plan) -> tuple[float, float]:
    """A plain one-process checkpoint of torch.save's kind, loaded into shards."""
    run, other = alone(plan).steps(range(3)), fsdp(plan)
    other.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    other.scheduler.load_state_dict(run.scheduler.state_dict())
    ours = dict(other.net.named_parameters())
    with torch.no_grad():
        for name, p in run.net.named_parameters():
            ours[name].copy_(
                torch.distributed.tensor.distribute_tensor(p, ours[name].device_mesh, [*ours[name].placements])
            )
    ended = apart(run.steps(range(3, 6)).weights, other.steps(range(3, 6)).weights)
    return ended, apart(moments(run), moments(other))


@plans
def test_a_checkpoint_of_one_plain_process_is_cut_into_parts(two: Ranks, plan: Plan) -> None:
    for weights, state in two(plainly_saved, plan):
        assert weights < ROUNDING
        assert state < ROUNDING
