"""The model changes under the optimizer: `regroup(model=...)` does what a person would do by hand, and tells it."""

import copy
import gc
import operator
import pickle
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, _torch, after, clip_norm, scale
from groupwise.errors import GroupwiseWarning, OptimizerError, ResolutionError
from groupwise.optim import parameters_of
from groupwise.schedules import cosine
from tests.optim.edits import EDITS, RECIPES, ByHand, Net, Recipe

SCHEDULED = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=0.1, foreach=False)])
ADAMW = RECIPES["adamw"].plan


def backward(net: nn.Module, step: int) -> None:
    net.zero_grad()
    net(step).backward()


def trained(plan: Plan = ADAMW, steps: int = 2) -> tuple[Net, GroupedOptimizer]:
    net = Net()
    optimizer = GroupedOptimizer(net, plan)
    for step in range(steps):
        backward(net, step)
        optimizer.step()
    return net, optimizer


def held(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def assert_equal_state(ours: GroupedOptimizer, net: nn.Module, theirs: Any, other: nn.Module) -> None:
    """The same entries with the same bits, parameter by parameter."""
    others = dict(other.named_parameters())
    for name, p in net.named_parameters():
        one, two = ours.state.get(p, {}), theirs.get(others[name], {})
        assert one.keys() == two.keys(), name
        torch.testing.assert_close(dict(one), dict(two), rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=60)
@given(recipe=st.sampled_from(list(RECIPES.values())), edits=st.lists(st.sampled_from(list(EDITS)), max_size=5))
@pytest.mark.filterwarnings("ignore:regroup. the shape of")
def test_any_edits_leave_a_run_that_equals_plain_optimizers_whose_state_was_moved_by_hand(
    recipe: Recipe, edits: Sequence[str]
) -> None:
    ours, theirs = Net(), Net()
    optimizer, by_hand = GroupedOptimizer(ours, recipe.plan), ByHand(theirs, recipe)
    for step, edit in enumerate(["", *edits]):
        if edit:
            for net, follow in ((ours, lambda _: optimizer.regroup(model=ours)), (theirs, by_hand.build)):
                torch.manual_seed(step)
                follow(EDITS[edit](net))
        assert_equal_state(optimizer, ours, by_hand.state(), theirs)
        assert sorted(map(id, held(optimizer))) == sorted(id(p) for p in ours.parameters())
        for net, stepping in ((ours, optimizer), (theirs, by_hand)):
            backward(net, step)
            stepping.step()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p, q)


@settings(max_examples=30)
@given(recipe=st.sampled_from(list(RECIPES.values())), edits=st.lists(st.sampled_from(list(EDITS)), max_size=3))
@pytest.mark.filterwarnings("ignore:regroup. the shape of")
def test_after_any_edits_what_is_saved_loads_into_a_fresh_optimizer_with_every_state(
    recipe: Recipe, edits: Sequence[str]
) -> None:
    net, optimizer = trained(recipe.plan)
    for edit in edits:
        EDITS[edit](net)
        optimizer.regroup(model=net)
    backward(net, 0)
    optimizer.step()
    other = copy.deepcopy(net)
    fresh = GroupedOptimizer(other, recipe.plan)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert str(fresh.load_report) == "every parameter found its state"
    assert_equal_state(optimizer, net, fresh.state, other)


