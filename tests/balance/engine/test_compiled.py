"""Compiled modules: the routes run, and where torch allows only one backward the error says what to set."""

import pytest
import torch
from torch import nn

from groupwise.balance import Balancer, CAGrad, Equal
from groupwise.errors import BalanceError
from tests.balance.engine.models import MultiTask, built
from tests.balance.engine.reference import assert_same, gradients


def compiled(kind: str) -> MultiTask:
    model = built(kind)
    run = torch.compile(model.trunk, backend="aot_eager")
    model.represent = lambda: run(model.x)
    return model


@pytest.mark.parametrize("ways", [{}, {"task_only": "weighted"}, {"route": "features"}], ids=str)
@pytest.mark.parametrize("method", [CAGrad(), Equal()], ids=lambda method: method.name)
def test_a_compiled_trunk_is_balanced_as_an_eager_one(method: object, ways: dict[str, str]) -> None:
    eager, fast = built("Plain"), compiled("Plain")
    for _ in range(2):
        Balancer(method, **ways).backward(eager.losses())
        Balancer(method, **ways).backward(fast.losses())
    assert_same(fast, gradients(eager), tolerance=1e-10)


class _Donating(torch.autograd.Function):
    """Refuses a second backward in the words of torch's compiled functions."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("This backward function was compiled with non-empty donated buffers which requires …")


def test_a_backward_that_runs_only_once_says_what_to_set() -> None:
    trunk, heads = nn.Linear(3, 3), nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    z = _Donating.apply(trunk(torch.ones(2, 3)))
    losses = {str(i): head(z).mean() for i, head in enumerate(heads)}
    with pytest.raises(BalanceError, match="donated_buffer = False before the model is compiled"):
        Balancer(CAGrad()).backward(losses)
