"""All that is wrong with a plan is told in one error; what many parameters share is told once."""

import pytest
from torch import nn

from groupwise import Plan, Rule, scale
from groupwise.errors import GroupwiseError, PlanError, ResolutionError
from groupwise.optim import resolve
from tests.plan.models import Net, base


def message(*rules: Rule, model: nn.Module | None = None) -> str:
    with pytest.raises(GroupwiseError, match=r"mistakes:|no declared") as caught:
        resolve(model or Net(), Plan(list(rules)))
    return str(caught.value)


def test_a_lost_value_and_a_missing_rate_are_told_together() -> None:
    told = message(base(weight_decay=0.05), Rule("head.*", optimizer="SGD", momentum=0.9))
    assert told.startswith("2 mistakes:")
    assert "would silently lose weight_decay=0.05" in told
    assert "would silently lose lr=0.001" not in told  # the default of SGD: what is missing is a declaration
    assert "has no declared lr" in told


def test_every_unknown_hyperparameter_is_told() -> None:
    told = message(base(wd=0.1, learning_rat=1e-3))
    assert told.startswith("2 mistakes:")
    assert "wd" in told
    assert "learning_rat" in told


def test_rules_that_match_nothing_are_told_with_what_else_is_wrong() -> None:
    told = message(base(weight_decay="0.1"), Rule("haed.*", lr=1e-2), Rule("boddy.*", lr=1e-2))
    assert told.startswith("3 mistakes:")
    assert all(part in told for part in ("haed", "boddy", "weight_decay must be a number"))


def test_dead_rules_and_parameters_without_an_optimizer_are_told_together() -> None:
    told = message(Rule("head.*", lr=1e-2), Rule("head.*", optimizer="SGD", lr=1e-3))
    assert told.startswith("2 mistakes:")
    assert "has no effect" in told
    assert "no optimizer" in told


def test_a_mistake_of_many_parameters_is_told_once_with_their_number() -> None:
    stack = nn.Sequential(*[nn.Linear(4, 4) for _ in range(12)])
    told = message(base(betas=0.9), Rule("*", weight_decay=scale(0.5), amsgrad=scale(0.5)), model=stack)
    assert told.count("amsgrad is False by default") == 1
    by_depth = message(
        Rule("*", optimizer="AdamW"), Rule("0.*", lr=scale(0.5)), Rule("1.*", lr=scale(0.1)), model=stack
    )
    assert by_depth.count("has no declared lr") == 1
    assert "(the same for " in by_depth


def test_a_long_list_is_cut_and_counted() -> None:
    told = message(base(), *(Rule(f"nothing{i}", lr=1e-2) for i in range(11)))
    assert told.startswith("11 mistakes:")
    assert told.endswith("  and 3 more")


def test_one_mistake_is_raised_as_it_is() -> None:
    with pytest.raises(PlanError, match=r"^rule 1 'base', for .*: AdamW has no hyperparameter 'wd': say weight_decay="):
        resolve(Net(), Plan([base(wd=0.1)]))


def test_mistakes_of_several_kinds_are_a_resolution_error() -> None:
    with pytest.raises(ResolutionError, match=r"(?s)^2 mistakes:.*matches no parameter.*has no hyperparameter"):
        resolve(Net(), Plan([base(wd=0.1), Rule("haed", lr=1e-2)]))


FILE = """
[[rule]]
match = "*"
optimizer = "AdamW"
lr = { cosin = 1e-3 }
weight_decay = { scale = "x" }
clip = { norm = -1 }

[[rule]]
mtach = "head"
lr = 0.1

[vlaues]
teacher = { cosine = 0.996 }

[values]
student = 3

[depth]
head = -1

[[parts]]
match = "*.qkv.weight"
intoo = ["q", "k", "v"]
"""


def test_every_mistake_of_a_file_is_told_with_the_line_of_its_table() -> None:
    with pytest.raises(PlanError, match=r"^8 mistakes:") as said:
        Plan.loads(FILE)
    told = str(said.value).splitlines()[1:]
    for line, (place, what) in zip(told, [
        ("", "unknown table 'vlaues'"), ("line 2: rule 1: ", "clip_norm must be positive"),
        ("line 2: rule 1: ", "unknown schedule 'cosin'"), ("line 2: rule 1: ", "weight_decay: scale must be a finite"),
        ("line 9: rule 2: ", "it has no match; did you mean match by 'mtach'?"),
        ("line 22: parts 1: ", "unknown key 'intoo'; did you mean 'into'?"), ("values.student: ", "a value is a"),
        ("depth of 'head': ", "a level is a whole number"),
    ], strict=True):  # fmt: skip
        assert place in line
        assert what in line


def test_one_mistake_of_a_file_is_told_as_it_is() -> None:
    with pytest.raises(PlanError, match=r"^rule 1: lr: unknown schedule 'cosin'"):
        Plan.loads('[[rule]]\nmatch = "*"\nlr = { cosin = 1e-3 }')