@settings(max_examples=30)
@given(edits=st.lists(st.sampled_from(list(EDITS)), min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore:regroup. the shape of")
def test_the_report_counts_every_parameter_once_by_the_state_that_it_has(edits: Sequence[str]) -> None:
    net, optimizer = trained()
    for edit in edits:
        EDITS[edit](net)
        optimizer.regroup(model=net)
        report = optimizer.load_report
        assert report is not None
        kinds = (report.found, report.new, report.restarted, report.reset, report.missing, report.stateless)
        assert sorted(name for names in kinds for name in names) == sorted(n for n, _ in net.named_parameters())
        assert set(report.found) == {name for name, p in net.named_parameters() if optimizer.state.get(p)}
        assert (str(report) == "every parameter found its state") <= (len(report.found) == len(held(optimizer)))


def told(edit: str) -> tuple[Net, GroupedOptimizer, str]:
    net, optimizer = trained()
    EDITS[edit](net)
    optimizer.regroup(model=net)
    return net, optimizer, str(optimizer.load_report)


@pytest.mark.parametrize(
    ("edit", "report"),
    [
        ("grow", "3 resized (table.weight, head.weight, head.bias)"),
        ("prune", "3 resized (table.weight, head.weight, head.bias)"),
        ("grow_in_place", "3 resized (table.weight, head.weight, head.bias)"),
        ("swap", "2 replaced (blocks.0.weight, blocks.0.bias)"),
        (
            "insert",
            "7 of 9 parameters found their state; 2 new (blocks.0.weight, blocks.0.bias); "
            "4 renamed (blocks.1.weight, blocks.1.bias, blocks.2.weight and 1 more)",
        ),
        ("remove", "2 lost (blocks.0.weight, blocks.0.bias); 2 renamed (blocks.0.weight, blocks.0.bias)"),
        ("tie", "1 lost (head.weight)"),
        ("untie", "every parameter found its state"),
        ("parametrized", "1 renamed (blocks.1.parametrizations.weight.original)"),
        (
            "normed",
            "6 of 8 parameters found their state; 2 new (blocks.1.parametrizations.weight.original0, "
            "blocks.1.parametrizations.weight.original1); 1 lost (blocks.1.weight)",
        ),
        ("adapter", "7 of 9 parameters found their state; 2 new (blocks.2.weight, blocks.2.bias)"),
    ],
)
def test_the_report_tells_each_kind_of_change(edit: str, report: str) -> None:
    assert told(edit)[2] == report


def test_a_weight_that_came_untied_starts_from_a_copy_of_what_it_shared() -> None:
    net = Net()
    net.head.weight = net.table.weight
    optimizer = GroupedOptimizer(net, ADAMW)
    backward(net, 0)
    optimizer.step()
    EDITS["untie"](net)
    optimizer.regroup(model=net)
    one, two = optimizer.state[net.table.weight], optimizer.state[net.head.weight]
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert all(one[key].data_ptr() != two[key].data_ptr() for key in one)
    assert optimizer.load_report is not None
    assert optimizer.load_report.copied == ("head.weight",)


def test_a_shape_that_state_cannot_follow_starts_afresh_and_a_warning_says_so() -> None:
    net, optimizer = trained()
    net.blocks[0] = nn.Linear(4, 4, bias=False)
    net.blocks[0].weight = nn.Parameter(torch.zeros(4, 4, 1))
    with pytest.warns(GroupwiseWarning, match=r"shape of blocks\.0\.weight has changed, .* rows=\{'blocks\.0\.weight'"):
        optimizer.regroup(model=net)
    assert net.blocks[0].weight not in optimizer.state
    assert optimizer.load_report is not None
    assert optimizer.load_report.reset == ("blocks.0.weight",)


@pytest.mark.parametrize("count", [10, 5])
def test_a_table_none_of_whose_rows_is_known_again_starts_afresh(count: int) -> None:
    net, optimizer = trained()
    net.table = nn.Embedding(count, 4)
    with pytest.warns(GroupwiseWarning, match=r"shape of table\.weight has changed"):
        optimizer.regroup(model=net)
    assert net.table.weight not in optimizer.state


def test_a_table_that_was_cut_in_place_may_have_lost_any_rows_so_it_starts_afresh() -> None:
    net, optimizer = trained()
    net.table.weight.data = net.table.weight.data[2:]
    with pytest.warns(GroupwiseWarning, match=r"shape of table\.weight has changed"):
        optimizer.regroup(model=net)
    assert net.table.weight not in optimizer.state


def test_what_leaves_the_model_is_freed_with_its_moments() -> None:
    net, optimizer = trained()
    PlanScheduler(optimizer)
    gone = [weakref.ref(net.head.weight), *map(weakref.ref, optimizer.state[net.head.weight].values())]
    net.head = nn.Linear(4, 7)
    net.blocks[0] = nn.Linear(4, 4)
    gone += [weakref.ref(p) for p in net.blocks[1].parameters()]
    del net.blocks[1]
    optimizer.regroup(model=net)
    for p in net.head.parameters():
        optimizer.state.pop(p)  # what took the state over gives it up
    gc.collect()
    assert [ref for ref in gone if ref() is not None] == []


def test_the_optimizer_does_not_keep_the_model_alive() -> None:
    net, optimizer = trained()
    ref = weakref.ref(net)
    del net
    gc.collect()
    assert ref() is None
    optimizer.regroup()
    optimizer.state_dict()


@pytest.mark.parametrize(
    ("copied", "name"), [(copy.deepcopy, "deepcopy"), (lambda x: pickle.loads(pickle.dumps(x)), "pickle")]
)
def test_a_copy_is_regrouped_on_its_own_model(copied: Callable[[Any], Any], name: str) -> None:
    net, other = copied(trained())
    EDITS["adapter"](net)
    other.regroup()  # a copy knows no model, so it sees nothing
    other.regroup(model=net)
    assert sorted(map(id, held(other))) == sorted(id(p) for p in net.parameters())


CHANGES: dict[str, tuple[Callable[[Net], object], str]] = {
    "a new head": (
        EDITS["new_head"],
        r"trainable parameters that no group holds \(head\.weight, head\.bias\), and the groups hold tensors that it "
        r"no longer has \(head\.weight, head\.bias\)\. Call optimizer\.regroup\(model=model\)",
    ),
    "an adapter": (EDITS["adapter"], r"no group holds \(blocks\.2\.weight, blocks\.2\.bias\)\. Call"),
    "a block less": (
        EDITS["remove"],
        r"the groups hold tensors that it no longer has \(blocks\.0\.weight, blocks\.0\.bias\)",
    ),
    "weight norm": (EDITS["normed"], r"original0, .*original1\), and .* no longer has \(blocks\.1\.weight\)"),
}


@pytest.mark.parametrize(("change", "sentence"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("moment", ["regroup", "state_dict", "load"])
@pytest.mark.filterwarnings("ignore:regroup. the shape of")
def test_a_model_that_has_changed_is_said_once_with_names_and_the_way_out(
    change: Callable[[Net], object], sentence: str, moment: str
) -> None:
    net, optimizer = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    moments = {
        "regroup": optimizer.regroup,
        "state_dict": optimizer.state_dict,
        "load": lambda: optimizer.load_state_dict(saved),
    }
    change(net)
    with pytest.warns(GroupwiseWarning, match=sentence):
        moments[moment]()
    for again in moments.values():
        again()  # said already
    assert "every parameter" not in str(optimizer.load_report)
    optimizer.regroup(model=net)
    optimizer.state_dict()
    EDITS["new_head"](net)
    with pytest.warns(GroupwiseWarning, match="head"):
        optimizer.regroup()


def frozen_by_hand(net: Net) -> GroupedOptimizer:
    net.table.weight.requires_grad_(False)
    return GroupedOptimizer(net, ADAMW)


def frozen_by_the_plan(net: Net) -> GroupedOptimizer:
    return GroupedOptimizer(net, ADAMW + [Rule("table", trainable=False), Rule("blocks", trainable=after("2 steps"))])


def without_an_optimizer(net: Net) -> GroupedOptimizer:
    return GroupedOptimizer(
        net, Plan([Rule("head", optimizer="SGD", lr=0.1), Rule(["table", "blocks"], trainable=False)])
    )


def from_a_mapping(net: Net) -> GroupedOptimizer:
    return GroupedOptimizer({"head": net.head, "rest": net.blocks, "table": net.table.weight}, ADAMW)


def from_infos(net: Net) -> GroupedOptimizer:
    return GroupedOptimizer(parameters_of(net), ADAMW)


def compiled(net: Net) -> GroupedOptimizer:
    return GroupedOptimizer(torch.compile(net, backend="eager"), ADAMW)


def under_a_parallel_wrapper(net: Net) -> GroupedOptimizer:
    return GroupedOptimizer(nn.DataParallel(net), ADAMW)


def swapped_by_a_trainer(net: Net) -> GroupedOptimizer:
    """Master copies in another precision stand in the groups alone."""
    optimizer = GroupedOptimizer(net, ADAMW)
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(p.detach().clone()) for p in group["params"]]
    return optimizer


def with_flat_shards(net: Net) -> GroupedOptimizer:
    optimizer = GroupedOptimizer(net, ADAMW)
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]))]
    return optimizer


