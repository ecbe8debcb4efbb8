"""Selectors as plain data: the documented forms, the round trip, and strangers' data."""

import json
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import SelectorError
from groupwise.select import (
    Selector,
    decode,
    depth,
    encode,
    inside,
    kind,
    magnitude,
    name,
    ndim,
    network,
    regex,
    role,
    shape,
    size,
    statistic,
    tag,
    where,
)
from groupwise.select.files import DEEPEST
from tests.select.samplers import fileable

FORMS: list[tuple[Any, Selector]] = [
    ("backbone.*", name("backbone.*")),
    (["backbone.*", "neck.*"], name("backbone.*") | name("neck.*")),
    ({"role": ["norm", "bias"]}, role("norm", "bias")),
    ({"role": "norm", "ndim": 1}, role("norm") & ndim(1)),
    ({"name": ["a.*", "b.*"], "kind": "Linear"}, (name("a.*") | name("b.*")) & kind("Linear")),
    ({"inside": "Block", "not": {"role": "bias"}}, inside("Block") & ~role("bias")),
    ({"not": "head.*"}, ~name("head.*")),
    ({"not": ["head.*", {"tag": "x"}]}, ~(name("head.*") | tag("x"))),
    (["head.*", {"role": ["norm", "bias"]}], name("head.*") | role("norm", "bias")),
    ({"depth": {"min": 1, "max": 3}}, depth(min=1, max=3)),
    ({"depth": [0, {"min": 4}]}, depth(0) | depth(min=4)),
    ({"size": {"max": 1000}}, size(max=1000)),
    ({"shape": [64, "*", 3]}, shape((64, None, 3))),
    ({"shape": [[64], ["*", 3]]}, shape((64,)) | shape((None, 3))),
    ({"shape": []}, shape(())),
    ({"network": "generator", "regex": "a.*b"}, network("generator") & regex("a.*b")),
    ({"magnitude": {"below": 0.1}}, magnitude(below=0.1)),
    ({"magnitude": {"above": 0.5, "of": "sparsity"}}, magnitude(above=0.5, of="sparsity")),
    ({"statistic": {"name": "grad_norm", "above": 1.0, "below": 2.0}}, statistic("grad_norm", above=1.0, below=2.0)),
    ({"any": ["a.*", {"tag": "x"}], "ndim": 2}, (name("a.*") | tag("x")) & ndim(2)),
    ({"all": ["a.*", "*.b"]}, name("a.*") & name("*.b")),
    ({"all": [{"not": "a"}, {"not": "b"}]}, ~name("a") & ~name("b")),
]


@pytest.mark.parametrize(("data", "meaning"), FORMS, ids=[str(data) for data, _ in FORMS])
def test_a_form_is_read_and_written_as_documented(data: Any, meaning: Selector) -> None:
    assert decode(data) == meaning
    assert encode(meaning) == data


@given(fileable)
def test_what_is_written_is_read_back_equal(s: Selector) -> None:
    data = encode(s)
    assert decode(data) == s
    assert decode(json.loads(json.dumps(data))) == s
    assert decode(yaml.safe_load(yaml.safe_dump(data, sort_keys=False))) == s


@given(fileable)
def test_encoding_is_stable(s: Selector) -> None:
    assert encode(decode(encode(s))) == encode(s)


def test_longer_forms_are_read_and_written_shorter() -> None:
    assert encode(decode([{"role": "norm"}, {"role": ["bias"]}])) == {"role": ["norm", "bias"]}
    assert encode(decode({"any": [["a.*"], "a.*"]})) == "a.*"
    assert encode(decode({"not": {"not": "a.*"}})) == "a.*"
    assert encode(decode({"depth": {"min": 2, "max": 2}})) == {"depth": 2}
    assert encode(decode({"statistic": {"name": "mean_abs", "above": 1}})) == {"magnitude": {"above": 1}}


def test_toml_says_it_as_the_documentation_does() -> None:
    text = 'match = { inside = "Block", depth = { min = 2 }, not = { role = ["norm", "bias"] } }'
    assert decode(tomllib.loads(text)["match"]) == inside("Block") & depth(min=2) & ~role("norm", "bias")


