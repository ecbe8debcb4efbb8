"""Each selector, on parameters written by hand and on small models."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from groupwise.errors import SelectorError
from groupwise.select import (
    Occurrence,
    ParameterInfo,
    Selector,
    depth,
    inside,
    kind,
    magnitude,
    name,
    ndim,
    network,
    parameters_of,
    regex,
    role,
    select,
    shape,
    size,
    statistic,
    tag,
    where,
)
from tests.select.models import Block, ViT, bert, language_model
from tests.select.samplers import PATHS


def called(*names: str) -> ParameterInfo:
    return ParameterInfo(tuple(Occurrence(each) for each in names), shape=(3, 4))


def chosen(selector: Selector, model: nn.Module) -> list[str]:
    return [info.name for info in select(selector, parameters_of(model))]


@pytest.mark.parametrize(
    ("glob", "matched", "missed"),
    [
        ("*", ["weight", "a.b.c"], []),
        ("backbone.*", ["backbone.weight", "backbone.0.attn.weight"], ["backbone", "my.backbone.weight"]),
        ("*.bias", ["a.bias", "a.b.bias"], ["bias", "a.bias.x"]),
        ("blocks.?.*", ["blocks.1.weight"], ["blocks.10.weight"]),
        ("blocks.[0-2].*", ["blocks.2.weight"], ["blocks.3.weight"]),
        ("Blocks.*", [], ["blocks.0.weight"]),
        ("a.b", ["a.b", "a.b.c", "a.b.c.d"], ["a", "a.bc", "x.a.b", "axb"]),
        ("layer.1", ["layer.1.weight"], ["layer.10.weight", "layer.11"]),
        ("a+b.*", ["a+b.c"], ["aab.c"]),
        ("blocks/3/*", ["blocks/3/kernel", "blocks.3.kernel"], ["blocks/30/kernel"]),
        ("blocks.3.*", ["blocks/3/kernel"], ["blocks/4/kernel"]),
        ("blocks/3", ["blocks.3.kernel", "blocks/3/a/kernel"], ["blocks/33/kernel"]),
    ],
)
def test_name_is_a_glob_over_the_whole_name_and_a_bare_path_is_all_under_it(
    glob: str, matched: list[str], missed: list[str]
) -> None:
    assert [each for each in matched + missed if name(glob).matches(called(each))] == matched


@given(PATHS, PATHS)
def test_a_module_path_matches_itself_and_all_below_and_nothing_else(path: str, other: str) -> None:
    assert name(path).matches(called(path))
    assert name(path).matches(called(f"{path}.{other}"))
    assert not name(path).matches(called(f"{path}x"))
    assert not name(path).matches(called(f"x{path}"))


@given(PATHS)
def test_a_glob_means_the_same_with_either_separator(path: str) -> None:
    for glob in (path, f"{path}.*"):
        slashed = name(glob.replace(".", "/"))
        for info in (called(f"{path}.kernel"), called(f"{path}/kernel".replace(".", "/")), called("else/where")):
            assert name(glob).matches(info) is slashed.matches(info)


@given(st.text(max_size=12))
def test_any_text_is_a_glob_or_a_clear_error(text: str) -> None:
    if text.strip("./"):
        assert name(text).matches(called("a.b")) in (True, False)
    else:
        with pytest.raises(SelectorError, match="takes a glob over dotted names"):
            name(text)


def test_regex_describes_the_whole_name() -> None:
    assert regex(r"blocks\.(0|2)\..*").matches(called("blocks.2.weight"))
    assert not regex(r"blocks\.2").matches(called("blocks.2.weight"))
    assert not regex(r"2.*").matches(called("blocks.2.weight"))
    assert str(regex("a.*b")) == "regex(a.*b)"


def test_a_regex_finds_a_parametrized_weight_by_its_plain_name_as_a_glob_does() -> None:
    infos = parameters_of(nn.Sequential(spectral_norm(nn.Linear(2, 2)), nn.Linear(2, 2)))
    by_glob, by_regex = select(name("0.weight"), infos), select(regex(r"0\.weight"), infos)
    assert [info.name for info in by_regex] == ["0.parametrizations.weight.original"]
    assert by_regex == by_glob


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "a{99999999999999}", "*a", "(" * 1500])
def test_a_pattern_that_is_no_regular_expression_is_refused(pattern: str) -> None:
    with pytest.raises(SelectorError, match="is no regular expression"):
        regex(pattern)


def answered(text: str) -> bool | SelectorError:
    """Whether `regex(text)` matches a.b, or its refusal: re takes what is not regular, as the possessive "0?+"."""
    try:
        return regex(text).matches(called("a.b"))
    except SelectorError as refusal:
        return refusal


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # re's own, of the reference
@given(st.text(min_size=1, max_size=20))
@example("0?+")
def test_any_text_is_a_regex_or_a_clear_error(text: str) -> None:
    try:
        covers = bool(re.fullmatch(text, "a.b"))
    except re.error:
        with pytest.raises(SelectorError, match="is no regular expression"):
            regex(text)
    else:
        answer = answered(text)
        assert answer is covers or "cannot be followed in bounded time" in str(answer)


def test_a_tied_parameter_is_matched_by_any_of_its_names_and_its_negation_by_none() -> None:
    tied = called("embed.weight", "decoder.weight")
    assert name("embed.*").matches(tied)
    assert name("decoder.*").matches(tied)
    assert not (~name("decoder.*")).matches(tied)
    assert not (name("*") - "embed.*").matches(tied)


def test_kind_is_the_class_of_the_owning_layer_subclasses_included() -> None:
    class MyLinear(nn.Linear):
        pass

    model = nn.Sequential(MyLinear(2, 3), nn.Linear(3, 4), nn.LayerNorm(4))
    assert chosen(kind("Linear"), model) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert chosen(kind(MyLinear), model) == ["0.weight", "0.bias"]
    assert chosen(kind(nn.Linear, "LayerNorm"), model) == [n for n, _ in model.named_parameters()]
    assert chosen(kind("Sequential"), model) == []


def test_inside_is_any_module_around_it_what_the_module_holds_itself_included() -> None:
    model = ViT(blocks=2)
    under = [n for n, _ in model.named_parameters() if n.startswith("blocks.")]
    assert "blocks.0.gamma" in under
    assert chosen(inside(Block), model) == under
    assert chosen(inside("ModuleList"), model) == under
    assert chosen(inside("ViT"), model) == [n for n, _ in model.named_parameters()]
    assert set(chosen(kind("LayerNorm"), model)) <= set(chosen(inside("LayerNorm"), model))


def test_role_takes_several_words_and_means_any_of_them() -> None:
    model = ViT(blocks=1)
    assert chosen(role("norm"), model) == ["blocks.0.norm.weight", "blocks.0.norm.bias", "norm.weight", "norm.bias"]
    assert role("norm", "bias") == role("norm") | role("bias")


def test_the_numeric_selectors_take_a_number_or_a_range_with_its_ends() -> None:
    model = ViT(blocks=3)
    infos = parameters_of(model)
    assert {i.depth for i in select(depth(min=1, max=2), infos)} == {1, 2}
    assert {i.depth for i in select(depth(4), infos)} == {4}
    assert {i.depth for i in select(depth(max=0), infos)} == {0}
    assert {i.ndim for i in select(ndim(min=2), infos)} == {2, 3, 4}
    assert {i.numel for i in select(size(max=8), infos)} == {8}
    assert depth(min=2, max=2) == depth(2)
    assert (str(depth(2)), str(size(min=1, max=9)), str(ndim(max=1))) == (
        "depth(2)",
        "size(min=1, max=9)",
        "ndim(max=1)",
    )


def test_shape_leaves_open_what_is_none() -> None:
    model = ViT(blocks=1)
    assert chosen(shape((None, 8)), model) == ["blocks.0.qkv.weight", "blocks.0.fc1.weight", "head.weight"]
    assert chosen(shape([1, 1, 8]), model) == ["cls_token"]
    assert chosen(shape(()), model) == []
    assert str(shape((None, 8))) == "shape(*, 8)"


def test_kind_and_inside_of_a_tied_parameter_are_those_of_any_place() -> None:
    places = (
        Occurrence("e.w", kinds=("Embedding",), ancestors=("Encoder",)),
        Occurrence("d.w", kinds=("Linear",), ancestors=("Decoder",)),
    )
    tied = ParameterInfo(places, (2, 2))
    assert (kind("Embedding") & kind("Linear") & inside("Encoder") & inside("Decoder")).matches(tied)
    assert not (kind("Conv2d") | inside("Head")).matches(tied)


def test_network_and_depth_of_a_tied_parameter_are_those_of_any_place() -> None:
    tied = ParameterInfo((Occurrence("g.w", network="g", depth=1), Occurrence("d.w", network="d", depth=7)), (2,))
    assert (network("g") & network("d") & depth(1) & depth(7)).matches(tied)
    assert not (depth(3) | network("x") | depth(min=2, max=6)).matches(tied)


def test_where_asks_the_info() -> None:
    assert chosen(where(lambda info: info.name.count(".") == 0), ViT()) == ["cls_token", "pos_embed"]


def test_tag_is_the_callers_own_word() -> None:
    infos = parameters_of(language_model(), tags={"frozen": "wte", "slow": ["h.0.*"]})
    assert [i.name for i in select(tag("frozen"), infos)] == ["wte.weight"]
    assert {i.depth for i in select(tag("slow"), infos)} == {1}


def test_what_reads_well_selects_well() -> None:
    model = bert()
    assert chosen(name("*.query") | name("*.query.*"), model)[:2] == [
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.encoder.layer.0.attention.self.query.bias",
    ]
    lower = chosen(name("bert.*") & depth(max=2) - role("norm", "bias"), model)
    assert {n.split(".")[1] for n in lower} == {"embeddings", "encoder"}
    assert all(n.endswith("weight") and "LayerNorm" not in n for n in lower)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: role("norms"), "unknown role 'norms'; did you mean 'norm'"),
        (role, "role.. needs at least one of: weight, bias"),
        (lambda: role(3), "unknown role 'int'"),
        (kind, "kind.. needs at least one"),
        (lambda: kind("torch.nn.Linear"), "give the bare class name, 'Linear'"),
        (lambda: inside(3), "inside.. takes text that is not empty, not int"),
        (network, "network.. needs at least one"),
        (lambda: network(""), "network.. takes text that is not empty"),
        (tag, "tag.. needs at least one"),
        (lambda: tag(1), "tag.. takes text that is not empty, not int"),
        (lambda: name(3), "name.. takes a glob"),
        (lambda: name("./"), "name.. takes a glob"),
        (lambda: regex(""), "regex.. takes the text"),
        (depth, "depth.. takes a number, or min= or max="),
        (lambda: depth(1, min=0), "depth.. takes a number, or min= or max="),
        (lambda: size(max=10**5000), "size.. counts"),
        (lambda: depth(-1), "depth.. counts, so it takes whole numbers from 0"),
        (lambda: ndim(True), "ndim.. counts"),
        (lambda: size(1.5), "size.. counts"),
        (lambda: size(min=5, max=4), "size..: min is above max"),
        (lambda: shape(5), "shape.. takes a tuple of sizes"),
        (lambda: shape((-1, 3)), "shape.. takes a tuple of sizes"),
        (magnitude, "mean_abs: give above= or below="),
        (lambda: magnitude(above=1, of="grad_norm"), "unknown magnitude 'grad_norm'.*statistic.. has the others"),
        (lambda: magnitude(above=float("nan")), "above and below are finite numbers"),
        (lambda: magnitude(above=10**400), "above and below are finite numbers"),
        (lambda: magnitude(above="1"), "above and below are numbers, not str"),
        (lambda: magnitude(above=2, below=2), "above must be less than below"),
        (lambda: statistic("gradnorm", above=1), "unknown statistic 'gradnorm'; did you mean 'grad_norm'"),
        (lambda: where(3), "where.. takes a function"),
        (lambda: where(Block), "where.. takes a function"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        make()