def one_group_at_a_time(net: Net) -> GroupedOptimizer:
    optimizer = GroupedOptimizer(net, ADAMW + [Rule("head", lr=scale(2.0))])
    optimizer.param_groups = optimizer.param_groups[:1]
    return optimizer


def on_meta(net: Net) -> GroupedOptimizer:
    return GroupedOptimizer(net.to("meta"), ADAMW)


def beside_a_frozen_copy(net: Net) -> GroupedOptimizer:
    optimizer = GroupedOptimizer(net, ADAMW)
    net.teacher = copy.deepcopy(net.blocks).requires_grad_(False)
    return optimizer


HEALTHY = [
    beside_a_frozen_copy,
    frozen_by_hand, frozen_by_the_plan, without_an_optimizer, from_a_mapping, from_infos, compiled,
    under_a_parallel_wrapper, swapped_by_a_trainer, with_flat_shards, one_group_at_a_time, on_meta,
]  # fmt: skip


@pytest.mark.parametrize("built", HEALTHY)
def test_a_model_that_has_not_changed_is_not_doubted(built: Callable[[Net], GroupedOptimizer]) -> None:
    net = Net()
    optimizer = built(net)
    optimizer.state_dict()
    if built is not with_flat_shards:
        optimizer.regroup()
    optimizer.state_dict()
    optimizer.step()  # of no gradient at all


