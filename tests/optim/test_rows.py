"""Tables whose rows move: the state of each row goes where the row goes, equal to surgery by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, scale
from groupwise.errors import GroupwiseWarning, OptimizerError
from groupwise.optim.rows import same_but_for_rows

ATTRIBUTES = {"means": (3,), "opacity": (), "colours": (2, 3)}
RATES = {"means": 1e-2, "opacity": 5e-2, "colours": 2e-3}
ADAM = Plan([Rule("*", optimizer="Adam", lr=1e-2, foreach=False)])
SPLATS = ADAM + [Rule("opacity", lr=5e-2), Rule("colours", lr=2e-3)]


class Cloud(nn.Module):
    """Points with attributes, as in Gaussian splatting: every attribute is a table with a row for each point."""

    def __init__(self, points: int = 6) -> None:
        super().__init__()
        for name, shape in ATTRIBUTES.items():
            generator = torch.Generator().manual_seed(len(name))
            self.register_parameter(name, nn.Parameter(torch.randn((points, *shape), generator=generator)))

    def forward(self, step: int) -> torch.Tensor:
        return sum(((p - step) ** 2).sum() for p in self.parameters())  # type: ignore[return-value]


def put(cloud: Cloud, mask: torch.Tensor, more: int) -> None:
    """Keep the points of the mask and add some behind, as densification and pruning do."""
    for name, p in list(cloud.named_parameters()):
        fresh = torch.full((more, *p.shape[1:]), 0.5)
        setattr(cloud, name, nn.Parameter(torch.cat([p.detach()[mask], fresh])))


def put_by_hand(cloud: Cloud, optimizer: torch.optim.Optimizer, mask: torch.Tensor, more: int) -> None:
    """The published code of 3D Gaussian Splatting: tensors and Adam's moments, group by group."""
    for group in optimizer.param_groups:
        old = group["params"][0]
        state = optimizer.state.pop(old)
        fresh = torch.full((more, *old.shape[1:]), 0.5)
        for key in ("exp_avg", "exp_avg_sq"):
            state[key] = torch.cat([state[key][mask], torch.zeros_like(fresh)])
        group["params"][0] = nn.Parameter(torch.cat([old.detach()[mask], fresh]))
        optimizer.state[group["params"][0]] = state
        setattr(cloud, group["name"], group["params"][0])


edits = st.lists(st.tuples(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 3)), max_size=4)


@settings(max_examples=40)
@given(edits=edits)
def test_points_that_come_and_go_are_trained_as_by_surgery_on_the_moments(
    edits: Sequence[tuple[list[bool], int]],
) -> None:
    ours, theirs = Cloud(), Cloud()
    optimizer = GroupedOptimizer(ours, SPLATS)
    plain = torch.optim.Adam(
        [{"params": [p], "lr": RATES[name], "name": name} for name, p in theirs.named_parameters()], foreach=False
    )
    for step, (bits, more) in enumerate([([True] * 6, 0), *edits]):
        mask = torch.tensor((bits * 9)[: len(ours.means)])
        mask[0] = True
        put(ours, mask, more)
        optimizer.regroup(model=ours, rows={"*": mask})
        put_by_hand(theirs, plain, mask, more) if step else None
        for cloud, each in ((ours, optimizer), (theirs, plain)):
            cloud.zero_grad()
            cloud(step).backward()
            each.step()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p, q)


def stepped(plan: Plan, cloud: Cloud | None = None) -> tuple[Cloud, GroupedOptimizer]:
    cloud = cloud or Cloud()
    optimizer = GroupedOptimizer(cloud, plan)
    for step in range(2):
        cloud.zero_grad()
        cloud(step).backward()
        optimizer.step()
    return cloud, optimizer


@given(order=st.permutations(range(6)))
def test_an_index_moves_any_row_anywhere(order: Sequence[int]) -> None:
    cloud, optimizer = stepped(ADAM)
    before = {name: optimizer.state[p]["exp_avg"].clone() for name, p in cloud.named_parameters()}
    index = [-1, *order, order[0]]
    for name, p in list(cloud.named_parameters()):
        setattr(cloud, name, nn.Parameter(torch.cat([p.detach()[:1], p.detach()[list(order)], p.detach()[order[:1]]])))
    optimizer.regroup(model=cloud, rows={"*": index})
    for name, p in cloud.named_parameters():
        after = optimizer.state[p]["exp_avg"]
        assert torch.equal(after[1:], before[name][index[1:]])
        assert not after[0].any()


