"""Losses that work against one another are refused; those that share, are alone or work together are not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import groupwise
from groupwise import Plan, Rule
from groupwise.errors import ProbeError
from groupwise.probing.batches import Batches
from groupwise.probing.games import check_no_game
from groupwise.probing.job import Job

ONES, ZEROS = torch.ones(16, 1), torch.zeros(16, 1)


def networks() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"g": nn.Linear(4, 6), "d": nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))})


def gan(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    made = model["g"](torch.randn(16, 4))
    d = binary_cross_entropy_with_logits(model["d"](x), ONES)
    d = d + binary_cross_entropy_with_logits(model["d"](made.detach()), ZEROS)
    model["d"].requires_grad_(False)
    g = binary_cross_entropy_with_logits(model["d"](made), ONES)
    model["d"].requires_grad_(True)
    return {"d": d, "g": g}


def together(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    """A codebook: each side follows the other, which it has no gradient for."""
    made, target = model["g"](x[:, :4]), model["d"][0].weight[:1]
    return {"commit": (made - target.detach()).square().mean(), "code": (made.detach() - target).square().mean()}


def detached(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    """A head on features that another loss trains: a step of those may raise its loss, and it never moves theirs."""
    made = model["g"](x[:, :4])
    return {"features": (made + 3).square().mean(), "head": (model["d"](made.detach()) - 1).square().mean()}


def alone(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    return {"a": model["g"](x[:, :4]).square().mean(), "b": model["d"](x).square().mean()}


def shared(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    made = model["d"](x)
    return {"up": (made - 1).square().mean(), "down": (made + 1).square().mean()}


def probed(loss: Callable[[nn.ModuleDict, Tensor], dict[str, Tensor]]) -> None:
    data = [torch.randn(16, 6, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    plan = Plan([Rule("*", optimizer="Adam", lr=1e-3)])
    check_no_game(Job(networks(), plan, Batches(data), loss, 100))


def test_two_networks_against_one_another_are_refused_before_anything_is_run() -> None:
    model, calls = networks(), []
    before = [p.clone() for p in model.parameters()]

    def counted(copy: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
        calls.append(1)
        return gan(copy, x)

    plan = Plan([Rule("*", optimizer="Adam", lr=1e-3)])
    with pytest.raises(ProbeError, match=r"the losses of 'd' and 'g' .* as in a GAN"):
        groupwise.probe(model, plan, [torch.randn(16, 6)] * 20, loss=counted, total_steps=400)
    assert len(calls) < 10
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("loss", [together, detached, alone, shared])
def test_losses_that_work_together_or_alone_or_on_the_same_parameters_are_no_game(
    loss: Callable[[nn.ModuleDict, Tensor], dict[str, Tensor]],
) -> None:
    probed(loss)


def test_of_three_losses_the_two_that_are_a_game_are_named() -> None:
    def loss(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
        return {"size": model["g"].weight.square().sum(), **gan(model, x)}

    with pytest.raises(ProbeError, match="'d' and 'g'"):
        probed(loss)
