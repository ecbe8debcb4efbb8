"""A plan and its file are the same value: `Plan.loads(plan.dumps()) == plan`, and TOML, YAML and JSON say the same."""

import errno
import json
import keyword
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groupwise import (
    Parts,
    Plan,
    Rule,
    after,
    clip_adaptive,
    clip_norm,
    clip_value,
    exact,
    gradient_share,
    layer_decay,
    scale,
    trust_ratio,
    unfreeze_down,
    until,
    update_ratio,
)
from groupwise.errors import PlanError
from groupwise.plan import Clip
from groupwise.schedules import constant, cosine, function
from groupwise.select import Selector, role, where
from tests.schedules.samplers import lengths, schedules
from tests.select.samplers import selectors

FIELDS = {"match", "label", "optimizer", "trainable", "clip", "optional", "extra"}

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
words = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda w: w not in FIELDS and not keyword.iskeyword(w))
numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1))
plain = st.one_of(numbers, st.booleans(), texts.filter(lambda text: not _spells_a_number(text)), schedules)
values = st.one_of(plain, st.lists(plain, max_size=3).map(tuple))
scales = st.one_of(st.floats(0, 1e3), schedules).map(scale)
decays = st.floats(0, 1, exclude_min=True).map(layer_decay)
around = {"low": st.floats(0, 1, exclude_min=True), "high": st.floats(1, 1e3, exclude_min=True)}
measured = st.one_of(
    st.builds(
        trust_ratio,
        st.floats(1e-6, 1e3),
        of=st.sampled_from(["update", "gradient"]),
        per=st.sampled_from(["parameter", "group"]),
        low=st.floats(0, 1),
        high=st.none() | st.floats(1, 1e3, exclude_min=True),
    ),
    st.builds(update_ratio, st.floats(1e-6, 1), speed=st.floats(0, 1, exclude_min=True), **around),
    st.builds(
        gradient_share,
        st.floats(-2, -0.1) | st.floats(0.1, 2),
        per=st.sampled_from(["module", "parameter", "group", "network"]),
        smoothing=st.floats(0, 1, exclude_max=True),
        **around,
    ),
)
factors = st.one_of(
    measured,
    st.builds(lambda a, b: a * b, measured, decays),
    scales,
    decays,
    st.builds(lambda a, b: a * b, scales, decays),
    st.builds(lambda a, b: b * a, scales, decays),
)
declared = st.one_of(values, factors, values.map(exact), st.lists(st.one_of(plain, factors), max_size=2).map(tuple))
bounds = st.floats(1e-6, 1e6)
clips: st.SearchStrategy[Clip] = st.one_of(
    st.builds(clip_norm, bounds, st.sampled_from(["rule", "network", "module", "parameter"])),
    st.builds(clip_value, bounds),
    st.builds(clip_adaptive, bounds, bounds),
)
timelines = st.one_of(st.booleans(), *(lengths().map(moment) for moment in (after, until, unfreeze_down)))
rules = st.builds(
    lambda match, own, hyperparameters, extra: Rule(
        match, **own, **hyperparameters, extra={k: v for k, v in extra.items() if k not in hyperparameters}
    ),
    selectors,
    st.fixed_dictionaries(
        {"trainable": timelines},
        optional={
            "label": texts,
            "optimizer": st.sampled_from(["AdamW", "SGD", "package.module:Class"]),
            "clip": st.one_of(clips, st.just(False)),
            "optional": st.booleans(),
        },
    ),
    st.dictionaries(words, declared, max_size=3),
    st.dictionaries(words.filter(lambda w: w not in ("params", "name", "network", "frozen")), declared, max_size=2),
)
weights = st.one_of(
    st.floats(0, 9), schedules.map(lambda s: tomllib.loads(Plan([BASE], values={"x": s}).dumps())["values"]["x"])
)
balances = st.fixed_dictionaries(
    {}, optional={"method": texts, "weights": st.dictionaries(texts, weights), "more": st.lists(texts)}
)
names_of_parts = st.lists(st.sampled_from(["q", "k", "v", "gate", "up"]), min_size=2, max_size=3, unique=True)
readings = st.sampled_from([{}, {"stack": True}, {"flatten": 1}, {"flatten": 3}, {"stack": True, "optional": True}])
splits = st.builds(
    lambda into, sizes, axis: {"into": into, "axis": axis, **({"sizes": sizes[: len(into)]} if sizes else {})},
    names_of_parts,
    st.none() | st.lists(st.integers(1, 99), min_size=3, max_size=3),
    st.integers(-3, 3),
)
parts = st.builds(
    lambda match, split, reading: Parts(match, **split, **reading),
    selectors,
    splits,
    readings,
) | st.builds(lambda match, reading: Parts(match, **reading), selectors, readings.filter(bool))
plans = st.builds(
    Plan,
    st.lists(rules, min_size=1, max_size=3),
    clip=st.none() | clips,
    values=st.dictionaries(texts, schedules, max_size=2),
    balance=st.none() | balances,
    depth=st.dictionaries(texts, st.integers(0, 99), max_size=2),
    parts=st.lists(parts, max_size=2),
)
slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

BASE = Rule("*", optimizer="AdamW", lr=1e-3)


