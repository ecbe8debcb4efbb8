"""The same update as TorchJD's `mtl_backward` and aggregators, where these are right."""

import pytest
import torch

torchjd = pytest.importorskip("torchjd")

from torchjd.aggregation import MGDA as TheirMGDA  # noqa: E402
from torchjd.aggregation import Mean, Sum  # noqa: E402
from torchjd.autojac import jac_to_grad, mtl_backward  # noqa: E402

from groupwise.balance import Balancer, FromJacobian  # noqa: E402
from tests.balance.engine.models import built  # noqa: E402
from tests.balance.engine.reference import assert_same, gradients  # noqa: E402


@pytest.mark.parametrize("aggregator", [Sum(), Mean(), TheirMGDA()], ids=str)
@pytest.mark.parametrize("kind", ["Plain", "Convolutional", "Recurrent", "Frozen"])
def test_an_aggregator_is_a_method(kind: str, aggregator: torch.nn.Module) -> None:
    theirs, ours = built(kind), built(kind)
    losses = [*theirs.losses().values()]
    mtl_backward(losses, features=theirs.features)
    trunk = [p for p in theirs.parameters() if getattr(p, "jac", None) is not None]
    jac_to_grad(trunk, aggregator)
    Balancer(FromJacobian(aggregator)).backward(ours.losses())
    assert_same(ours, gradients(theirs), tolerance=1e-9)
