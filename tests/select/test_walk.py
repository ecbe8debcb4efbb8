"""The walk: every parameter once, in order, under the names of the bare model, whatever surrounds it."""

import gc
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from groupwise.errors import SelectorError
from groupwise.select import depth, kind, name, parameters_of, role, select
from tests.calls import calls_of
from tests.select import models
from tests.select.models import EVERY, ViT, language_model, named

every_model = pytest.mark.parametrize("build", EVERY.values(), ids=EVERY.keys())


def facts(model: Any) -> list[tuple[Any, ...]]:
    """What rules can see of every parameter, the shape of wrappers apart."""
    return [(i.names, i.shape, i.depth, i.roles, [p.module for p in i.occurrences]) for i in parameters_of(model)]


@every_model
def test_the_parameters_are_torchs_in_torchs_order(build: Callable[[], nn.Module]) -> None:
    model = build()
    infos = parameters_of(model)
    assert [info.name for info in infos] == [n for n, _ in model.named_parameters()]
    assert all(info.parameter is p for info, p in zip(infos, model.parameters(), strict=True))
    assert [info.shape for info in infos] == [tuple(p.shape) for p in model.parameters()]
    every = {n for info in infos for n in info.names}
    assert every == {n for n, _ in model.named_parameters(remove_duplicate=False)}


@every_model
def test_it_is_the_same_on_the_meta_device(build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        model = build()
    assert facts(model) == facts(build())


def test_a_tied_parameter_comes_once_with_all_its_places() -> None:
    info = next(i for i in parameters_of(language_model()) if i.name == "wte.weight")
    assert info.names == ("wte.weight", "lm_head.weight")
    assert [(p.kinds[0], p.module, p.depth) for p in info.occurrences] == [
        ("Embedding", "wte", 0),
        ("Linear", "lm_head", 3),
    ]
    assert info.depth == 0
    assert depth(3).matches(info)
    assert (kind("Linear") & kind("Embedding")).matches(info)


def test_a_shared_layer_has_a_name_for_every_use() -> None:
    layer = nn.Linear(3, 3)
    infos = parameters_of(nn.Sequential(layer, nn.ReLU(), layer))
    assert [info.names for info in infos] == [("0.weight", "2.weight"), ("0.bias", "2.bias")]
    assert [occurrence.depth for occurrence in infos[0].occurrences] == [1, 2]


def test_a_module_that_contains_itself_is_walked_once() -> None:
    model = named(a=nn.Linear(2, 2))
    model.a.parent = model
    assert [info.name for info in parameters_of(model)] == ["a.weight", "a.bias"]


def test_a_mapping_puts_its_keys_in_front_and_makes_them_networks() -> None:
    temperature = nn.Parameter(torch.zeros(()))
    model = {"generator": ViT(1), "critic": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), "temperature": temperature}
    infos = parameters_of(model)
    assert [info.name for info in infos if info.network == "critic"] == [
        "critic.0.weight", "critic.0.bias", "critic.1.weight", "critic.1.bias",
    ]  # fmt: skip
    lone = infos[-1]
    assert (lone.name, lone.network, lone.depth, lone.shape, lone.roles) == (
        "temperature",
        "temperature",
        0,
        (),
        {"scalar"},
    )
    assert lone.parameter is temperature
    generator = parameters_of(model["generator"])
    assert [i.name for i in infos[: len(generator)]] == [f"generator.{i.name}" for i in generator]
    assert [(i.depth, i.roles) for i in infos[: len(generator)]] == [(i.depth, i.roles) for i in generator]
    assert {occurrence.network for info in generator for occurrence in info.occurrences} == {""}


def test_networks_may_share_a_parameter() -> None:
    trunk = nn.Linear(2, 2)
    infos = parameters_of({"a": nn.Sequential(trunk), "b": nn.Sequential(nn.Linear(2, 2), trunk)})
    shared = infos[0]
    assert shared.names == ("a.0.weight", "b.1.weight")
    assert [(p.network, p.depth) for p in shared.occurrences] == [("a", 1), ("b", 2)]
    assert len(infos) == 4


def test_a_parametrized_layer_keeps_torchs_names_and_its_own_roles() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[1])
    parametrizations.orthogonal(model[3])
    infos = {info.name: info for info in parameters_of(model)}
    assert list(infos) == [n for n, _ in model.named_parameters()]
    before = {info.name: info for info in parameters_of(plain)}
    for new, old in [
        ("0.parametrizations.weight.original1", "0.weight"),
        ("1.parametrizations.weight.original", "1.weight"),
        ("3.parametrizations.weight.original", "3.weight"),
        ("3.bias", "3.bias"),
    ]:
        assert (infos[new].roles, infos[new].depth) == (before[old].roles, before[old].depth)
        assert infos[new].occurrences[0].module == before[old].occurrences[0].module
        assert set(before[old].occurrences[0].kinds) <= set(infos[new].occurrences[0].kinds)


def test_the_parameters_of_a_parametrization_are_its_own_and_no_level() -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lora_A = nn.Parameter(torch.zeros(2, 8))

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight + self.lora_A.sum()

    model = named(stem=nn.Linear(8, 8), head=nn.Linear(8, 2))
    parametrize.register_parametrization(model.stem, "weight", LowRank())
    infos = parameters_of(model)
    assert [i.name for i in infos] == [n for n, _ in model.named_parameters()]
    own = next(i for i in infos if i.name == "stem.parametrizations.weight.0.lora_A")
    assert (own.occurrences[0].kinds, own.depth) == (("LowRank",), 1)