def _spells_a_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@slow
@given(plans)
def test_loading_what_was_dumped_gives_the_plan_back(plan: Plan) -> None:
    again = Plan.loads(plan.dumps(), allow=["package"])
    assert again == plan
    assert again.dumps() == plan.dumps()
    assert [rule.label for rule in again.rules] == [rule.label for rule in plan.rules]


@slow
@given(plans)
def test_toml_yaml_and_json_are_the_same_plan(plan: Plan) -> None:
    data = tomllib.loads(plan.dumps())
    assert Plan.loads(json.dumps(data), allow=["package"], format="json") == plan
    assert Plan.loads(yaml.safe_dump(data, sort_keys=False), allow=["package"], format="yaml") == plan


PYTHON_ONLY: dict[str, tuple[Rule, str]] = {
    "a predicate": (Rule(where(lambda info: True), lr=0.1), "rule 'where\\(lambda\\)': .* is Python only"),
    "a function of the parameter": (Rule("*", lr=scale(lambda info: 1.0)), r"rule 'base': lr: scale\(function\) is"),
    "a function of the step": (Rule("*", lr=function(float)), r"function\(float\) is Python only and cannot be"),
    "a factor twice": (Rule("*", lr=scale(0.1) * scale(0.2)), r"holds one scale per table: write scale\(0.1\) \*"),
    "None": (Rule("*", foreach=None), "None has no form in a plan file: leave the hyperparameter out"),
    "text that reads as a number": (Rule("*", mode="1e-3"), "the text '1e-3' has no form in a plan file, which reads"),
    "a class inside a function": (Rule("*", optimizer=type("f.<locals>.Own", (), {})), "is not a name|lives inside a"),
    "half a character": (Rule("*", lr=0.1, label="\ud800"), r"'\\ud800' is not Unicode text"),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "message"), PYTHON_ONLY.values(), ids=PYTHON_ONLY)
def test_what_only_python_can_say_is_not_written(rule: Rule, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan([BASE, rule]).dumps()


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), None])
def test_what_has_no_form_in_a_file_is_not_written(value: Any) -> None:
    with pytest.raises(PlanError, match=r"has no form in a plan file"):
        Plan([BASE], balance={"method": value}).dumps()


def test_the_file_reads_like_the_sentences_of_the_plan() -> None:
    plan = Plan(
        [
            Rule("*", optimizer="AdamW", lr=cosine(3e-4, warmup="5%"), weight_decay=0.05, clip=clip_norm(1.0)),
            Rule(role("norm") | role("bias"), weight_decay=0.0),
            Rule(
                ["backbone.*", "neck.*"], lr=scale(0.1) * layer_decay(0.75), label="body", trainable=after("2 epochs")
            ),
        ],
        clip=clip_value(5.0),
        values={"teacher": cosine(0.996, end=1.0)},
        balance={"method": "Static", "weights": {"left": 1.0}},
    )
    assert plan.dumps() == TEXT
    assert Plan.loads(TEXT) == plan


TEXT = """\
clip = { value = 5.0 }

[[rule]]
match = "*"
optimizer = "AdamW"
lr = { cosine = 0.0003, warmup = "5%" }
weight_decay = 0.05
clip = { norm = 1.0 }

[[rule]]
match = { role = ["norm", "bias"] }
weight_decay = 0.0

[[rule]]
label = "body"
match = ["backbone.*", "neck.*"]
lr = { scale = 0.1, layer_decay = 0.75 }
trainable = { after = "2 epochs" }

[values]
teacher = { cosine = 0.996, end = 1.0 }

[balance]
method = "Static"
weights = { left = 1.0 }
"""


def test_dump_writes_a_whole_file_that_load_reads(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    plan = Plan([BASE])
    plan.dump(path)
    plan.dump(str(path))
    assert Plan.load(path) == Plan.load(str(path)) == plan
    assert list(tmp_path.iterdir()) == [path]


def test_a_dumped_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    Plan([BASE]).dump(tmp_path / "plan.toml")
    assert (tmp_path / "plan.toml").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.toml"
    Plan([BASE]).dump(path)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*plan.toml'"):
        Plan([BASE, Rule("head.*", lr=constant(0.1))]).dump(path)
    monkeypatch.undo()
    assert Plan.load(path) == Plan([BASE])
    assert list(tmp_path.iterdir()) == [path]


def test_a_plan_that_cannot_be_written_touches_no_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"is Python only"):
        Plan([BASE, Rule(where(lambda info: True), lr=0.1)]).dump(tmp_path / "plan.toml")
    with pytest.raises(PlanError, match=r"no/plan.toml: cannot write the file: there is no directory"):
        Plan([BASE]).dump(tmp_path / "no" / "plan.toml")
    with pytest.raises(PlanError, match=r"plan.json: plans are written as TOML; give the file the suffix .toml"):
        Plan([BASE]).dump(tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == []


def _chosen(match: Selector | str) -> Selector:
    return Rule(match, lr=0.1).match


def test_the_selector_of_a_rule_survives_as_a_selector() -> None:
    for match in ("*", role("norm") & ~_chosen("head.*"), _chosen("a") - "b"):
        plan = Plan([BASE, Rule(match, lr=0.1)])
        assert Plan.loads(plan.dumps()).rules[1].match == _chosen(match)
