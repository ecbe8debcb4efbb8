"""A tensor keeps its state when a parametrization comes, goes or is written anew between two runs."""

import warnings
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise.errors import StateError
from groupwise.optim.spellings import other_spellings

PLAN = Plan([Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.0)])
WHOLE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda layer: layer,
    "spectral norm, old": spectral_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruned": lambda layer: prune.identity(layer, "weight"),
}
SPLIT: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm, old": weight_norm,
    "weight norm": parametrizations.weight_norm,
}


def net(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.ModuleDict({"body": nn.Linear(4, 4), "mid": wrap(nn.Linear(4, 4)), "head": nn.Linear(4, 1)})


def trained(wrap: Callable[[nn.Module], nn.Module]) -> GroupedOptimizer:
    model = net(wrap)
    optimizer = GroupedOptimizer(model, PLAN)
    for _, p in sorted(model.named_parameters()):
        p.grad = torch.full_like(p, float(len(p)))
    optimizer.step()
    return optimizer


def moments(optimizer: GroupedOptimizer) -> dict[int, list[float]]:
    """By the number of its entries: the second moment of each tensor of the layer in the middle."""
    group = optimizer.param_groups[0]
    pairs = zip(group["param_names"], group["params"], strict=True)
    return {p.numel(): optimizer.state[p]["exp_avg_sq"].flatten().tolist() for name, p in pairs if "mid" in name}


@pytest.mark.parametrize(
    ("before", "after"),
    [*permutations(WHOLE.items(), 2), *permutations(SPLIT.items(), 2)],
    ids=lambda pair: pair[0].replace(" ", "-"),
)
def test_state_follows_a_tensor_into_the_name_that_a_parametrization_gives_it(
    before: tuple[str, Callable[[nn.Module], nn.Module]], after: tuple[str, Callable[[nn.Module], nn.Module]]
) -> None:
    old, new = trained(before[1]), GroupedOptimizer(net(after[1]), PLAN)
    report = new.resume(old.state_dict())
    assert not report.new
    assert not report.lost
    assert moments(new) == moments(old)
    known = set(old.param_groups[0]["param_names"])
    assert set(report.renamed) == set(new.param_groups[0]["param_names"]) - known


def test_a_name_of_the_checkpoint_that_is_known_here_goes_before_another_spelling() -> None:
    class Both(nn.Module):
        def __init__(self, extra: bool) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.zeros(3))
            if extra:
                self.rate_orig = nn.Parameter(torch.zeros(3))

    old = GroupedOptimizer(Both(extra=True), PLAN)
    for number, p in enumerate(old.param_groups[0]["params"]):
        p.grad = torch.full_like(p, 1.0 + number)
    old.step()
    new = GroupedOptimizer(Both(extra=False), PLAN)
    with pytest.warns(UserWarning, match=r"1 lost \(rate_orig\)"):
        report = new.resume(old.state_dict())
    (own,) = new.param_groups[0]["params"]
    assert report.found == ("rate",)
    assert not report.renamed
    assert new.state[own]["exp_avg"].tolist() == pytest.approx([0.1] * 3)


def test_weight_norm_that_is_added_starts_afresh_for_a_length_is_no_weight() -> None:
    old, new = trained(WHOLE["plain"]), GroupedOptimizer(net(SPLIT["weight norm"]), PLAN)
    with pytest.warns(UserWarning, match=r"2 new .*1 lost \(mid.weight\)"):
        new.resume(old.state_dict())


def test_two_spellings_of_one_tensor_in_a_checkpoint_are_ambiguous() -> None:
    saved = trained(WHOLE["spectral norm"]).state_dict()
    group = saved["param_groups"][0]
    names = group["param_names"]
    names[names.index("mid.bias")] = "mid.weight_orig"
    with pytest.raises(StateError, match=r"'mid.weight_orig' and 'mid.param.*original'.* remove one"):
        GroupedOptimizer(net(WHOLE["plain"]), PLAN).resume(saved)


@pytest.mark.parametrize(
    "name", ["weight", "a.b.weight", "weight_orig", "a.weight_g", "a.parametrizations.w.original1"]
)
def test_a_spelling_leads_back(name: str) -> None:
    assert all(name in other_spellings(other) for other in other_spellings(name))
    assert name not in other_spellings(name)
