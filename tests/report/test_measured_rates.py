"""The rate in force: what was recorded of a measured factor, times the rate that it multiplied."""

from array import array
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, trust_ratio
from groupwise.records import Run, Series
from groupwise.report import describe
from groupwise.report.panels.schedules import product
from groupwise.schedules import cosine

written = st.dictionaries(st.integers(0, 20), st.floats(0, 10), min_size=1)


def series(values: dict[int, float]) -> Series:
    return Series(array("q", sorted(values)), array("d", [values[step] for step in sorted(values)]))


@given(written, written)
def test_a_product_is_of_the_values_that_stand(one: dict[int, float], other: dict[int, float]) -> None:
    found = dict(zip(*product(series(one), series(other)), strict=True))
    for step in range(21):
        standing = [[values[at] for at in sorted(values) if at <= step] for values in (one, other)]
        expected = standing[0][-1] * standing[1][-1] if all(standing) else None
        held = [found[at] for at in sorted(found) if at <= step]
        assert (held[-1] if held else None) == expected


def test_the_observer_records_the_factor_and_the_report_draws_the_rate_in_force(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    plan = Plan([Rule("*", optimizer="AdamW", lr=cosine(0.01)), Rule("0", lr=trust_ratio())])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer, total_steps=5)
    factors = []
    with Observer(optimizer, tmp_path) as observer:
        for _ in range(5):
            optimizer.zero_grad()
            net(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            factors.append(float(optimizer.param_groups[1]["rate_factor"]))
            scheduler.step()
        assert observer.last is not None
        assert observer.last.values["0"]["rate_factor"] == factors[-1]
        assert "rate_factor" not in observer.last.values["base"]
    recorded = Run(tmp_path).series("values", "0", "rate_factor")
    assert list(recorded.values) == factors
    panel = next(p for p in describe(tmp_path).runs[0].panels if p.key == "schedules")
    assert any("the rate in force" in getattr(figure, "title", "") for figure in panel.figures)
    assert "rate_factor" in panel.lead