def test_parameters_in_lists_and_dictionaries_are_told_by_the_collections_name() -> None:
    model = named(
        cls_tokens=nn.ParameterList([torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)]),
        biases=nn.ParameterDict({"q": torch.zeros(4)}),
    )
    assert [(i.name, i.roles) for i in parameters_of(model)] == [
        ("cls_tokens.0", {"embedding"}), ("cls_tokens.1", {"embedding"}), ("biases.q", {"bias"}),
    ]  # fmt: skip


def test_frozen_and_sparse_are_seen() -> None:
    model = named(table=nn.Embedding(4, 2, sparse=True), bag=nn.EmbeddingBag(4, 2, sparse=True), fc=nn.Linear(2, 2))
    model.fc.requires_grad_(False)
    infos = {i.name: i for i in parameters_of(model)}
    assert [n for n, i in infos.items() if i.sparse] == ["table.weight", "bag.weight"]
    assert [n for n, i in infos.items() if not i.requires_grad] == ["fc.weight", "fc.bias"]


def test_an_info_is_plain_data_but_for_the_tensor() -> None:
    info = parameters_of(nn.Linear(3, 2))[0]
    assert (info.ndim, info.numel, info.tags) == (2, 6, frozenset())
    assert "tensor(" not in repr(info)
    assert info == parameters_of(nn.Linear(3, 2))[0]
    assert hash(info) == hash(parameters_of(nn.Linear(3, 2))[0])
    with pytest.raises(AttributeError, match="cannot assign to field"):
        info.shape = ()


@given(st.randoms())
def test_the_order_in_which_a_layer_registered_its_parameters_permutes_and_changes_nothing_else(random) -> None:
    def build(shuffled: bool) -> nn.Module:
        model = ViT(2)
        for module in model.modules() if shuffled else ():
            own = list(module._parameters.items())
            module._parameters = dict(random.sample(own, len(own)))
        return model

    assert sorted(parameters_of(build(True)), key=lambda i: i.name) == sorted(
        parameters_of(build(False)), key=lambda i: i.name
    )


def test_a_model_without_parameters_has_none() -> None:
    assert parameters_of(nn.Sequential(nn.ReLU(), nn.Dropout())) == ()
    assert parameters_of({"a": nn.ReLU()}) == ()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "NoneType is not a model; give the module itself"),
        ([nn.Linear(1, 1)], "list is not a model; give the module itself"),
        (nn.Linear(1, 1).parameters(), r"generator is not a model; give the module itself \(not model.parameters\(\)"),
        (nn.Parameter(torch.zeros(1)), "Parameter is not a model; .* a mapping of names to modules or parameters"),
        (ViT, r"the class ViT is not a model; give an instance: ViT\(…\)"),
        ({}, "the mapping of networks is empty"),
        ({"a": 3}, "network 'a': int is neither module nor parameter"),
        ({"a": {"b": nn.Linear(1, 1)}}, "network 'a': dict is neither module nor parameter; networks do not nest"),
        ({"a": nn.Linear}, "network 'a': the class Linear is neither .*give an instance"),
        ({"": nn.Linear(1, 1)}, "network '': a network's key is text, not empty"),
        ({"a.b": nn.Linear(1, 1)}, "network 'a.b': a network's key is text, not empty and without a dot"),
        (dict(nn.Linear(1, 1).named_parameters("0")), "network '0.weight': .*by their names .* the model itself"),
        ({1: nn.Linear(1, 1)}, "network 1: a network's key is text"),
    ],
)
def test_what_is_no_model_is_refused_with_the_way_out(model: Any, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        parameters_of(model)


def test_a_lazy_module_must_see_a_batch_first() -> None:
    model = OrderedDict(net=nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(SelectorError, match=r"parameter 'net.0.weight' has no shape yet: run one batch"):
        parameters_of(model)


def test_a_walk_keeps_three_objects_for_each_parameter() -> None:
    """Python's garbage collector goes through all objects whenever their number has grown by some."""

    def kept(blocks: int) -> int:
        with torch.device("meta"):
            model = nn.ModuleList(models.Block() for _ in range(blocks))
        parameters_of(model)
        before = len(gc.get_objects())
        infos = parameters_of(model)
        return len(gc.get_objects()) - before - 3 * len(infos)

    gc.collect()
    gc.disable()
    try:
        assert kept(40) <= kept(10)
    finally:
        gc.enable()


def test_the_cost_of_a_walk_and_of_a_selection_grows_with_the_parameters_and_no_faster() -> None:
    def costs(blocks: int) -> tuple[int, int]:
        with torch.device("meta"):
            model = named(blocks=nn.ModuleList(models.Block() for _ in range(blocks)), head=nn.Linear(8, 2))
        infos = parameters_of(model)
        chosen = [name("blocks.*"), name("*.fc1.weight"), role("norm", "bias"), kind("Linear"), depth(min=7)]
        return calls_of(lambda: parameters_of(model), ("call",)), calls_of(
            lambda: [select(each, infos) for each in chosen], ("call",)
        )

    few, many = costs(100), costs(1100)
    for small, large in zip(few, many, strict=True):
        assert large < 11.5 * small


@pytest.mark.parametrize(
    "layer", [lambda: nn.Linear(2, 2), lambda: nn.Linear(2, 3), lambda: nn.LayerNorm(2)], ids=["square", "wide", "norm"]
)
def test_a_long_row_of_layers_costs_no_more_for_each(layer: Callable[[], nn.Module]) -> None:
    def cost(layers: int) -> int:
        with torch.device("meta"):
            model = nn.Sequential(*(layer() for _ in range(layers)))
        return calls_of(lambda: parameters_of(model), ("call",))

    assert cost(1100) < 11.5 * cost(100)