def test_yamls_habits_are_understood() -> None:
    assert decode(yaml.safe_load("size: {max: 1e6}")) == size(max=1_000_000)  # text to YAML, a number to people
    assert decode(yaml.safe_load("magnitude: {below: 1e-3}")) == magnitude(below=1e-3)
    assert decode(yaml.safe_load("shape: [64, null]")) == shape((64, None))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"roles": "norm"}, "unknown key 'roles'; did you mean 'role'"),
        ({True: 1}, "unknown key 'bool'"),
        ({"role": "nrm"}, "role: unknown role 'nrm'; did you mean 'norm'"),
        ({"role": 3}, "role: role takes text, not int"),
        ({"role": []}, "role: an empty list selects nothing"),
        ({"not": {"kind": {"a": 1}}}, "not: kind: kind takes text, not dict"),
        ({"depth": {"minimum": 1}}, "depth: unknown key 'minimum'; did you mean 'min'"),
        ({"depth": {}}, "depth: depth.. takes a number"),
        ({"depth": "deep"}, "depth: 'deep' is no number"),
        ({"size": 1.5}, "size: size.. counts"),
        ({"size": None}, "size: size.. takes a number"),
        ({"shape": 3}, "shape: a shape is a list of sizes"),
        ({"shape": [[1], 2]}, "shape: a shape is a list of sizes"),
        ({"magnitude": 0.1}, "magnitude: it takes a table of above, below, of"),
        ({"magnitude": {"below": 0.1, "of": ["norm"]}}, "unknown magnitude"),
        ({"magnitude": {"over": 0.1}}, "unknown key 'over'"),
        ({"statistic": {"above": 0.1}}, "statistic needs the name of one"),
        ({"any": "a.*"}, "any: it takes a list of selectors"),
        ({"all": []}, "all: an empty 'all' says nothing"),
        ({}, "an empty table selects nothing"),
        ([], "an empty list selects nothing"),
        (None, "NoneType is no selector; give a glob"),
        (b"a.*", "bytes is no selector"),
        ({"where": "lambda"}, "unknown key 'where'"),
    ],
)
def test_what_cannot_be_read_is_refused_where_it_stands(data: Any, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        decode(data)


KEYS = "name regex kind inside role network tag ndim size depth shape magnitude statistic not any all min max above of"
keys = st.sampled_from([*KEYS.split(), "below", "where", ""])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=6), st.binary(max_size=3),
    st.sampled_from(["norm", "1e3", "nan", "*", "mean_abs", "grad_norm"]),
)  # fmt: skip
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys | scalars, inner, max_size=3)),
    max_leaves=12,
)


def attempt(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, or None and the words in which it was refused."""
    try:
        return call(), ""
    except SelectorError as error:
        return None, str(error)


@given(plain)
def test_arbitrary_data_is_a_selector_or_a_selector_error(data: Any) -> None:
    chosen, refusal = attempt(lambda: decode(data))
    assert len(refusal) < 2000
    if chosen is not None:
        assert decode(encode(chosen)) == chosen


def nested(levels: int) -> Any:
    data: Any = "a.*"
    for _ in range(levels):
        data = {"not": {"tag": "x", "any": ["b.*", data]}}
    return data


@pytest.mark.parametrize("levels", [40, 5000])
def test_hostile_nesting_is_refused(levels: int) -> None:
    with pytest.raises(SelectorError, match=f"nests at most {DEEPEST} levels deep"):
        decode(nested(levels))


def test_data_that_contains_itself_is_refused() -> None:
    endless: list[Any] = ["a.*"]
    endless += [endless, endless]
    with pytest.raises(SelectorError, match="nests at most"):
        decode(endless)


def test_data_that_repeats_itself_without_end_is_refused_in_time() -> None:
    data: Any = ["a.*"]
    for _ in range(30):  # a billion parts, thirty lists
        data = [data, data]
    with pytest.raises(SelectorError, match="at most 100000 parts"):
        decode(data)


@given(fileable, st.integers(0, 2 * DEEPEST))
def test_what_can_be_written_can_be_read_at_any_depth(s: Selector, levels: int) -> None:
    for i in range(levels):
        s = ~(s & tag(str(i)))
    data, refusal = attempt(lambda: encode(s))
    assert "nests at most" in refusal or decode(data) == s


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: ~s, lambda s: s | "a.*", lambda s: role("norm") & s])
def test_a_predicate_is_python_only(wrap) -> None:
    with pytest.raises(SelectorError, match=r"where\(lambda\) is Python only: a file cannot hold a function"):
        encode(wrap(where(lambda info: True)))
