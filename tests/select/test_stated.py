"""What the caller states about parameters: roles, tags and levels."""

from typing import Any

import pytest
import torch
from torch import nn

from groupwise.errors import SelectorError
from groupwise.select import kind, parameters_of, role
from tests.select.models import ViT, language_model, named


def tasks() -> nn.Module:
    """Two heads that end in norms, so that none is guessed, and one that is."""
    return named(
        trunk=nn.Linear(4, 8), norm=nn.LayerNorm(8),
        task_a=nn.Sequential(nn.Linear(8, 3), nn.LayerNorm(3)), task_b=nn.Linear(8, 5),
    )  # fmt: skip


def having(what: str, infos: Any) -> list[str]:
    return [info.name for info in infos if what in info.roles | info.tags]


def test_a_stated_role_is_added() -> None:
    plain, declared = parameters_of(ViT()), parameters_of(ViT(), roles={"embedding": "patch_embed"})
    assert having("embedding", plain) == ["cls_token", "pos_embed"]
    assert having("embedding", declared) == [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    ]
    assert {i.name: i.roles - {"embedding"} for i in declared} == {i.name: i.roles - {"embedding"} for i in plain}
    assert next(i for i in declared if i.name == "patch_embed.proj.weight").reasons["embedding"] == "the caller said so"


def test_stated_heads_replace_the_guessed_ones() -> None:
    assert having("head", parameters_of(tasks())) == ["task_b.weight", "task_b.bias"]
    infos = parameters_of(tasks(), roles={"head": "task_a.*"})
    assert having("head", infos) == ["task_a.0.weight", "task_a.0.bias", "task_a.1.weight", "task_a.1.bias"]


def test_they_replace_them_in_their_own_network_alone() -> None:
    infos = parameters_of({"a": tasks(), "b": tasks()}, roles={"head": "a.task_a.0.*"})
    assert having("head", infos) == ["a.task_a.0.weight", "a.task_a.0.bias", "b.task_b.weight", "b.task_b.bias"]


def test_matrix_follows_from_what_is_stated() -> None:
    infos = {i.name: i for i in parameters_of(tasks(), roles={"head": "task_a.*", "embedding": "trunk.weight"})}
    assert infos["task_b.weight"].roles == {"weight", "matrix"}  # no head any more
    assert infos["task_a.0.weight"].roles == {"weight", "head"}
    assert infos["trunk.weight"].roles == {"weight", "embedding"}


def test_a_matrix_can_be_stated_too() -> None:
    infos = {i.name: i for i in parameters_of(tasks(), roles={"matrix": "task_b.weight"})}
    assert infos["task_b.weight"].roles == {"weight", "head", "matrix"}


def test_a_role_stated_of_a_tied_parameter_is_one_of_all_its_places() -> None:
    info = parameters_of(language_model(), roles={"norm": "lm_head.weight"})[0]
    assert info.names == ("wte.weight", "lm_head.weight")
    assert all("norm" in occurrence.roles for occurrence in info.occurrences)


@pytest.mark.parametrize(
    "declared",
    ["task_*", ["task_a.*", "task_b"], kind("Linear") & "task*" | "task_a.1", {"task_a", "task_b", "task_c"}],
)
def test_a_value_is_a_glob_a_selector_a_list_or_a_set(declared: Any) -> None:
    infos = parameters_of(tasks(), tags={"late": declared})
    assert having("late", infos) == [i.name for i in infos if i.name.startswith("task_")]


def test_tags_see_the_stated_roles_and_do_not_disturb_each_other() -> None:
    infos = parameters_of(tasks(), roles={"head": "task_a.*"}, tags={"top": role("head"), "all": "*"})
    assert having("top", infos) == having("head", infos)
    assert having("all", infos) == [i.name for i in infos]


def test_a_set_is_a_vocabulary_of_which_one_word_is_enough() -> None:
    infos = parameters_of(ViT(), tags={"no_decay": {"pos_embed", "cls_token", "dist_token"}})
    assert having("no_decay", infos) == ["cls_token", "pos_embed"]


