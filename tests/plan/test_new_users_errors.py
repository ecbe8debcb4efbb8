"""What a first attempt gets wrong is answered in the words of the attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from groupwise import Balancer, GroupedOptimizer, Plan, Rule, scale
from groupwise.errors import GroupwiseError, ResolutionError, StateError
from groupwise.optim import resolve
from groupwise.schedules import constant, cosine

HEAD = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("attempt", "answer"),
    [
        (lambda: Rule(HEAD, lr=1e-3), r"Linear is not a selector; .* dotted path: \"head\""),  # type: ignore[arg-type]
        (lambda: Rule(HEAD.weight, lr=1e-3), r"Parameter is not a selector; .* as in \"head.weight\""),  # type: ignore[arg-type]
        (lambda: cosine(1e-3) * 0.1, r"cosine\(1e-3\) is a value over time and no number.*lr=scale\(0.1\)"),  # type: ignore[operator]
        (lambda: 0.1 * constant(1e-3), "is a value over time"),  # type: ignore[operator]
        (lambda: cosine(1e-3) + cosine(1e-4), "is a value over time"),  # type: ignore[operator]
        (lambda: Balancer({"a": 1.0}), r"no balancing method: fixed weights are Static\(\{'a': 1.0\}\)"),  # type: ignore[arg-type]
    ],
)
def test_a_first_attempt_is_told_what_was_meant(attempt: Callable[[], Any], answer: str) -> None:
    with pytest.raises(GroupwiseError, match=answer):
        attempt()


@pytest.mark.parametrize("name", ["Lion", "SOAP", "AdamW8bit", "Prodigy"])
def test_an_optimizer_of_another_package_is_not_taken_for_a_typing_mistake(name: str) -> None:
    with pytest.raises(GroupwiseError, match=f"torch.optim has no {name}; one of another package") as said:
        resolve(nn.Linear(2, 2), Plan([Rule("*", optimizer=name, lr=1e-3)]))
    assert "did you mean" not in str(said.value)


def test_every_unknown_optimizer_and_every_rule_that_matches_nothing_is_told() -> None:
    plan = Plan([
        Rule("*", optimizer="AdmW", lr=1e-3), Rule("haed", lr=scale(0.1)), Rule("weight", optimizer="SDG", lr=0.1),
    ])  # fmt: skip
    with pytest.raises(ResolutionError, match=r"3 mistakes:(.|\n)*'AdmW'(.|\n)*'SDG'(.|\n)*'haed' matches no"):
        resolve(nn.Linear(2, 2), plan)


def test_a_path_is_no_checkpoint() -> None:
    optimizer = GroupedOptimizer(nn.Linear(2, 2), Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    with pytest.raises(StateError, match=r"a state_dict is a mapping, not str: load a file first"):
        optimizer.load_state_dict("checkpoint.pt")  # type: ignore[arg-type]
