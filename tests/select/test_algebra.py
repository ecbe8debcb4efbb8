"""Selectors form a Boolean algebra on parameters, tied ones included."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import SelectorError
from groupwise.select import (
    Occurrence,
    ParameterInfo,
    Selector,
    depth,
    inside,
    kind,
    name,
    ndim,
    network,
    regex,
    role,
    select,
    selector,
    shape,
    statistic,
    tag,
    where,
)
from groupwise.select.selectors import positions
from groupwise.select.table import ParameterTable
from tests.select.samplers import fileable, infos, selectors


@given(selectors, infos)
def test_a_selector_and_its_negation_never_both_match(s: Selector, info: ParameterInfo) -> None:
    assert s.matches(info) is not (~s).matches(info)


@given(selectors, selectors, infos)
def test_the_operators_are_the_boolean_ones(a: Selector, b: Selector, info: ParameterInfo) -> None:
    left, right = a.matches(info), b.matches(info)
    assert (a & b).matches(info) is (left and right)
    assert (a | b).matches(info) is (left or right)
    assert (a - b).matches(info) is (left and not right)


def crossed(one: ParameterInfo, other: ParameterInfo) -> Iterator[ParameterInfo]:
    """The first parameter with one fact of the second in the place of its own."""
    for fact in ("shape", "tags"):
        yield replace(one, **{fact: getattr(other, fact)})
    first, *rest = one.occurrences
    for fact in ("name", "kinds", "ancestors", "network", "depth", "reasons", "aliases"):
        place = replace(first, **{fact: getattr(other.occurrences[0], fact)})
        yield replace(one, occurrences=(place, *rest))


TOLD_BY = {
    role("norm"): Occurrence("a", reasons=(("norm", "it is told"),)),
    kind("Linear"): Occurrence("a", kinds=("Linear",)),
    inside("Block"): Occurrence("a", ancestors=frozenset({"Block"})),
    network("critic"): Occurrence("a", network="critic"),
    depth(1): Occurrence("a", depth=1),
    name("b"): Occurrence("b"),
    regex("b+"): Occurrence("a", aliases=("bb",)),
}
OF_THE_TENSOR = {tag("x"): {"tags": frozenset({"x"})}, shape((2, 3)): {"shape": (2, 3)}, ndim(1): {"shape": (1,)}}


@pytest.mark.parametrize("fact", TOLD_BY, ids=str)
@pytest.mark.parametrize("tied", [False, True])
def test_a_parameter_that_differs_in_one_fact_of_its_place_is_told_among_its_like(fact: Selector, tied: bool) -> None:
    rest = (Occurrence("z", module="z"),) if tied else ()
    places = [(Occurrence("a"), *rest), (TOLD_BY[fact], *rest), (*rest, TOLD_BY[fact])]
    assert positions(fact, ParameterTable([ParameterInfo(place, (2,)) for place in places])) == [1, 2]


@pytest.mark.parametrize("fact", OF_THE_TENSOR, ids=str)
def test_a_parameter_that_differs_in_one_fact_of_its_tensor_is_told_among_its_like(fact: Selector) -> None:
    like = ParameterInfo((Occurrence("a"),), (4, 4))
    assert positions(fact, ParameterTable([like, replace(like, **OF_THE_TENSOR[fact]), like])) == [1]


@given(selectors, st.lists(infos, max_size=6))
def test_many_parameters_at_once_are_selected_as_each_by_itself(s: Selector, some: list[ParameterInfo]) -> None:
    many = [*some, *some[::2], *(like for one, other in pairwise(some) for like in crossed(one, other))]
    assert positions(s, ParameterTable(many)) == [i for i, info in enumerate(many) if s.matches(info)]


@given(selectors, st.lists(infos, max_size=6))
def test_a_predicate_is_asked_only_for_what_the_selectors_before_it_leave(
    s: Selector, many: list[ParameterInfo]
) -> None:
    def asked_with(combined: Callable[[Selector, Selector], Selector]) -> list[ParameterInfo]:
        asked: list[ParameterInfo] = []
        positions(combined(s, where(lambda info: bool(asked.append(info)))), ParameterTable(many))
        return asked

    assert asked_with(lambda a, b: a & b) == [info for info in many if s.matches(info)]
    assert asked_with(lambda a, b: a | b) == [info for info in many if not s.matches(info)]


LAWS: list[Callable[[Selector, Selector, Selector], tuple[Selector, Selector]]] = [
    lambda a, b, c: (a & (b | c), (a & b) | (a & c)),
    lambda a, b, c: (a | (b & c), (a | b) & (a | c)),
    lambda a, b, c: (~(a & b), ~a | ~b),
    lambda a, b, c: (~(a | b), ~a & ~b),
    lambda a, b, c: (a | (a & b), a),
    lambda a, b, c: (a & (a | b), a),
    lambda a, b, c: ((a - b) - c, a - (b | c)),
]


@pytest.mark.parametrize("law", LAWS, ids=["and over or", "or over and", "not and", "not or", "or", "and", "minus"])
@given(a=selectors, b=selectors, c=selectors, info=infos)
def test_distribution_de_morgan_and_absorption(law, a: Selector, b: Selector, c: Selector, info: ParameterInfo) -> None:
    left, right = law(a, b, c)
    assert left.matches(info) is right.matches(info)


@given(selectors, selectors, selectors)
def test_grouping_and_repetition_do_not_change_what_is_written(a: Selector, b: Selector, c: Selector) -> None:
    assert (a & b) & c == a & (b & c)
    assert (a | b) | c == a | (b | c)
    assert a & a == a == a | a
    assert ~~a == a


@given(fileable)
def test_equal_selectors_hash_alike_and_survive_pickling(s: Selector) -> None:
    twin = pickle.loads(pickle.dumps(s))
    assert twin == s
    assert hash(twin) == hash(s)
    assert str(twin) == str(s)


@given(selectors, st.lists(infos, max_size=8), st.randoms())
def test_what_is_selected_does_not_depend_on_the_order(s: Selector, several: list[ParameterInfo], random) -> None:
    shuffled = random.sample(several, len(several))
    assert sorted(map(repr, select(s, shuffled))) == sorted(map(repr, select(s, several)))


@given(selectors, st.lists(infos, max_size=8))
def test_a_selector_and_its_negation_part_the_parameters(s: Selector, several: list[ParameterInfo]) -> None:
    assert len(select(s, several)) + len(select(~s, several)) == len(several)


@given(fileable)
def test_a_selector_is_dynamic_exactly_if_a_statistic_is_in_it(s: Selector) -> None:
    assert s.dynamic is ("statistic(" in str(s))


@given(selectors)
def test_a_statistic_anywhere_makes_the_whole_dynamic(s: Selector) -> None:
    values = statistic("norm", above=1.0)
    assert not s.dynamic
    assert all(mixed.dynamic for mixed in (s & values, s | ~values, ~(s - values)))


def test_a_glob_may_stand_on_one_side_of_an_operator() -> None:
    norms = role("norm")
    assert "head.*" | norms == name("head.*") | norms
    assert norms | "head.*" == norms | name("head.*")
    assert "head.*" & norms == name("head.*") & norms
    assert norms & "head.*" == norms & name("head.*")
    assert "head.*" - norms == name("head.*") & ~norms
    assert norms - "head.*" == norms & ~name("head.*")


@pytest.mark.parametrize("operation", [lambda s: s & 1, lambda s: s | None, lambda s: s - 1.0, lambda s: 1 & s])
def test_nothing_else_may(operation: Callable[[Selector], object]) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        operation(role("norm"))


def test_pythons_and_or_and_not_are_refused_rather_than_obeyed() -> None:
    with pytest.raises(SelectorError, match=r"role\(norm\) is neither true nor false; combine selectors with & \| ~"):
        _ = role("norm") or role("bias")


def test_a_list_means_any_of() -> None:
    assert selector(["a.*", role("norm"), ("b.*",)]) == name("a.*") | role("norm") | name("b.*")
    assert selector("a.*") == name("a.*")
    assert selector(["a.*"]) == name("a.*")


def keeps(info: ParameterInfo) -> bool:
    return info.numel > 3


@pytest.mark.parametrize(
    ("junk", "message"),
    [
        ([], "an empty list selects nothing"),
        (5, "int is not a selector; give a glob"),
        (None, "NoneType is not a selector"),
        ({"role": "norm"}, "dict is not a selector"),
        (ParameterInfo, r"a class is not a selector; .* kind\(ParameterInfo\)"),
        (keeps, r"function is not a selector; write where\(predicate\)"),
        ("", r"name\(\) takes a glob"),
    ],
)
def test_what_is_no_selector_is_refused_with_the_way_out(junk: object, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        selector(junk)


@pytest.mark.parametrize(
    ("given_selector", "label"),
    [
        (name("backbone.*"), "backbone.*"),
        (name("a.*") | name("b.*"), "a.* | b.*"),
        (role("norm", "bias"), "role(norm, bias)"),
        (name("a.*") | role("norm", "bias"), "a.* | role(norm, bias)"),
        (name("a.*") - role("norm"), "a.* & ~role(norm)"),
        (name("a.*") & (name("b.*") | name("c")), "a.* & (b.* | c)"),
        (role("norm", "bias") & name("a.*"), "role(norm, bias) & a.*"),
        (~(name("a.*") | name("b")), "~(a.* | b)"),
        ((name("a") & name("b")) | name("c"), "(a & b) | c"),
        (where(keeps), "where(keeps)"),
        (where(lambda info: True), "where(lambda)"),
    ],
)
def test_its_text_is_a_label(given_selector: Selector, label: str) -> None:
    assert str(given_selector) == label
