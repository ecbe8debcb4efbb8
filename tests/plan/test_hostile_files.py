"""Plan files from strangers: whatever is in them, reading ends, runs nothing, and raises nothing but our own errors."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groupwise import Plan
from groupwise._formats import LARGEST
from groupwise.errors import GroupwiseError, PlanError
from groupwise.plan import Algorithm
from groupwise.plan.plan_file import decode
from groupwise.schedules.files import KINDS
from groupwise.select import parameters_of
from groupwise.select.files import KEYS as SELECTOR_KEYS
from tests.plan.models import Net

HEAD = '[[rule]]\nmatch = "*"\noptimizer = "AdamW"\n'


def bomb(first: str, fan_out: int, levels: int) -> str:
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * fan_out)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"rule: *a{levels - 1}"])


ZOO: dict[str, tuple[str, str, str]] = {
    "a list nested deeply in TOML": ("toml", "a = " + "[" * 9000 + "]" * 9000, "nested deeper than 40 levels"),
    "a key nested deeply in TOML": ("toml", "a." * 200_000 + "a = 1", "nested deeper than 40 levels"),
    "a quoted key nested deeply in TOML": (
        "toml",
        '[ "a" . ' + "'b'." * 100_000 + "a]",
        "nested deeper than 40 levels",
    ),
    "a list nested deeply in JSON": ("json", "[" * 200_000 + "]" * 200_000, "nested deeper than 40 levels"),
    "tables nested deeply in JSON": ("json", '{"a":' * 60 + "1" + "}" * 60, "nested deeper than 40 levels"),
    "a list nested deeply in YAML": ("yaml", "[" * 9000 + "]" * 9000, "nested deeper than 40 levels"),
    "a bomb of aliases": ("yaml", bomb("[x, x, x]", 10, 12), "more than 200,000 entries: that is no plan"),
    "a wide bomb of aliases": ("yaml", bomb(f"[{'1,' * 20_000}]", 20_000, 2), "more than 200,000 entries"),
    "a bomb of text": ("yaml", bomb("x" * 100_000, 1000, 2), "its text is longer than 1,000,000 characters"),
    "a list that holds itself": ("yaml", "rule: &a [*a]", "nested deeper than 40 levels"),
    "a table that holds itself": ("yaml", "rule: &a\n  match: *a", "nested deeper than 40 levels"),
    "a call in YAML": (
        "yaml",
        "rule: !!python/object/apply:os.system ['exit 1']",
        "not valid YAML: could not determine a const",
    ),
    "two documents": ("yaml", "a: 1\n---\nb: 2", "not valid YAML: expected a single document"),
    "a set": ("yaml", "rule: !!set {a, b}", "the plan has no list of rules"),
    "bytes": ("yaml", 'rule: [{match: !!binary "aGk=", lr: 1}]', "rule 1: .*bytes is no selector"),
    "a date as the match": ("yaml", "rule: [{match: 2020-01-01, lr: 1}]", "rule 1: .*date is no selector"),
    "a number that YAML takes for octal": (
        "yaml",
        "rule: [{match: '*', lr: 010}]",
        "'010' is a number to the base of 8",
    ),
    "a number that YAML takes for a time": ("yaml", "rule: [{match: '*', lr: 1:30}]", "'1:30' is a number to the base"),
    "a signed time with a fraction": ("yaml", "rule: [{match: '*', lr: -1:30.5}]", "'-1:30.5' is a number to the base"),
    "a date that is none": ("yaml", "rule: [{match: '*', lr: 2020-99-99}]", "not valid YAML: month must be in 1..12"),
    "a key that is a number": ("yaml", "rule: [{match: '*', 1: 2}]", "every key must be text, not 1"),
    "a key that is a list": ("yaml", "? [a]\n: 1", "not valid YAML: .*found unhashable key"),
    "a zero byte": ("yaml", "rule: a\0b", "not valid YAML: unacceptable character #x0000"),
    "a key twice in YAML": ("yaml", "rule: [{match: '*', lr: 1, lr: 2}]", "'lr' is given twice in one table"),
    "a key twice in JSON": ("json", '{"rule": [{"match": "*", "lr": 1, "lr": 2}]}', "'lr' is given twice in one table"),
    "no table": ("json", "[1]", r"a plan is a table with \[\[rule\]\] entries, not list"),
    "nothing": ("json", "null", "the plan is empty"),
    "nan in JSON": ("json", '{"rule": [{"match": "*", "lr": NaN}]}', "lr must be finite, got nan"),
    "nan in a method's arguments": (
        "json",
        '{"rule": [{"match": "*", "lr": 1}], "balance": {"method": "Smoothed", "of": {"c": [NaN]}}}',
        "balance: of.c.0 is nan, which is no number",
    ),
    "an infinity in YAML": ("yaml", "rule: [{match: '*', lr: -.inf}]", "lr must be finite, got -inf"),
    "a number of 5000 digits in TOML": ("toml", f"{HEAD}lr = {'1' * 5000}", "not valid TOML: Exceeds the limit"),
    "a number of 5000 digits in JSON": ("json", f'{{"rule": [{"1" * 5000}]}}', "not valid JSON: Exceeds the limit"),
    "a number of 5000 digits in YAML": ("yaml", f"rule: [{'1' * 5000}]", "not valid YAML: Exceeds the limit"),
    "a number of 400 digits": (
        "toml",
        f"{HEAD}lr = {{ scale = {'1' * 400} }}",
        r"1111.*\.\.\..* is an integer of more than 64",
    ),
    "a number of 9000 hex digits": (
        "toml",
        f"{HEAD}lr = 0x{'f' * 9000}",
        "is an integer of more than 64 bits: write a float",
    ),
    "half a character": (
        "json",
        '{"rule": [{"match": "*", "label": "\\ud800", "lr": 1}]}',
        "is not Unicode text: it holds half",
    ),
    "half a character in a key": ("json", '{"rule": [{"match": "*", "\\ud800": 1}]}', "is not Unicode text"),
    "a regular expression that is none": (
        "toml",
        "[[rule]]\nmatch = { regex = '(' }\nlr = 1",
        "is no regular expression",
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("format", "text", "message"), ZOO.values(), ids=ZOO)
def test_a_hostile_file_is_refused_soon_and_in_few_words(format: str, text: str, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(PlanError, match=message) as caught:
        Plan.loads(text, format=format)
    assert len(str(caught.value)) < 500
    assert time.process_time() - begun < 10


def test_a_long_text_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="the text is longer than 1,000,000 characters: that is no plan"):
        Plan.loads("#" * (LARGEST + 1))
    (tmp_path / "plan.toml").write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(PlanError, match=r"plan.toml: the file is larger than 1,000,000 bytes: that is no plan"):
        Plan.load(tmp_path / "plan.toml")


def test_an_endless_file_is_read_no_further_than_the_longest_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").symlink_to("/dev/zero")
    with pytest.raises(PlanError, match="the file is larger than 1,000,000 bytes"):
        Plan.load(tmp_path / "plan.toml")


@pytest.mark.parametrize("data", [bytes(range(256)), HEAD.encode("utf-16"), b"\xff\xfe", b"\x80"])
@pytest.mark.parametrize("suffix", ["toml", "yaml", "json"])
def test_a_file_that_is_no_text_is_told_at_which_byte(data: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"plan.{suffix}"
    path.write_bytes(data)
    with pytest.raises(PlanError, match=r"the file is not UTF-8 text \(byte \d+\)"):
        Plan.load(path)


@pytest.mark.parametrize("place", ["match", "optimizer", "label", "lr", "kind", "a key"])
def test_no_message_holds_what_a_terminal_would_obey(place: str) -> None:
    evil = "x\x1b]0;title\x07\x1b[2J\u202e\r\x9b31m"
    rule = {"match": "*", "optimizer": "SGD", "lr": 0.1} | {
        "kind": {"match": {"kind": evil}},
        "a key": {evil: 1},
    }.get(place, {place: evil})
    with pytest.raises(GroupwiseError, match="x") as told:
        Plan.loads(json.dumps({"rule": [rule, {"match": evil, "lr": 1}]}), format="json").resolve(NET, ALGORITHMS)
    assert str(told.value).replace("\n", "").isprintable()


def test_merged_tables_of_yaml_may_override_what_they_merge() -> None:
    text = """
    rule:
    - &base {match: "*", optimizer: AdamW, lr: 1}
    - {<<: [*base], lr: 2}
    """
    assert [rule.hyperparameters["lr"] for rule in Plan.loads(text, format="yaml").rules] == [1, 2]


KEYS = [
    "rule", "clip", "values", "balance", "match", "label", "optimizer", "trainable", "optional", "lr", "betas", "beta1",
    "scale", "layer_decay", "exact", "norm", "value", "adaptive", "per", "eps", "after", "until", "unfreeze_down",
    "method",
    "weights", "min", "max", "above", "below", "of", "over", "warmup", "at", "end", "by", *KINDS, *SELECTOR_KEYS,
]  # fmt: skip
WORDS = [
    "*",
    "head.*",
    "AdamW",
    "SGD",
    "os:system",
    "a.b:C",
    "5%",
    "2 epochs",
    "1e-3",
    "nan",
    "norm",
    "Linear",
    "((",
    "[!",
    "module",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=5),
)
data = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
rules = st.fixed_dictionaries(
    {"match": st.just("*") | data},
    optional=dict.fromkeys(("label", "optimizer", "trainable", "clip", "optional", "lr", "betas", "momentum"), data),
)
files = st.fixed_dictionaries(
    {"rule": data | st.lists(rules, min_size=1, max_size=3)},
    optional={"clip": data, "values": data, "balance": data, "other": data},
)
ALGORITHMS = {
    "AdamW": Algorithm("AdamW", {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "foreach": None}),
    "SGD": Algorithm("SGD", {"lr": 1e-3, "momentum": 0}),
}
NET = parameters_of(Net())
fuzz = settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])


def survive(read: Any) -> None:
    """Reading, and whatever a plan that is read is good for, raises our own errors or nothing."""
    with harmless():
        plan = read()
        assert isinstance(plan, Plan)
        with harmless():
            assert Plan.loads(plan.dumps()) == plan
        if {rule.optimizer for rule in plan.rules} <= {None, *ALGORITHMS}:
            assert str(plan.resolve(NET, ALGORITHMS))


@contextlib.contextmanager
def harmless() -> Iterator[None]:
    """Inside, an error of ours may come, with nothing in it that a terminal would obey."""
    said = ""
    try:
        yield
    except GroupwiseError as error:
        said = str(error)
    assert said.replace("\n", "").isprintable(), repr(said)


@fuzz
@given(files)
def test_no_data_makes_decoding_raise_anything_but_our_own_errors(file: dict[str, Any]) -> None:
    survive(lambda: Plan(**decode(file, ())))


@fuzz
@given(files | data)
def test_no_text_makes_loads_raise_anything_but_our_own_errors(file: Any) -> None:
    survive(lambda: Plan.loads(json.dumps(file), format="json"))
    survive(lambda: Plan.loads(yaml.safe_dump(file), format="yaml"))


GOOD = HEAD + (
    'lr = { cosine = 3e-4, warmup = "5%" }\nbetas = [0.9, 0.95]\nclip = { norm = 1.0, per = "module" }\n'
    '[[rule]]\nmatch = [{ role = ["norm", "bias"], depth = { min = 1 } }, "head.*"]\n'
    "lr = { scale = 0.1, layer_decay = 0.75 }\n"
    'trainable = { after = "2 epochs" }\n[values]\nx = { linear = 0.1 }\n[balance]\nweights = { a = 1.0 }\n'
)


@fuzz
@given(st.data())
def test_no_slip_of_the_pen_makes_loads_raise_anything_but_our_own_errors(choice: st.DataObject) -> None:
    text = GOOD
    for _ in range(choice.draw(st.integers(1, 4))):
        at = choice.draw(st.integers(0, len(text)))
        width = choice.draw(st.integers(0, 6))
        slip = choice.draw(
            st.sampled_from(['"', "[", "]", "{", "}", "=", "\n", ",", ".", "0", "-", "'", "", "\0", "é", "rule"])
        )
        text = text[:at] + slip + text[at + width :]
    survive(lambda: Plan.loads(text))
