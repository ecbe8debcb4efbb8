"""The factor of clipping of each group, from what the optimizer measured, equals what happened to its gradients."""

from pathlib import Path

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, clip_adaptive, clip_norm, clip_value
from groupwise.observe import Observer

ALIKE = [
    Rule("*", label="same", optimizer="SGD", lr=0.1, clip=clip_norm(0.3)),
    Rule("x.b.*", label="same", clip=clip_norm(0.05)),
]


def with_clip(clip: object) -> list[Rule]:
    return [Rule("*", optimizer="SGD", lr=0.1, clip=clip), Rule("x.b.*", lr=0.2)]


PLANS = {
    "one scope": Plan(with_clip(clip_norm(0.2))),
    "by rule and as a whole": Plan(ALIKE[:1] + [Rule("x.b.*", label="b", clip=clip_norm(0.05))], clip=clip_norm(0.1)),
    "two rules of one label": Plan(ALIKE),
    "the whole alone": Plan(with_clip(None), clip=clip_norm(0.1)),
    "by network": Plan(with_clip(clip_norm(0.1, per="network"))),
    "by module": Plan(with_clip(clip_norm(0.05, per="module"))),
    "by parameter": Plan(with_clip(clip_norm(0.03, per="parameter")), clip=clip_norm(0.04)),
    "above every norm": Plan(with_clip(clip_norm(1e6))),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_factor_is_the_ratio_of_norms_and_the_smallest_where_sets_differ(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({key: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for key in "ab"})
    optimizer = GroupedOptimizer({"x": model, "y": nn.Linear(2, 2)}, PLANS[name])
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for p in params:
        p.grad = torch.randn_like(p)
    before = {p: p.grad.norm() for p in params}
    with Observer(optimizer, None) as observer:
        optimizer.step()
    for group in optimizer.param_groups:
        factors = [(p.grad.norm() / before[p]).item() for p in group["params"]]
        assert observer.last.groups[group["name"]]["clip_factor"] == pytest.approx(min(factors), rel=1e-4)


@pytest.mark.parametrize("clip", [clip_value(0.01), clip_adaptive(0.01)])
def test_the_factor_of_clipping_by_entry_or_unit_is_that_of_the_largest(clip: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    optimizer = GroupedOptimizer(layer, Plan([Rule("*", optimizer="SGD", lr=0.1, clip=clip)]))
    for p in layer.parameters():
        p.grad = torch.randn_like(p)
    before = [p.grad.clone() for p in layer.parameters()]
    with Observer(optimizer, None) as observer:
        optimizer.step()
    ratios = torch.cat([(p.grad / b).flatten() for p, b in zip(layer.parameters(), before, strict=True)])
    assert observer.last.groups["base"]["clip_factor"] == pytest.approx(ratios.min().item(), rel=1e-4)
