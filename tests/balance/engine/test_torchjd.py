"""The same update as TorchJD's `mtl_backward` and aggregators, where these are right."""

import pytest
import torch

torchjd = pytest.importorskip("torchjd")

from torchjd.aggregation import MGDA as TheirMGDA  # noqa: E402
from torchjd.aggregation import Mean, MGDAWeighting, Sum  # noqa: E402
from torchjd.autojac import jac_to_grad, mtl_backward  # noqa: E402

from groupwise.balance import Balancer, FromGramian, FromJacobian, FromLosses  # noqa: E402
from groupwise.errors import BalanceError  # noqa: E402
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


def test_an_aggregator_is_not_taken_for_weights_nor_a_weighting_for_an_update() -> None:
    for method in (FromGramian, FromLosses):
        with pytest.raises(BalanceError, match=r"TorchJD's MGDA is of another shape: use FromJacobian\(…\)"):
            method(TheirMGDA())
    for method in (FromJacobian, FromLosses):
        with pytest.raises(BalanceError, match=r"TorchJD's MGDAWeighting is of another shape: use FromGramian\(…\)"):
            method(MGDAWeighting())
    FromGramian(MGDAWeighting())
