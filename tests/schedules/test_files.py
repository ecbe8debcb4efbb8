"""Schedules as plain data: one table per schedule, the constructor's own arguments, and no other errors."""

import json
import math
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import GroupwiseError, ScheduleError
from groupwise.schedules import (
    Schedule,
    constant,
    cosine,
    decode,
    encode,
    function,
    is_table,
    linear,
    multi_step,
    piecewise,
    plateau,
    steps,
    triangular,
)
from groupwise.schedules.arguments import signature
from groupwise.schedules.files import KINDS
from tests.schedules.samplers import schedules

TABLES = [
    ('{ cosine = 3e-4, warmup = "5%" }', cosine(3e-4, warmup="5%")),
    ('{ linear = 0.1, end = 0.0, over = "80%" }', linear(0.1, over="80%")),
    ("{ constant = 1 }", constant(1.0)),
    ('{ multi_step = 0.1, gamma = 0.1, at = ["50%", "75%"] }', multi_step(0.1, 0.1, at=["50%", "75%"])),
    ('{ triangular = 0.0, high = 1, up = "10 steps" }', triangular(0.0, 1.0, up=steps(10))),
    ('{ piecewise = [["0%", 1], ["50%", 0.1]], shape = "held" }', piecewise([("0%", 1), ("50%", 0.1)], shape="held")),
    ('{ then = [{ constant = 1 }, { linear = 1 }], at = "80%" }', constant(1.0).then(linear(1.0), at="80%")),
    ("{ scaled = { cosine = 3e-4 }, by = 0.1 }", cosine(3e-4).scaled(0.1)),
    ("{ scaled = { cosine = 3e-4 }, by = { linear = 0, end = 1 } }", cosine(3e-4).scaled(linear(0.0, 1.0))),
    ("{ clamped = { linear = 0.1 }, low = 0.0 }", linear(0.1).clamped(low=0.0)),
    ("{ plateau = 0.1, patience = 5 }", plateau(0.1, patience=5)),
]


@pytest.mark.parametrize(("text", "meant"), TABLES)
def test_a_table_in_toml_means_the_expression_in_python(text: str, meant: Schedule) -> None:
    table = tomllib.loads(f"lr = {text}")["lr"]
    assert is_table(table)
    assert decode(table) == meant


@given(schedules)
def test_decoding_what_was_encoded_gives_the_schedule_back(s: Schedule) -> None:
    assert decode(encode(s)) == s
    assert decode(json.loads(json.dumps(encode(s)))) == s


@given(schedules)
def test_encoding_leaves_defaults_out(s: Schedule) -> None:
    for name, field in list(signature(type(s)).items())[1:]:
        assert (name in encode(s)) == (getattr(s, field.name) != field.default)


def test_every_shape_is_named_by_the_public_name_of_its_constructor() -> None:
    import groupwise.schedules as public

    combinators = {"then", "scaled", "clamped"}
    assert {name: getattr(public, name) for name in KINDS if name not in combinators} == {
        name: cls for name, cls in KINDS.items() if name not in combinators
    }
    assert set(KINDS) - combinators < set(public.__all__)


def test_a_number_that_yaml_reads_as_text_is_still_a_number() -> None:
    table = yaml.safe_load("{cosine: 1e-3, end: 1e-5, warmup: 5%}")
    assert table["cosine"] == "1e-3"
    assert decode(table) == cosine(1e-3, 1e-5, warmup="5%")
    points = yaml.safe_load("{piecewise: [[0%, 1e-3], [50%, 1e-4]]}")
    assert decode(points) == piecewise([("0%", 1e-3), ("50%", 1e-4)])
    assert decode(yaml.safe_load("{scaled: {constant: 1}, by: 1e-1}")) == constant(1.0).scaled(0.1)
    assert decode(yaml.safe_load("{plateau: 1e-1, patience: '5'}")) == plateau(0.1, patience=5)


def test_a_null_is_an_absent_option() -> None:
    assert decode({"cosine": 1, "over": None, "warmup": None}) == cosine(1.0)


def test_a_function_is_python_only() -> None:
    s = function(math.sqrt)
    for holder in (s, s.scaled(0.1), constant(1.0).then(s, at="50%")):
        with pytest.raises(ScheduleError, match=r"function\(sqrt\) is Python only and cannot be written"):
            encode(holder)
    assert is_table({"function": "math.sqrt"})
    with pytest.raises(ScheduleError, match="function is Python only: a file cannot hold one"):
        decode({"function": "math.sqrt"})