def head_replaced(net: Net) -> None:
    net.head = nn.Linear(net.head.in_features, net.head.out_features)


def left_for_an_adapter(net: Net) -> None:
    net.requires_grad_(False)
    net.adapter = nn.Linear(net.head.out_features, net.head.out_features)


@pytest.mark.parametrize("change", [head_replaced, left_for_an_adapter])
def test_a_step_in_which_a_group_has_no_gradient_says_what_the_model_has_got_instead(
    change: Callable[[Net], None],
) -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, ADAMW + [Rule("head", lr=scale(2.0))])
    change(net)
    for name, p in net.named_parameters():
        p.grad = torch.ones_like(p) if p.requires_grad and "blocks" in name else None
    with pytest.warns(
        GroupwiseWarning, match=r"no group holds \((head|adapter)\.weight.*regroup\(model=model\)"
    ) as said:
        optimizer.step()
    assert len(said) == 1
    for _ in range(10):
        optimizer.step()  # said once: a second warning would be an error


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))


def swapped(net: nn.Sequential) -> None:
    net[0], net[1] = net[1], net[0]


def wrapped(net: nn.Sequential) -> None:
    net[0] = nn.Sequential(net[0])


@pytest.mark.parametrize(
    ("change", "old"), [(swapped, r"0\.weight \(now 1\.weight\)"), (wrapped, r"0\.weight \(now 0\.0\.weight\)")]
)
@pytest.mark.parametrize("call", [GroupedOptimizer.state_dict, GroupedOptimizer.regroup], ids=["save", "regroup"])
def test_tensors_that_go_by_other_names_now_are_said_before_a_checkpoint_takes_one_for_another(
    change: Callable[[nn.Sequential], None], old: str, call: Callable[[GroupedOptimizer], Any]
) -> None:
    net = layers()
    optimizer = GroupedOptimizer(net, ADAMW)
    optimizer.state_dict()
    change(net)
    with pytest.warns(GroupwiseWarning, match=f"other names now .{old}.*regroup"):
        call(optimizer)
    optimizer.regroup(model=net)
    optimizer.state_dict()  # and now it says nothing


