"""Regular expressions mean what `re` says they mean, and no name takes longer than its length."""

import contextlib
import re
import time
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groupwise.errors import SelectorError
from groupwise.select.automata import Automaton

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # re's own

atoms = st.sampled_from(
    ["a", "b", ".", r"\.", "_", r"\d", r"\w", r"\S", "[ab]", "[^a]", "[]a-c_]", r"[\w.]", "^", "$", r"\b", r"\B", r"\A",
     r"\Z", r"\x61", r"\u0062", r"\n", r"\N{LATIN SMALL LETTER A}", "{", "}", "]", "-", "é", "(?#remark)", "()", "I"]
)  # fmt: skip
repeats = st.sampled_from(
    ["", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,}", "{,2}", "{2,3}?", "{,}"]
)
fixed = st.lists(st.sampled_from(["a", "b", ".", r"\.", "[ab]"]), min_size=1, max_size=2).map("".join)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    groups = st.sampled_from(["({})", "(?:{})", "(?P<n>{})", "(?={})", "(?!{})", "(?i:{})", "(?-i:{})", "(?s:{})"])
    grouped = st.builds(lambda form, part: form.replace("{}", part), groups, inner)
    behind = st.builds(lambda sign, part: f"(?<{sign}{part})", st.sampled_from("=!"), fixed)
    repeated = st.builds(lambda part, times: f"(?:{part}){times}" if times else part, inner | grouped | behind, repeats)
    bare = st.builds(lambda atom, times: f"{atom}{times}", atoms, repeats)
    rows = st.lists(repeated | bare, max_size=4)
    return st.one_of(rows.map("".join), st.builds("{}|{}".format, inner, inner), grouped)


patterns = st.builds(
    lambda flags, part: flags + part,
    st.sampled_from(["", "", "", "(?i)", "(?s)", "(?m)", "(?ia)"]),
    st.recursive(atoms, grown, max_leaves=12),
)
names = st.text(st.sampled_from("ab._1AI\né"), max_size=8) | st.sampled_from(["a.b", "ab_1.ba", "a\n", "blocks.0"])


@settings(max_examples=1500)
@given(patterns, st.lists(names, min_size=1, max_size=4))
@example("(a*)*$", ["aaa\n", "aaa", ""])
@example(r"(\w+\.)*weight", ["a.b.weight", "a.b.weigh"])
@example("(?m)^a$|.*^b", ["a", "\na", "a\nb"])
def test_an_expression_covers_what_re_covers_and_is_found_where_re_finds_it(pattern: str, given: list[str]) -> None:
    try:
        reference = re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        with pytest.raises(SelectorError, match="is no regular expression"):
            Automaton(pattern)
        return
    automaton = Automaton(pattern)
    for name in [*given, *given]:  # the second time from memory
        assert automaton.covers(name) is bool(reference.fullmatch(name))
        assert automaton.found_in(name) is bool(reference.search(name))


@settings(max_examples=500)
@given(st.text(st.sampled_from("ab.()[]{}*+?|^$\\dw123:=!<P-,ix "), max_size=14), st.lists(names, max_size=3))
def test_any_text_is_refused_in_our_words_or_means_what_re_says(pattern: str, given: list[str]) -> None:
    with contextlib.suppress(SelectorError):
        automaton = Automaton(pattern)
        for name in given:
            assert automaton.covers(name) is bool(re.fullmatch(pattern, name))


WITHOUT_END = [
    "(([a-z_]+)+)+X", "(a*)*X", "(a|a)*X", "(a|aa)+X", "(.*)*X", "(.*.*.*)*X", "(a?){40}a{40}X",
    "(?:a|b|ab)*(?:ba|a)*X",
    "(a|a|a)(a|a|a)" * 20 + "X", ".*a" * 30 + "X", "(?=(a+)+X).*", "(?!(a+)+X)(a+)+X", r"(\w+\s?)*X", "(?i)(a+)+X",
    "(" * 49 + "a" + ")*" * 49 + "X", r"(a+)+\bX", "(^a*)*X", "(x+x+)+y", "(a*)*" * 40 + "X",
]  # fmt: skip


@pytest.mark.parametrize("pattern", WITHOUT_END, ids=lambda pattern: pattern[:20])
@pytest.mark.parametrize(
    "name", ["a" * 300, "ab" * 150, "classification_head_of_the_model" * 5, "a_" * 100 + "." + "x" * 100]
)
def test_no_expression_takes_longer_than_the_name_is_long(pattern: str, name: str) -> None:
    began = time.process_time()
    assert not Automaton(pattern).covers(name)
    Automaton(pattern).covers(f"{name}X")
    assert time.process_time() - began < 3  # 0.02 s is usual; re does not end


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a)\1", "a back reference"),
        (r"(?P<n>a)(?P=n)", "a back reference"),
        (r"(a)?(?(1)b|c)", "a condition"),
        ("(?>a*)b", "an atomic group"),
        ("a*+b", "a possessive repetition"),
        ("(?x)a b", "a flag that is not known here"),
        ("(" * 60 + "a" + ")" * 60, "groups nested deeper than 50 levels"),
    ],
)
def test_what_is_not_regular_is_refused_with_the_way_out(pattern: str, why: str) -> None:
    with pytest.raises(SelectorError, match=rf"{why}.*in Python, where\(lambda info: …\) takes any condition"):
        Automaton(pattern)


@pytest.mark.parametrize("pattern", ["(a{99}){99}", "a{6000}", "a{0,4294967}", "(a|b){70}{80}", "((a?){70}){80}"])
def test_an_expression_of_too_many_states_is_refused_soon(pattern: str) -> None:
    with pytest.raises(SelectorError, match=r"at most 5,000 states|no regular expression"):
        Automaton(pattern)


@pytest.mark.parametrize("pattern", ["(){4294967294}", "(?:){9999999}a", "(?:|){999999}"])
def test_nothing_repeated_without_end_is_still_nothing(pattern: str) -> None:
    began = time.process_time()
    with contextlib.suppress(SelectorError):
        Automaton(pattern).covers("a")
    assert time.process_time() - began < 2


def test_a_range_that_re_would_fold_character_by_character_is_refused() -> None:
    with pytest.raises(SelectorError, match="a range of characters beyond Latin letters"):
        Automaton("(?i)" + "[\x01-\U0010ffff]" * 300)
    assert Automaton("[а-я]+").covers("имя")


ORDINARY = [
    r"blocks\.\d+\.norm\..*", r".*\.bias", r"(?!.*(bias|norm)).*", r".*(?<!bias)", r"^(.*)\.(weight|bias)$",
    r"(\w+\.)+weight",
    r".*\b(q|k|v)_proj\b.*", r"(?i).*LAYERNORM.*", r"model\.layers\.(?:[0-9]|1[0-1])\..*", r".*\.(0|2)\.[^.]+",
    r"(?:.*\.)?head\.\S+",
    "|".join(rf"layers\.{i}\.weight" for i in range(80)),
]  # fmt: skip


@pytest.mark.parametrize("pattern", ORDINARY, ids=lambda pattern: pattern[:20])
def test_no_ordinary_expression_is_refused(pattern: str) -> None:
    names = [
        f"model.layers.{i}.{part}.{leaf}"
        for i in range(12)
        for part in ("q_proj", "LayerNorm")
        for leaf in ("weight", "bias")
    ]
    automaton = Automaton(pattern)
    with warnings.catch_warnings():
        assert [automaton.covers(name) for name in names] == [bool(re.fullmatch(pattern, name)) for name in names]
