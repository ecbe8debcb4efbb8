"""What a step saves: gradients that are let go, generators that nobody draws from, checks of each loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchjd.aggregation import UPGrad as TheirUPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from groupwise import _torch
from groupwise.balance import Balancer, UPGrad
from groupwise.balance.comparing.cost import peak
from groupwise.balance.memory import Memory


class Pictures(nn.Module):
    """Convolutions whose activations are larger than their parameters, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten()]
        self.trunk = nn.Sequential(*layers, nn.Linear(8 * 64, 64), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(64, 1) for _ in range(2))
        self.x = torch.randn(64, 1, 8, 8)

    def losses(self) -> tuple[Tensor, list[Tensor]]:
        z = self.trunk(self.x)
        return z, [head(z).square().mean() for head in self.heads]


def test_two_tasks_need_no_more_memory_than_torchjd() -> None:
    ours, theirs, balancer = Pictures(), Pictures(), Balancer(UPGrad())

    def balanced() -> None:
        ours.zero_grad()
        _, losses = ours.losses()
        balancer.backward({"a": losses[0], "b": losses[1]})

    def one_by_one() -> None:
        theirs.zero_grad()
        z, losses = theirs.losses()
        mtl_backward(losses, z, parallel_chunk_size=1)
        jac_to_grad([*theirs.trunk.parameters()], TheirUPGrad())

    for step in (balanced, one_by_one):
        step()
    assert peak(balanced) <= peak(one_by_one)


@pytest.mark.parametrize("first", ["original", "copy", "part"])
def test_copies_of_a_memory_draw_alike_whoever_draws_first(first: str) -> None:
    memory = Memory(3)
    memory.part("inner")
    copied = memory.copy()
    expected = torch.rand(4, generator=torch.Generator().manual_seed(3))
    one, other = (copied, memory) if first == "copy" else (memory, copied)
    drawing = one.part("inner") if first == "part" else one
    assert torch.equal(torch.rand(4, generator=drawing.generator), expected)
    assert torch.equal(torch.rand(4, generator=other.part("inner").generator), expected)
    assert one.generator is one.part("inner").generator is not other.generator


@pytest.mark.parametrize("lacking", [False, True])
def test_backward_from_given_starts_is_torchs_own(lacking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking:
        monkeypatch.setattr(_torch, "_RUN_BACKWARD", None)
    found, expected, starts = Pictures(), Pictures(), [torch.tensor(0.3), torch.tensor(-2.0)]
    _torch.backward(found.losses()[1], starts)
    torch.autograd.backward(expected.losses()[1], starts)
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, other.grad)
