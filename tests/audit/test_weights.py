"""The claim behind `idle-weight`: some algorithms make the same update at any scale of the gradients."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import nn

from groupwise.audit import audit
from groupwise.audit.checks.weights import INVARIANT
from tests.audit.programs import Tasks

SMALL_EPS: dict[str, dict[str, Any]] = {"Adafactor": {"eps": (1e-30, 1e-3)}, "Rprop": {}, "Lion": {}}
TORCHS = sorted(name for name in INVARIANT if getattr(torch.optim, name, None) is not None)
OTHERS = ["SGD", "ASGD", "RAdam"]


def updated(kind: Any, scale: float, sparse: bool = False, **arguments: Any) -> torch.Tensor:
    """A matrix after three updates with gradients of a scale."""
    generator = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
    optimizer = kind([p], lr=0.01, **arguments)
    for _ in range(3):
        gradient = scale * torch.randn(4, 3, generator=generator, dtype=torch.float64)
        p.grad = gradient.to_sparse(1) if sparse else gradient
        optimizer.step()
    return p.detach()


def arguments_of(name: str) -> dict[str, Any]:
    return SMALL_EPS.get(name, {"eps": 1e-30})


@pytest.mark.parametrize("name", TORCHS)
def test_an_invariant_algorithm_makes_the_same_update_at_any_scale(name: str) -> None:
    kind, sparse = getattr(torch.optim, name), name == "SparseAdam"
    one, tenth = (updated(kind, scale, sparse, **arguments_of(name)) for scale in (1.0, 0.1))
    close = {"rtol": 1e-2, "atol": 1e-3} if name == "Muon" else {"rtol": 1e-6, "atol": 1e-9}  # bfloat16 inside
    torch.testing.assert_close(one, tenth, **close)


@pytest.mark.parametrize("name", ["Lion", "Lamb"])
def test_an_invariant_algorithm_of_another_library_does_so_too(name: str) -> None:
    kind = getattr(pytorch_optimizer, name)
    one, tenth = (updated(kind, scale, **({} if name == "Lion" else {"eps": 1e-30})) for scale in (1.0, 0.1))
    torch.testing.assert_close(one, tenth, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_do_not(name: str) -> None:
    assert name not in INVARIANT
    kind = getattr(torch.optim, name)
    assert not torch.allclose(updated(kind, 1.0), updated(kind, 0.1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "decay", "noted"), [("Adam", 0.0, 1), ("Adam", 0.1, 0), ("AdamW", 0.1, 1), ("SGD", 0.0, 0)]
)
def test_a_decay_added_to_the_gradient_makes_the_weight_count(kind: str, decay: float, noted: int) -> None:
    model = Tasks()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-3, weight_decay=decay)
    found = audit(model, optimizer, losses=model.losses(depth=0.1))
    assert sum(finding.check == "idle-weight" for finding in found) == noted


def test_a_weight_on_every_term_of_a_head_counts_as_one() -> None:
    model = Tasks()
    losses = model.losses()
    depth = 0.1 * (losses["depth"] + model.heads["depth"](model.trunk[0](torch.ones(1, 4))).sum())
    found = audit(model, torch.optim.Adam(model.parameters()), losses={"seg": losses["seg"], "depth": depth})
    assert [set(f.parameters) for f in found] == [{"heads.depth.weight", "heads.depth.bias"}]


def test_one_weight_for_all_terms_is_no_weight() -> None:
    model = Tasks()
    losses = model.losses()
    assert not audit(model, torch.optim.Adam(model.parameters()), losses=sum(losses.values()) / 2)