def test_an_empty_collection_states_nothing() -> None:
    assert parameters_of(ViT(), roles={}, tags={"no_decay": set(), "other": []}) == parameters_of(ViT())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"roles": {"heads": "*"}},
            "unknown role 'heads'; did you mean 'head'.*; for words of your own there is tags=",
        ),
        ({"roles": {"head": "task_c"}}, r"roles\['head'\]: task_c matches no parameter \(nearest: task_b, task_a"),
        ({"roles": {"head": ["task_a.*", "taskb.*"]}}, r"roles\['head'\]: taskb.\* matches no .*nearest: task_b.\*"),
        ({"tags": {"x": {"dist_token", "pos_embed"}}}, r"tags\['x'\]: dist_token matches no parameter"),
        ({"tags": {"x": 3}}, r"tags\['x'\]: give a glob, a selector, or a list or set of them, not a int"),
        ({"tags": {"x": {"a": 1}}}, r"tags\['x'\]: give a glob, .* not a dict"),
        ({"tags": {"x": [3]}}, r"tags\['x'\]: int is not a selector"),
        ({"tags": ["x"]}, "tags= takes a mapping from a tag to what has it"),
        ({"roles": {3: "*"}}, "roles= takes a mapping from a role to what has it"),
    ],
)
def test_what_matches_nothing_or_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        parameters_of(tasks(), **options)


def test_it_works_on_meta() -> None:
    with torch.device("meta"):
        model = tasks()
    assert having("head", parameters_of(model, roles={"head": "task*"}))


def test_marks_that_authors_leave_on_parameters_are_tags() -> None:
    model = tasks()
    model.trunk.bias._no_weight_decay = True
    model.trunk.weight._optim = {"lr": 1e-3, "weight_decay": 0.0}
    model.norm.weight._no_weight_decay = False
    found = {info.name: info.tags for info in parameters_of(model, tags={"mine": "trunk"}) if info.tags}
    assert found == {
        "trunk.bias": {"no_weight_decay", "mine"},
        "trunk.weight": {"no_weight_decay", "optim", "optim.lr=1e-3", "optim.weight_decay=0", "mine"},
    }


def levels(infos: Any) -> dict[str, int]:
    return {info.name: info.depth for info in infos}


def test_stated_levels_replace_the_guessed_ones_and_nothing_else() -> None:
    guessed = parameters_of(ViT())
    declared = {"pos_embed": 7, "blocks.*": 8, "blocks.1": 9}  # of two that match, the later counts
    infos = parameters_of(ViT(), depth=declared)
    for info, before in zip(infos, guessed, strict=True):
        first, second = info.name.split(".")[:2] if "." in info.name else (info.name, "")
        named_level = {"pos_embed": 7, "blocks": 9 if second == "1" else 8}
        assert info.depth == named_level.get(first, before.depth)
        assert (info.name, info.roles, info.shape) == (before.name, before.roles, before.shape)


def test_a_function_of_names_states_levels_too_and_may_leave_some_to_the_guess() -> None:
    guessed = levels(parameters_of(ViT()))
    found = levels(parameters_of(ViT(), depth=lambda name: 20 if name.startswith("blocks.") else None))
    assert found == {name: 20 if name.startswith("blocks.") else level for name, level in guessed.items()}


def test_a_stated_level_of_a_tied_parameter_is_that_of_all_its_places() -> None:
    info = parameters_of(language_model(), depth={"lm_head.weight": 5})[0]
    assert [occurrence.depth for occurrence in info.occurrences] == [5, 5]


WRONG_LEVELS: dict[str, tuple[Any, str]] = {
    "a glob that matches nothing": ({"blokcs.*": 1}, r"depth: blokcs.\* matches no parameter \(nearest: blocks"),
    "below zero": ({"blocks": -1}, "depth of 'blocks': a level is a whole number from 0 .* not -1"),
    "a fraction": (lambda name: 0.5, "depth of 'cls_token': a level is a whole number"),
    "a flag": ({"blocks": True}, "not True"),
    "a list": ([1, 2], r"depth= takes \{glob: level\} or a function from name to level, not list"),
}


@pytest.mark.parametrize(("depth", "told"), WRONG_LEVELS.values(), ids=WRONG_LEVELS)
def test_a_level_that_is_none_is_refused(depth: Any, told: str) -> None:
    with pytest.raises(SelectorError, match=told):
        parameters_of(ViT(), depth=depth)