def test_rows_that_were_cut_out_of_the_middle_of_a_tensor_in_place_are_followed_too() -> None:
    cloud, optimizer = stepped(ADAM)
    before = optimizer.state[cloud.means]["exp_avg"].clone()
    kept = torch.tensor([True, False, True, False, True, True])
    cloud.means.data = cloud.means.data[kept]
    optimizer.regroup(rows={"means": kept})
    assert torch.equal(optimizer.state[cloud.means]["exp_avg"], before[kept])
    assert optimizer.load_report is not None
    assert optimizer.load_report.resized == ("means",)


MISTAKES: dict[str, tuple[Mapping[str, Any], str]] = {
    "nothing of that name": ({"mean": [0]}, r"unknown parameter 'mean'; did you mean 'means'"),
    "a mask of another length": ({"*": [True] * 5}, "parameter 'means': a mask of 5 entries, but there were 6 rows"),
    "a mask that keeps more": ({"*": [True] * 6}, "the mask keeps 6 rows, but there are 4 now"),
    "an index of another length": (
        {"*": [0, 1]},
        "2 entries, but there are 4 rows now: one for each, -1 for a new one",
    ),
    "a row that was not there": ({"*": [0, 1, 2, 6]}, r"entries run from -1 \(new\) to 5; this has 0 to 6"),
    "fractions": ({"*": [0.5] * 4}, r"give a mask over the 6 old rows, .* dtype torch\.float32"),
    "two dimensions": ({"*": [[0, 1, 2, 3]]}, "this has 2 dimensions"),
}


@pytest.mark.parametrize(("rows", "words"), MISTAKES.values(), ids=MISTAKES)
def test_rows_that_cannot_be_meant_are_refused_and_nothing_changes(rows: Mapping[str, Any], words: str) -> None:
    cloud, optimizer = stepped(ADAM)
    before = optimizer.param_groups, optimizer.state, optimizer.resolution
    put(cloud, torch.tensor([True] * 4 + [False] * 2), 0)
    with pytest.raises(OptimizerError, match=words):
        optimizer.regroup(model=cloud, rows=rows)
    assert (optimizer.param_groups, optimizer.state, optimizer.resolution) == before


def test_rows_are_refused_where_more_than_the_rows_has_changed() -> None:
    cloud, optimizer = stepped(ADAM)
    cloud.means = nn.Parameter(torch.zeros(6, 4))
    with pytest.raises(OptimizerError, match=r"its shape was \(6, 3\) and is \(6, 4\): only the number of rows may"):
        optimizer.regroup(model=cloud, rows={"means": range(6)})


ALGORITHMS = {
    "Adam": True, "AdamW": True, "NAdam": True, "RAdam": True, "Adamax": True, "Adadelta": True, "RMSprop": True,
    "Adagrad": True, "SGD": True, "ASGD": False, "Rprop": False,
}  # fmt: skip


@pytest.mark.parametrize(("algorithm", "follows"), ALGORITHMS.items(), ids=ALGORITHMS)
def test_new_rows_start_at_zero_where_the_algorithm_starts_at_zero_and_else_all_of_the_table_afresh(
    algorithm: str, follows: bool
) -> None:
    more = {"momentum": 0.9} if algorithm == "SGD" else {}
    cloud, optimizer = stepped(Plan([Rule("*", optimizer=algorithm, lr=1e-2, weight_decay=0.0, **more)]))
    put(cloud, torch.ones(6, dtype=torch.bool), 2)
    if follows:
        optimizer.regroup(model=cloud)
    else:
        with pytest.warns(GroupwiseWarning, match="starts afresh"):
            optimizer.regroup(model=cloud)
    assert optimizer.load_report is not None
    assert (optimizer.load_report.resized, optimizer.load_report.reset) == (
        (tuple(ATTRIBUTES), ()) if follows else ((), tuple(ATTRIBUTES))
    )
    cloud(0).backward()
    optimizer.step()


