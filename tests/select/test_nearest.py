"""For a selector that matched nothing: what exists that looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise.select import (
    ParameterInfo,
    Selector,
    depth,
    inside,
    kind,
    magnitude,
    name,
    ndim,
    nearest,
    network,
    parameters_of,
    regex,
    role,
    select,
    selector,
    shape,
    size,
    tag,
    where,
)
from tests.select.models import ResNet, ViT, bert
from tests.select.samplers import infos, selectors

VIT = parameters_of({"student": ViT(), "critic": ResNet()}, tags={"no_decay": "*.pos_embed"})


@pytest.mark.parametrize(
    ("missed", "first"),
    [
        ("student.block.*", "student.blocks.*"),
        ("student.Blocks.1.*", "student.blocks.1.*"),
        ("blocks.*", "*.blocks.*"),
        ("head", "*.head.*"),
        ("module.student.blocks.*", "student.blocks.*"),
        ("*.norm.wieght", "*.norm.weight"),
        ("*.qkv", "*.qkv.*"),
        ("pos_embd", "*.pos_embed"),
        (regex("pos_embed"), "regex('.*(pos_embed).*')"),
        (kind("linear"), "Linear"),
        (kind("ModuleList"), "inside(ModuleList)"),
        (inside("Blok"), "Block"),
        (role("norm") & ndim(7), "ndim(1)"),
        (tag("nodecay"), "no_decay"),
        (tag("zzz"), "no_decay"),
        (network("studnt"), "student"),
        (network("zzz"), "student"),
        (depth(40), "depth(0 to 9)"),
        (ndim(3, ) & "critic.*", "ndim(3) (alone: 2)"),
        (ndim(9), "ndim(1)"),
        (shape((9, 8)), "shape(10, 8)"),
        (size(1), "size(4 to 9216)"),
        (~name("*"), "every parameter is *"),
        (name("studet.*") | name("critc.*"), "student.*"),
    ],
    ids=str,
)  # fmt: skip
def test_the_likeliest_comes_first(missed: str | Selector, first: str) -> None:
    assert select(missed, VIT) == ()
    offered = nearest(missed, VIT)
    assert offered[0] == first


def test_numbers_that_do_not_exist_are_replaced_by_those_that_do() -> None:
    assert set(nearest("critic.layer9.*", VIT)) == {f"critic.layer{stage}.*" for stage in (2, 3, 4)}


def test_several_parts_may_be_misspelt() -> None:
    assert nearest("student.bloks.1.norm.wieght", VIT) == ["student.blocks.1.norm.weight"]


def test_of_a_role_that_nobody_has_those_that_occur_are_told() -> None:
    assert nearest(role("conv"), parameters_of(nn.Linear(2, 2))) == ["role(weight)", "role(bias)", "role(head)"]


def test_of_a_combination_the_parts_are_counted() -> None:
    offered = nearest(name("student.*") & kind("Conv2d") & ndim(1) & role("weight"), VIT)
    assert offered[0].startswith("student.* (alone: ")
    assert offered[1].startswith("kind(Conv2d) (alone: ")


@pytest.mark.parametrize("missed", [magnitude(above=1e9), where(lambda info: False), "0zzzzzzz"], ids=str)
def test_nothing_is_like_a_value_a_function_or_noise(missed: str | Selector) -> None:
    assert nearest(missed, VIT[:0]) == []
    if missed == "0zzzzzzz" or not selector(missed).dynamic:
        assert nearest(missed, VIT) == []


def test_a_long_model_offers_one_of_each_kind_of_name() -> None:
    offered = nearest("bert.encoder.layer.7.attention.self.query.weight", parameters_of(bert()))
    assert offered[0] == "bert.encoder.layer.0.attention.self.query.weight"
    assert len(offered) <= 5


@pytest.mark.parametrize("glob", ["student.block.*", "blocks", "module.critic.fc", "*.norm.wieght", "layer9"])
def test_a_glob_that_is_offered_matches_something(glob: str) -> None:
    assert all(select(each, VIT) for each in nearest(glob, VIT))


@given(selectors, st.lists(infos, max_size=5))
def test_any_selector_can_be_asked_about_any_parameters(s: Selector, several: list[ParameterInfo]) -> None:
    offered = nearest(s, several)
    assert len(offered) <= 5
    assert len(set(offered)) == len(offered)
    assert all(isinstance(each, str) for each in offered)


@given(st.text(max_size=30))
def test_any_text_can_be_asked_about(text: str) -> None:
    if text.strip("./"):
        assert isinstance(nearest(text, VIT), list)
