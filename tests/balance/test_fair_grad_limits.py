"""Where FairGrad cannot be solved it says so, and whose gradients are too far apart."""

import pytest
import torch

from groupwise.balance.memory import Memory
from groupwise.balance.method import MethodContext
from groupwise.balance.methods import FairGrad
from groupwise.errors import BalanceError

SEEN = MethodContext(("seg", "depth", "normals"), torch.ones(3, dtype=torch.float64))
ROWS = torch.tensor([[1.0, 0.2, 0.0], [0.3, 1.0, -0.1], [-0.1, 0.4, 1.0]], dtype=torch.float64)
SPREAD = ROWS * torch.tensor([[1e-8], [1.0], [1e8]], dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.1, 10.0, 100.0])
def test_from_a_tenth_to_100_any_norms_will_do(alpha: float) -> None:
    weights = FairGrad(alpha).weights(SPREAD @ SPREAD.T, SEEN, Memory())
    assert bool((SPREAD @ (SPREAD.T @ weights) > 0).all())


def test_beyond_it_the_norms_are_named() -> None:
    named = r"FairGrad: alpha = 1e\+06: .*'seg' 1e-08, 'depth' 1, 'normals' 1.1e\+08: bring"
    with pytest.raises(BalanceError, match=named):
        FairGrad(1e6).weights(SPREAD @ SPREAD.T, SEEN, Memory())
