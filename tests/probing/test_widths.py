"""A probe of a narrow model is advice for a wide one where the plan's own factors carry its rates, and only there."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import groupwise
from groupwise import GroupedOptimizer, Plan, Rule, fan_in, scale
from groupwise.errors import ProbeError
from groupwise.probing import ProbeResult
from groupwise.probing.rates import said
from groupwise.schedules import cosine
from groupwise.select import ndim, size

NARROW, WIDE, STEPS = 8, 64, 240
MATRICES = ["middle.weight", "head.weight"]


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.middle, self.head = nn.Linear(6, width), nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x).relu()).relu())


def batches() -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(40, 16, 6, generator=torch.Generator().manual_seed(3))
    return [(rows, rows[:, :3].argmax(1)) for rows in x]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def plan(lr: float = 1e-5, match: Any = MATRICES, factor: Any = None) -> Plan:
    base = Rule("*", optimizer="AdamW", lr=cosine(lr), weight_decay=0.0)
    return Plan([base, Rule(match, label="wide", lr=fan_in(NARROW) if factor is None else factor)])


def probed(model: Any = Net, given: Plan | None = None, width: Any = (NARROW, WIDE)) -> ProbeResult:
    return groupwise.probe(
        model, given or plan(), batches(), loss=loss, total_steps=STEPS, budget=1.2, width=width
    )  # fmt: skip


@functools.cache
def carried() -> ProbeResult:
    return probed()


def test_the_rounds_are_those_of_a_probe_of_the_narrow_model_and_the_plan_carries_the_advice() -> None:
    found = carried()
    alone = groupwise.probe(
        lambda: Net(NARROW), plan(), batches(), loss=loss, total_steps=STEPS, budget=1.2
    )  # fmt: skip
    ladder, own = found.rounds[0].runs, alone.rounds[0].runs
    assert {s: runs for s, runs in ladder.items() if s in own} == {s: runs for s, runs in own.items() if not s.adamw}
    assert found.rates.verdict == "change"
    before, after = (
        sorted(group["lr"] for group in GroupedOptimizer(Net(WIDE), each).param_groups) for each in (plan(), found.plan)
    )
    assert before == pytest.approx([1e-5 * NARROW / WIDE, 1e-5])
    assert after == pytest.approx([rate * found.rates.advised for rate in before])


def test_the_rates_told_are_those_of_the_wide_model_and_both_sizes_are_named() -> None:
    text = " ".join(carried().words)
    assert f"wide {said(1e-5 * carried().rates.advised * NARROW / WIDE)}" in text
    assert all(f"{sum(p.numel() for p in Net(width).parameters()):,}" in text for width in (NARROW, WIDE))


def test_no_one_adamw_is_advised_whose_rate_nothing_carries_and_no_norm_is_told() -> None:
    sgd = Plan([Rule("*", optimizer="SGD", lr=1e-4), Rule(MATRICES, lr=fan_in(NARROW))])
    found = probed(given=sgd)
    assert not any(s.adamw for each in found.rounds for s in each.runs)
    assert not any("norm is below" in word for word in found.words)


def test_what_grows_without_a_factor_is_named() -> None:
    found = probed(given=plan(match="middle.weight"))
    assert [f.parameters for f in found.findings if f.check == "width"] == [("head.weight",)]
    assert not any(f.check == "width" for f in carried().findings)


def other_names(width: int) -> nn.Module:
    net = Net(width)
    if width == WIDE:
        net.more = nn.Linear(2, 2)
    return net


@pytest.mark.parametrize(
    ("model", "given", "width", "reason"),
    [
        (Net, Plan([Rule("*", optimizer="AdamW", lr=1e-3)]), (NARROW, WIDE), "no rate of the plan follows the width"),
        (Net, plan(factor=scale(0.1)), (NARROW, WIDE), "no rate of the plan follows the width"),
        (other_names, None, (NARROW, WIDE), r"other parameters, more\.bias, more\.weight"),
        (lambda width: Net(8), None, (NARROW, WIDE), "the same shapes"),
        (Net(8), None, (NARROW, WIDE), "a function that makes a model of a width, not Net"),
        (Net, None, (WIDE, NARROW), "the lower first"),
        (Net, None, 8, "two whole numbers"),
        (Net, plan(match=size(min=25) & ndim(2)), (NARROW, WIDE), "is under"),
    ],
)
def test_what_would_be_a_guess_is_refused(
    model: Callable[[int], nn.Module], given: Any, width: Any, reason: str
) -> None:
    with pytest.raises(ProbeError, match=reason):
        probed(model, given, width)


def test_generators_are_as_they_were() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    probed()
    assert torch.equal(torch.get_rng_state(), before)