@settings(max_examples=60)
@given(edits=st.lists(st.sampled_from(list(EDITS)), max_size=4), saves=st.lists(st.booleans(), min_size=4, max_size=4))
@pytest.mark.filterwarnings("ignore:regroup. the shape of")
def test_changes_are_seen_whether_or_not_the_model_was_found_unchanged_before(
    edits: Sequence[str], saves: Sequence[bool]
) -> None:
    def said(looks: bool) -> list[list[str]]:
        net, optimizer = trained(steps=1)
        found = []
        for edit, saved in zip(edits, saves, strict=False):
            if looks:
                quietly(optimizer.state_dict)
            EDITS[edit](net)
            found.append(quietly(optimizer.state_dict))
            if saved:
                quietly(lambda: optimizer.regroup(model=net))
        return found

    assert said(looks=True) == said(looks=False)


def quietly(work: Callable[[], object]) -> list[str]:
    """The warnings of some work."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("lacking", ["own_parameters", "own_layers"])
def test_without_the_private_names_of_modules_changes_are_seen_all_the_same(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_torch, lacking, operator.attrgetter("_not_there"))
    net, optimizer = trained()
    assert quietly(optimizer.state_dict) == quietly(optimizer.state_dict) == []
    EDITS["new_head"](net)
    assert len(quietly(optimizer.state_dict)) == 1


def test_a_wrapper_inside_the_model_is_no_other_name() -> None:
    net = layers()
    optimizer = GroupedOptimizer(net, ADAMW)
    inner = nn.Module()
    inner._checkpoint_wrapped_module = net[0]  # as activation checkpointing wraps a layer in place
    net[0] = inner
    optimizer.state_dict()


def test_what_was_frozen_by_hand_and_left_without_an_optimizer_is_named_once_it_trains() -> None:
    net = Net()
    net.table.weight.requires_grad_(False)
    optimizer = GroupedOptimizer(net, Plan([Rule(["head", "blocks"], optimizer="SGD", lr=0.1)]))
    net.table.weight.requires_grad_(True)
    with pytest.warns(GroupwiseWarning, match=r"no group holds \(table\.weight\)"):
        optimizer.state_dict()
    with pytest.raises(ResolutionError, match=r"1 trainable parameter has no optimizer: table\.weight"):
        optimizer.regroup(model=net)


def test_values_that_were_set_by_hand_stay_on_a_group_all_of_whose_parameters_are_new() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, ADAMW + [Rule("head", lr=scale(2.0))])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step(), scheduler.step()
    net.head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 7))  # type: ignore[assignment]
    optimizer.regroup(model=net)
    scheduler.step()
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"base": 2.5e-3, "head": 5e-3}


def test_a_torch_scheduler_goes_on_while_groups_keep_their_number_and_their_places() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, ADAMW + [Rule("head", lr=scale(2.0))])
    torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    EDITS["insert"](net)
    optimizer.regroup(model=net)
    with pytest.raises(OptimizerError, match="turn 2 groups into 3, but a torch scheduler is attached"):
        optimizer.regroup(ADAMW + [Rule("head", lr=scale(2.0)), Rule("table", lr=scale(3.0))], model=net)


def test_groups_may_not_change_places_under_a_torch_scheduler() -> None:
    one, other = Rule("table", lr=scale(2.0)), Rule("head", lr=scale(3.0))
    optimizer = GroupedOptimizer(Net(), ADAMW + [one, other])
    torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    with pytest.raises(
        OptimizerError, match="would move the groups 'table', 'head' to other places, but a torch sched"
    ):
        optimizer.regroup(ADAMW + [other, one])


def test_the_plans_scheduler_goes_on_and_freezes_what_is_new_as_the_plan_says() -> None:
    net = Net()
    plan = SCHEDULED + [Rule("blocks", trainable=after("5 steps"))]
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    for step in range(3):
        backward(net, step)
        optimizer.step()
        scheduler.step()
    EDITS["insert"](net)
    optimizer.regroup(model=net)
    assert {group["lr"] for group in optimizer.param_groups} == {cosine(1e-2).at(3, 10, None)}
    assert not any(p.requires_grad for p in net.blocks.parameters())
    for _ in range(2):
        scheduler.step()
    assert all(p.requires_grad for p in net.blocks.parameters())


def test_parts_that_a_new_plan_does_not_freeze_any_more_train_again() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, ADAMW + [Rule("blocks", trainable=False)])
    optimizer.regroup(ADAMW)
    assert all(p.requires_grad for p in net.parameters())
    optimizer.regroup(ADAMW + [Rule("blocks", trainable=False)], model=net)
    optimizer.regroup(ADAMW, model=net)
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("walk", [True, False])
def test_parts_that_were_frozen_by_hand_since_are_frozen_in_the_table_too(walk: bool) -> None:
    net, optimizer = trained()
    for p in net.blocks.parameters():
        p.requires_grad_(False)
    resolution = optimizer.regroup(model=net if walk else None)
    frozen = [info.name for group in resolution.groups if group.freezing == "frozen" for info in group.parameters]
    assert frozen == [f"blocks.{name}" for name, _ in net.blocks.named_parameters()]
    assert not any(p.requires_grad for p in net.blocks.parameters())
    assert len(optimizer.state) == len(list(net.parameters()))


def test_a_view_sees_the_new_parameters_of_its_network() -> None:
    nets = {"left": Net(), "right": Net()}
    optimizer = GroupedOptimizer(nets, ADAMW)
    view = optimizer.only("left")
    EDITS["adapter"](nets["left"])
    with view, pytest.raises(OptimizerError, match=r"inside `with optimizer\.only\(…\)`"):
        optimizer.regroup(model=nets)
    optimizer.regroup(model=nets)
    assert optimizer.only("left") is view
    assert {id(p) for p in nets["left"].parameters()} == {id(p) for g in view.param_groups for p in g["params"]}


def test_a_run_under_a_gradient_scaler_goes_on() -> None:
    net, optimizer = trained()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step, edit in enumerate(["", "adapter", "grow"]):
        if edit:
            EDITS[edit](net)
            optimizer.regroup(model=net)
        net.zero_grad()
        scaler.scale(net(step)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(optimizer.state[p]["step"] == steps for p, steps in ((net.table.weight, 5), (net.blocks[2].weight, 2)))


def test_a_model_is_not_taken_for_a_plan() -> None:
    net, optimizer = trained()
    with pytest.raises(OptimizerError, match=r"not Net: a model is given as regroup\(model=…\)"):
        optimizer.regroup(net)  # type: ignore[arg-type]


def test_another_model_altogether_is_doubted() -> None:
    _, optimizer = trained()
    with pytest.warns(GroupwiseWarning, match="no parameter was known before, so this may be another model"):
        optimizer.regroup(model=nn.Sequential(nn.Linear(2, 2)))


def test_state_follows_into_another_type_of_the_same_weights() -> None:
    net, optimizer = trained()
    for module in net.modules():
        for leaf, p in list(module._parameters.items()):
            if p is not None:
                setattr(module, leaf, nn.Parameter(p.detach().double()))
    optimizer.regroup(model=net)
    assert all(optimizer.state[p]["exp_avg"].dtype == torch.float64 for p in net.parameters())
    assert all(optimizer.state[p]["step"].dtype == torch.float32 for p in net.parameters())
    backward(net, 0)
    optimizer.step()


def test_a_clip_scope_takes_in_what_is_new() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, ADAMW + [Rule("blocks", clip=clip_norm(1e-3))])
    EDITS["adapter"](net)
    optimizer.regroup(model=net)
    backward(net, 0)
    joint = torch.linalg.vector_norm(
        torch.stack([p.grad.norm() for p in net.blocks.parameters() if p.grad is not None])
    )
    optimizer.step()
    torch.testing.assert_close(optimizer.measured["blocks"].norm, joint)