@pytest.mark.parametrize(
    ("value", "answer"),
    [({"cosine": 1}, True), ({"then": 1, "x": 2}, True), ({"scale": 0.1}, False), ({}, False), ({1: 2}, False),
     (0.1, False), ("cosine", False), (["cosine"], False), (None, False)],
)  # fmt: skip
def test_a_table_is_a_schedules_when_it_names_one(value: object, answer: bool) -> None:
    assert is_table(value) is answer


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"cosin": 1, "warmup": "5%"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"warmup": "5%"}, r"no schedule is named: \{'warmup': '5%'\}"),
        ({}, r"no schedule is named: \{\}"),
        ({"cosine": 1, "linear": 1}, "a table names one schedule; this one names cosine, linear"),
        ({"cosine": 1, "warm_up": "5%"}, "cosine: unknown key 'warm_up'; did you mean 'warmup'"),
        ({"cosine": 1, "start": 1}, "cosine: unknown key 'start'.* end, over, warmup"),
        ({"cosine": 1, 5: 1}, "cosine: unknown key '5'"),
        ({"step_decay": 0.1}, "step_decay: gamma, every is not given"),
        ({"cosine": "fast"}, "cosine: peak: 'fast' is not a number"),
        ({"cosine": "nan"}, "cosine: peak: nan is not a finite number"),
        ({"cosine": True}, "cosine: peak: True is not a number"),
        ({"cosine": 1, "warmup": 5}, "cosine: warmup: a bare number is never a length"),
        ({"cosine": 1, "warmup": "5"}, "cosine: warmup: a bare number is never a length"),
        ({"constant": {"cosine": 1}}, r"constant: value: cosine\(1\.0\) is not a number"),
        ({"constant": {"x": 1}}, "constant: unknown schedule 'x'"),
        ({"then": [{"constant": 1}], "at": "5%"}, r"then: pair: \[constant\(1\.0\)\] is not a pair of schedules"),
        ({"scaled": 0.1, "by": 2}, r"scaled: schedule: 0\.1 is not a schedule"),
        (
            {"then": [{"constant": 1}, {"cosine": 1, "warmup": "x"}], "at": "5%"},
            "then: cosine: warmup: 'x' is not a len",
        ),
        (0.1, r"a schedule is a table such as \{ cosine = 3e-4 \}, not 0\.1"),
        ("cosine", "a schedule is a table"),
        (None, "a schedule is a table"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_what_would_be_right(table: Any, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        decode(table)


def _nested(levels: int, wrap: Any) -> Any:
    value: Any = {"constant": 1.0}
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: {"scaled": inner, "by": 0.5},
        lambda inner: {"then": [{"constant": 1}, inner], "at": "50%"},
        lambda inner: {"constant": [inner]},
        lambda inner: {"constant": [[inner]]},
    ],
)
def test_nesting_has_a_limit_and_it_is_not_the_interpreters(wrap: Any) -> None:
    for levels in (40, 200, 100_000):
        with pytest.raises(ScheduleError, match=r"levels deep|schedules inside one another|is not a"):
            decode(_nested(levels, wrap))


def test_data_that_contains_itself_is_an_error() -> None:
    table: dict[str, Any] = {"by": 1.0}
    table["scaled"] = table
    with pytest.raises(ScheduleError, match="nested more than 68 levels deep"):
        decode(table)
    points: list[Any] = []
    points.append(points)
    with pytest.raises(ScheduleError, match="nested more than 68 levels deep"):
        decode({"piecewise": points})


def test_the_deepest_schedule_that_can_be_built_can_be_written_and_read() -> None:
    s: Schedule = constant(1.0)
    for _ in range(32):
        s = s.then(constant(2.0), at="50%")
    assert decode(encode(s)) == s


words = st.one_of(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(sorted({name for cls in KINDS.values() for name in signature(cls)})),
    st.text(max_size=6),
)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    words,
    st.sampled_from(["5%", "0 steps", "1e-3", "nan", "1e999 steps", "2 epochs", "9" * 500]),
)
anything = st.recursive(
    atoms,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(words, atoms), inner, max_size=5)),
    max_leaves=15,
)
near_tables = st.builds(
    lambda kind, first, rest: {kind: first, **rest},
    st.sampled_from(sorted(KINDS)),
    anything,
    st.dictionaries(words, anything, max_size=4),
)


@given(st.one_of(anything, near_tables))
def test_arbitrary_plain_data_is_a_schedule_or_one_of_our_errors(data: Any) -> None:
    try:
        s = decode(data)
    except GroupwiseError:
        return
    assert decode(encode(s)) == s


@pytest.mark.parametrize(
    "table",
    [{"cosine": 10**6000}, {"cosine": 1, 10**6000: 1}, {10**6000: 1}, 10**6000],
    ids=["as a value", "as a key", "as the only key", "as the table"],
)
def test_a_number_too_long_to_print_does_not_break_the_message(table: Any) -> None:
    with pytest.raises(ScheduleError, match="an int too long to print"):
        decode(table)
