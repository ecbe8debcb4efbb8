"""Optimizers of other packages, where they are installed: as engines beside AdamW they step as alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, scale
from groupwise.errors import ResolutionError
from tests.contract.mixes import assert_same
from tests.contract.test_third_party import net, run, switch

ENGINES: dict[str, dict[str, Any]] = {
    "schedulefree:AdamWScheduleFree": {"lr": 1e-2, "warmup_steps": 3},
    "schedulefree:SGDScheduleFree": {"lr": 1e-2},
    "prodigyopt:Prodigy": {"lr": 1.0},
    "optimi:AdamW": {"lr": 1e-2},
    "optimi:Lion": {"lr": 1e-3},
    "optimi:StableAdamW": {"lr": 1e-2},
    "heavyball:AdamW": {"lr": 1e-2},
    "heavyball:SGD": {"lr": 1e-2},
    "torchao.optim:AdamW8bit": {"lr": 1e-2},
    "torchao.optim:AdamW4bit": {"lr": 1e-2},
    "torchao.optim:AdamWFp8": {"lr": 1e-2},
}
# heavyball and torchao compile their steps: one of them does so here, the others run as they are written.
COMPILED = "heavyball:SGD"
REFUSED = {"heavyball:SOAP": "keeps progress in its attribute"}


def class_of(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(pytest.importorskip(module), attribute)


def large() -> nn.Sequential:
    """Layers of 4,096 entries, from which on torchao keeps states in few bits."""
    torch.manual_seed(1)
    return nn.Sequential(*(nn.Linear(64, 64) for _ in range(3)))


@pytest.fixture
def as_written(name: str) -> Iterator[None]:
    with torch.compiler.set_stance("default" if name == COMPILED else "force_eager"):
        yield


@pytest.mark.usefixtures("as_written")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_of_another_package_steps_as_alone(name: str) -> None:
    cls, values = class_of(name), ENGINES[name]
    make = large if "torchao" in name else net
    ours, theirs = make(), make()
    factor = 1.0 if "Prodigy" in name else 0.5  # it refuses a second rate, and so does its plan
    rules = [Rule("*", optimizer="AdamW", lr=1e-2), Rule("1.*", optimizer=name, **values)]
    optimizer = GroupedOptimizer(ours, Plan([*rules, Rule("1.bias", lr=scale(factor))]))
    slow = {"params": [theirs[1].bias], "lr": values["lr"] * factor}
    rest = [p for i, layer in enumerate(theirs) if i != 1 for p in layer.parameters()]
    separate = [cls([{"params": [theirs[1].weight]}, slow], **values), torch.optim.AdamW(rest, lr=1e-2)]
    switch("train", optimizer, *separate)
    run(ours, range(6), optimizer)
    run(theirs, range(6), *separate)
    switch("eval", optimizer, *separate)
    assert_same(ours, theirs)


@pytest.mark.usefixtures("as_written")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "match"), REFUSED.items(), ids=REFUSED)
def test_progress_on_the_object_is_refused(name: str, match: str) -> None:
    importlib.import_module(class_of(name).__module__)
    with pytest.raises(ResolutionError, match=match):
        GroupedOptimizer(net(), Plan([Rule("*", optimizer=name, lr=1e-3)]))
