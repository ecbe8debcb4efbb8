"""What a build, a checkpoint and a load cost grows with the tensors and groups, and no faster.

Counted are the calls of Python and C functions, and the tensors that sets of tensors take in: costs that do not depend
on the machine.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, layer_decay
from groupwise.errors import ResolutionError
from groupwise.optim import parameters_of, resolve
from tests.calls import calls_of


def built(layers: int) -> GroupedOptimizer:
    """A group for each layer."""
    model = nn.ModuleDict({"blocks": nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(layers))})
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.0), Rule("*", lr=layer_decay(0.999))])
    optimizer = GroupedOptimizer(model, plan)
    assert len(optimizer.param_groups) == layers
    return optimizer


def stepped(layers: int) -> GroupedOptimizer:
    optimizer = built(layers)
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("start", "work"),
    [
        (lambda layers: layers, built),
        (stepped, lambda optimizer: optimizer.state_dict()),
        (stepped, lambda optimizer: optimizer.load_state_dict(optimizer.state_dict())),
        (stepped, lambda optimizer: optimizer.regroup()),
        (stepped, lambda optimizer: str(optimizer.resolution)),
    ],
    ids=["build", "state_dict", "load", "regroup", "table"],
)
def test_what_groups_cost_grows_with_their_number_and_no_faster(
    start: Callable[[int], object], work: Callable[[object], object]
) -> None:
    def cost(layers: int) -> int:
        given = start(layers)
        return calls_of(lambda: work(given))

    cost(10)
    assert cost(400) < 4.4 * cost(100)


def test_a_tensor_or_name_given_twice_is_refused_with_its_name() -> None:
    infos = parameters_of(nn.Linear(2, 2))
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1)])
    for twice in (infos + infos, infos + parameters_of(nn.Linear(2, 2)), (*infos, infos[0])):
        with pytest.raises(ResolutionError, match=r"'weight'.*given twice.*walk all of the model at once"):
            resolve(twice, plan)
