"""The schema of plan files, judged by a validator that is not ours: it takes every plan, and refuses what is none."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from groupwise import Plan
from groupwise.balance.methods import METHODS
from groupwise.balance.plan_table import decode as decode_balance
from groupwise.balance.plan_table import encode as encode_balance
from groupwise.errors import GroupwiseError
from groupwise.plan import json_schema
from groupwise.presets import names, preset
from groupwise.schedules import encode as encode_schedule
from groupwise.select import encode as encode_selector
from tests.cli.commands import PLAN, run
from tests.docs.pages import PAGES, Block, blocks_of
from tests.docs.running import NOT_A_PLAN
from tests.plan.refresh_schema import generated
from tests.plan.test_round_trip import plans, slow
from tests.schedules.samplers import schedules
from tests.select.samplers import selectors

SCHEMA = json.loads(json_schema.text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
BASE = {"match": "*", "optimizer": "AdamW", "lr": 1e-3}


def refused(data: object) -> list[str]:
    """What the validator has to say."""
    return [error.message for error in VALIDATOR.iter_errors(data)]


def with_rule(**fields: object) -> dict[str, Any]:
    return {"rule": [BASE | fields]}


def is_plan(data: Mapping[str, Any]) -> bool:
    """Whether groupwise reads it, the balance table by the balancer."""
    try:
        Plan.loads(json.dumps(data), allow=["package", "pytorch_optimizer"], format="json")
        if "balance" in data:
            decode_balance(data["balance"])
    except GroupwiseError:
        return False
    return True


def shown_plans() -> Iterator[Block]:
    for page in PAGES:
        yield from (b for b in blocks_of(page) if b.language in ("toml", "yaml", "json") and NOT_A_PLAN not in b.words)


def parsed(text: str, language: str) -> Any:
    return {"toml": tomllib.loads, "yaml": yaml.safe_load, "json": json.loads}[language](text)


def test_the_file_in_the_package_is_what_is_generated() -> None:
    assert json_schema.text() == generated(), "run: python -m tests.plan.refresh_schema"


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", names())
def test_every_preset_is_valid(name: str) -> None:
    assert refused(tomllib.loads(preset(name).text)) == []


@pytest.mark.parametrize("block", list(shown_plans()), ids=lambda block: block.place)
def test_every_plan_of_the_docs_is_valid(block: Block) -> None:
    assert refused(parsed(block.text, block.language)) == []


def test_a_plan_with_every_table_is_valid() -> None:
    assert refused(tomllib.loads(PLAN)) == []


@slow
@given(plans)
def test_every_plan_that_can_be_written_is_valid(plan: Plan) -> None:
    data = tomllib.loads(plan.dumps())
    data.pop("balance", None)  # any table at all in these samples
    assert refused(data) == []


@slow
@given(schedules)
def test_every_schedule_is_valid(schedule: Any) -> None:
    assert refused(with_rule(lr=encode_schedule(schedule))) == []


@slow
@given(selectors)
def test_every_selector_is_valid(selector: Any) -> None:
    assert refused(with_rule(match=encode_selector(selector))) == []


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_balancing_method_by_its_name_alone_is_valid_where_it_is_one(name: str) -> None:
    data = {"rule": [BASE], "balance": {"method": name}}
    assert is_plan(data) == (refused(data) == [])


@pytest.mark.parametrize(
    "table",
    [
        {"weights": {"seg": 1.0, "depth": {"linear": 0.0, "end": 0.5}}},
        {"method": "FAMO", "lr": 0.01, "floor": {"seg": 0.0, "depth": -1.0}},
        {"method": "Smoothed", "rate": 0.9, "of": {"method": "CAGrad", "c": 0.4}},
        {"method": "Smoothed", "rate": 0.9, "of": "NashMTL", "task_only": "weighted"},
        {"method": "Times", "losses": "DWA", "gradients": {"method": "CAGrad"}},
    ],
)
def test_balance_tables_are_valid(table: Mapping[str, Any]) -> None:
    assert decode_balance(table).method
    assert refused({"rule": [BASE], "balance": table}) == []
    written = encode_balance(decode_balance(table).method)
    assert refused({"rule": [BASE], "balance": written}) == []


BAD: Mapping[str, Any] = {
    "no rules": {},
    "a list that is empty": {"rule": []},
    "one table in place of a list": {"rule": BASE},
    "an unknown table": {"rule": [BASE], "rules": []},
    "parts without a match": {"rule": [BASE], "parts": [{"into": ["q", "k"]}]},
    "parts that take nothing apart": {"rule": [BASE], "parts": [{"match": "*"}]},
    "parts of a stack that is none": {"rule": [BASE], "parts": [{"match": "*", "stack": False}]},
    "parts in one table": {"rule": [BASE], "parts": {"match": "*", "into": ["q", "k"]}},
    "one part": {"rule": [BASE], "parts": [{"match": "*", "into": ["q"]}]},
    "two parts of one name": {"rule": [BASE], "parts": [{"match": "*", "into": ["q", "q"]}]},
    "a part that is no word": {"rule": [BASE], "parts": [{"match": "*", "into": ["q", "k@1"]}]},
    "sizes of nothing": {"rule": [BASE], "parts": [{"match": "*", "stack": True, "sizes": [1, 2]}]},
    "a part of no size": {"rule": [BASE], "parts": [{"match": "*", "into": ["q", "k"], "sizes": [0, 2]}]},
    "a stack that is flattened": {"rule": [BASE], "parts": [{"match": "*", "stack": True, "flatten": 1}]},
    "an unknown key of parts": {"rule": [BASE], "parts": [{"match": "*", "into": ["q", "k"], "dim": 0}]},
    "a rule without a match": {"rule": [{"optimizer": "AdamW"}]},
    "a rule that declares nothing": {"rule": [{"match": "*", "label": "base", "optional": True}]},
    "an empty label": with_rule(label=""),
    "an optimizer that is no name": with_rule(optimizer="torch.optim.AdamW"),
    "optional in words": with_rule(optional="yes"),
    "an unknown selector": with_rule(match={"rolle": "norm"}),
    "an unknown role": with_rule(match={"role": "norms"}),
    "an empty selector": with_rule(match={}),
    "an unknown key of a range": with_rule(match={"ndim": {"least": 2}}),
    "an unknown statistic": with_rule(match={"statistic": {"name": "grad_nrm", "above": 1}}),
    "a number for a glob": with_rule(match=3),
    "an unknown schedule": with_rule(lr={"cosin": 1e-3}),
    "a bare number for a length": with_rule(lr={"cosine": 1e-3, "warmup": 500}),
    "a length without a unit": with_rule(lr={"cosine": 1e-3, "warmup": "500"}),
    "an unknown unit": with_rule(lr={"cosine": 1e-3, "warmup": "5 hours"}),
    "an argument of another schedule": with_rule(lr={"cosine": 1e-3, "gamma": 0.1}),
    "a missing argument": with_rule(lr={"multi_step": 1e-3, "gamma": 0.1}),
    "a word that a schedule does not know": with_rule(lr={"one_cycle": 1e-3, "shape": "round"}),
    "a function": with_rule(lr={"function": "f"}),
    "two schedules in one table": with_rule(lr={"cosine": 1e-3, "linear": 1e-3}),
    "a schedule inside one, misspelt": with_rule(lr={"then": [{"constant": 0.1}, {"liner": 0.1}], "at": "80%"}),
    "one schedule where two belong": with_rule(lr={"then": [{"constant": 0.1}], "at": "80%"}),
    "an empty table": with_rule(lr={}),
    "a factor and a schedule": with_rule(lr={"scale": 0.1, "cosine": 1e-3}),
    "a factor below zero": with_rule(lr={"scale": -1.0}),
    "a decay above one": with_rule(lr={"layer_decay": 1.5}),
    "a floor without a decay": with_rule(lr={"scale": 0.1, "floor": 0.1}),
    "exact with another key": with_rule(lr={"exact": 1.0, "scale": 0.1}),
    "a clip without a kind": with_rule(clip={"per": "module"}),
    "two kinds of clip": with_rule(clip={"norm": 1.0, "value": 1.0}),
    "a bound of zero": with_rule(clip={"norm": 0}),
    "an unknown scope": with_rule(clip={"norm": 1.0, "per": "layer"}),
    "an option of another clip": with_rule(clip={"value": 1.0, "per": "module"}),
    "clip by a number": with_rule(clip=1.0),
    "clip by true": with_rule(clip=True),
    "trainable in words": with_rule(trainable="no"),
    "two moments": with_rule(trainable={"after": "1 epoch", "until": "2 epochs"}),
    "an unknown moment": with_rule(trainable={"from": "1 epoch"}),
    "a moment without a unit": with_rule(trainable={"after": 5}),
    "a hyperparameter that is no word": with_rule(**{"weight decay": 0.1}),
    "a value that is no schedule": {"rule": [BASE], "values": {"teacher": 0.99}},
    "an unknown balancing method": {"rule": [BASE], "balance": {"method": "CAGrat"}},
    "an argument of another method": {"rule": [BASE], "balance": {"method": "CAGrad", "temperature": 2.0}},
    "no method and no weights": {"rule": [BASE], "balance": {"task_only": "weighted"}},
    "an unknown choice for task_only": {"rule": [BASE], "balance": {"method": "CAGrad", "task_only": "raw"}},
    "an inner method that is none": {"rule": [BASE], "balance": {"method": "Smoothed", "rate": 0.9, "of": "CAGrat"}},
}


@pytest.mark.parametrize("data", list(BAD.values()), ids=list(BAD))
def test_what_is_no_plan_is_refused_by_both(data: Mapping[str, Any]) -> None:
    assert not is_plan(data)
    assert refused(data)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a plan's data."""
    keys = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, inner in keys:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(data: Any, path: tuple[Any, ...], how: str, junk: Any) -> Any:
    """A copy with another value at a place, without it, or with its key misspelt."""
    copy = json.loads(json.dumps(data))
    *outer, last = path
    inside = copy
    for key in outer:
        inside = inside[key]
    if how == "replace" or isinstance(inside, list):
        inside[last] = junk
    elif how == "drop":
        del inside[last]
    else:
        inside[f"{last}x"] = inside.pop(last)
    return copy


GOOD = [tomllib.loads(text) for text in (PLAN, *(preset(name).file for name in names()))]
junk = st.sampled_from(
    [None, True, False, 0, -1, 0.5, 7, "", "x", "5%", "norm", "AdamW", "1e-3", [], ["*"], {}, {"min": 2}]
)


@slow
@given(st.data())
def test_what_the_schema_refuses_no_plan_is(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(GOOD))
    path = data.draw(st.sampled_from(list(places(good))))
    bad = changed(good, path, data.draw(st.sampled_from(["replace", "drop", "rename"])), data.draw(junk))
    if refused(bad) and "null" not in json.dumps(bad):
        assert not is_plan(bad), f"{path}: {refused(bad)}"


def test_the_command_prints_the_schema_and_writes_it(tmp_path: Any) -> None:
    assert run("schema").stdout == json_schema.text()
    out = tmp_path / "plan.schema.json"
    out.write_text("an older one")
    assert run("schema", "--out", out).exit_code == 0
    assert out.read_text() == json_schema.text()


def test_a_schema_in_no_directory_is_refused(tmp_path: Any) -> None:
    done = run("schema", "-o", tmp_path / "none" / "schema.json")
    assert done.exit_code == 2
    assert "there is no directory" in done.stderr