def test_an_accumulator_that_starts_above_zero_is_not_filled_with_zeros() -> None:
    cloud, optimizer = stepped(Plan([Rule("*", optimizer="Adagrad", lr=1e-2, initial_accumulator_value=0.1)]))
    put(cloud, torch.ones(6, dtype=torch.bool), 2)
    with pytest.warns(GroupwiseWarning, match="starts afresh"):
        optimizer.regroup(model=cloud)


@pytest.mark.parametrize("algorithm", ["ASGD", "Rprop"])
def test_a_table_that_only_lost_rows_keeps_the_state_of_the_others_under_any_algorithm(algorithm: str) -> None:
    cloud, optimizer = stepped(Plan([Rule("*", optimizer=algorithm, lr=1e-2)]))
    put(cloud, torch.tensor([True] * 4 + [False] * 2), 0)
    optimizer.regroup(model=cloud)
    assert optimizer.load_report is not None
    assert optimizer.load_report.resized == tuple(ATTRIBUTES)


def test_factors_of_the_whole_matrix_start_afresh() -> None:
    cloud, optimizer = stepped(Plan([Rule("*", optimizer="Adafactor", lr=1e-2)]))
    put(cloud, torch.ones(6, dtype=torch.bool), 2)
    with pytest.warns(GroupwiseWarning, match="starts afresh"):
        optimizer.regroup(model=cloud)
    assert optimizer.load_report is not None
    assert optimizer.load_report.resized == ("opacity",)


def test_points_in_the_middle_of_a_cloud_are_not_guessed_at() -> None:
    cloud, optimizer = stepped(SPLATS + [Rule("means", lr=scale(2.0))])
    put(cloud, torch.tensor([True, False] * 3), 0)
    with pytest.warns(GroupwiseWarning, match=r"starts afresh\. If only the number of rows changed, rows="):
        optimizer.regroup(model=cloud)
    assert not optimizer.state


def test_a_new_row_of_adam_moves_by_about_six_rates_at_most() -> None:
    """Its moments begin where the bias correction has ended: (1 - b1^t) / sqrt(1 - b2^t) under a constant gradient."""
    table = nn.Embedding(2, 1)
    optimizer = GroupedOptimizer(table, Plan([Rule("*", optimizer="Adam", lr=1e-3)]))
    for _ in range(5000):
        table.weight.grad = torch.ones_like(table.weight)
        optimizer.step()
    table.weight = nn.Parameter(torch.cat([table.weight.detach(), torch.zeros(1, 1)]))
    optimizer.regroup(model=table)
    moves = []
    for _ in range(40):
        before = table.weight.detach()[2].clone()
        table.weight.grad = torch.ones_like(table.weight)
        optimizer.step()
        moves.append(float(before - table.weight.detach()[2]) / 1e-3)
    assert moves[0] == pytest.approx(3.16, abs=0.05)
    assert max(moves) == pytest.approx(6.6, abs=0.3)


def test_a_number_has_no_rows() -> None:
    assert not same_but_for_rows((), ())
    assert same_but_for_rows((2,), (3,))


@pytest.mark.filterwarnings("ignore::groupwise.GroupwiseWarning")
@pytest.mark.parametrize("rows", [3, 8], ids=["shrunk", "grown"])
@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("algorithm", ["AdamW", "SGD", "Adagrad", "Adafactor"])
def test_a_table_resized_in_place_is_named_at_the_step_with_the_way_out(
    algorithm: str, foreach: bool | None, rows: int
) -> None:
    model = nn.ModuleDict({"table": nn.Embedding(5, 4), "out": nn.Linear(4, 2)})
    more = {"momentum": 0.9} if algorithm == "SGD" else {}
    rule = Rule("*", optimizer=algorithm, lr=1e-2, hyperparameters={**more, "foreach": foreach})
    optimizer = GroupedOptimizer(model, Plan([rule]))

    def step() -> None:
        optimizer.zero_grad()
        model["out"](model["table"](torch.arange(3))).sum().backward()
        optimizer.step()

    step()
    optimizer.zero_grad()
    old = model["table"].weight.data
    model["table"].weight.data = torch.cat([old, old])[:rows].clone()
    with pytest.raises(
        OptimizerError, match=rf"'table.weight' has got the shape \({rows}, 4\) in place, .* \(5.*regroup"
    ):
        step()
    optimizer.regroup(model=model)
    step()
    assert all(value.isfinite().all() for p in optimizer.state.values() for value in p.values())
