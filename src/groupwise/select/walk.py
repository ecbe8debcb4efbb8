"""The walk: from a module to the infos of its parameters, by duck typing alone.

A module is whatever has `named_modules`, `_modules` and `_parameters`; torch is never imported. The tree is built as a
person would write the names down, so what merely surrounds a model does not show: `DistributedDataParallel`, the
compiler's `_orig_mod`, FSDP's and checkpointing's wrappers. A layer under parametrization keeps the tensor names that
torch gives them, while the layer that they stand for still counts as theirs, and selectors know its tensors by their
plain names as well.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from groupwise import _wrappers
from groupwise.errors import SelectorError
from groupwise.select.declared import Declared, DeclaredDepth, tagged, with_depths, with_roles
from groupwise.select.described import describe
from groupwise.select.info import ParameterInfo
from groupwise.select.tree import Node, OwnParameter
from groupwise.select.usage import Usage, with_usage
from groupwise.select.vocabulary import embedding_kind, is_linear

_WRAPPERS = re.compile(r"DataParallel$|^AveragedModel$|^(DeepSpeed\w*|Pipeline)Engine$|^ModelEma")
_WEIGHT_NORM = {"original0": "_g", "original1": "_v"}  # length and direction, as weight norm has long called them
_MADE_FROM = ("_orig", *_WEIGHT_NORM.values())
_NOISE = {"object", "Module", "Generic", "ABC", "Protocol"}


def parameters_of(
    model: Any,
    roles: Mapping[str, Declared] | None = None,
    tags: Mapping[str, Declared] | None = None,
    depth: DeclaredDepth | None = None,
    usage: Usage | None = None,
) -> tuple[ParameterInfo, ...]:
    """Every parameter of a model, frozen ones included, once each, in module order.

    Args:
        model: a module (any device, `meta` included), or a mapping of names to modules or lone parameters. From a
            mapping, names start with the key, and the key is the parameter's `network`.
        roles: roles to add, as `{"head": "task*.*"}`. A role `head` given for a network replaces the guess there.
        tags: the caller's own words, as `{"no_decay": model.no_weight_decay()}`.
            In both, a value is a glob or a selector, a list of them, each of which must match, or a set of names, as
            models return it, which may hold names that this model lacks as long as it has one of them.
        depth: levels in place of guessed ones, as `{"stem.*": 0, "blocks.0": 1}` (of several entries that match a
            parameter the last counts), or a function from a name to its level. What is not named, or is given None,
            keeps its guessed level.
        usage: what a forward pass showed, in place of guesses (`groupwise.look.parameters_of` takes an example and
            makes it). What is stated in `roles` and `depth` overrides it.

    Raises:
        SelectorError: not a model, a role that does not exist, an entry that matches nothing, or a level that is none.
    """
    infos = describe(trees_of(model))
    infos = with_usage(infos, usage) if usage is not None else infos
    infos = with_roles(infos, roles) if roles else infos
    infos = tagged(infos, tags) if tags else infos
    return with_depths(infos, depth) if depth is not None else infos


def trees_of(model: Any) -> list[tuple[str, Node]]:
    """The networks of a model as (key, tree) pairs. Raises `SelectorError` for what is no model."""
    return [(key, _tree(part, key)) for key, part in _networks(model)]


def _networks(model: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(model, Mapping):
        if not _is_module(model):
            raise SelectorError(f"{_called(model)} is not a model; {_way_out(model)}")
        yield "", model
        return
    if not model:
        raise SelectorError("the mapping of networks is empty; give {'generator': module, 'temperature': parameter}")
    for key, part in model.items():
        if not isinstance(key, str) or not key or "." in key:
            whole = "; for parameters by their names in a model give the model itself" if _is_tensor(part) else ""
            raise SelectorError(f"network {key!r}: a network's key is text, not empty and without a dot{whole}")
        if not _is_module(part) and not _is_tensor(part):
            raise SelectorError(f"network {key!r}: {_called(part)} is neither module nor parameter; {_way_out(part)}")
        yield key, part


def _tree(part: Any, key: str) -> Node:
    if _is_module(part):
        return _node(part, "", "", set())
    return Node("", "", (), (OwnParameter("", key, part),))


def _node(module: Any, name: str, path: str, above: set[int]) -> Node:
    module = unwrapped(module)
    above = above | {id(module)}
    kinds = _kinds(module)
    children: list[Node] = []
    held = list(_own(module, kinds, name))
    for child_name, child in _children(module):
        if child_name == "parametrizations" and "ModuleDict" in _kinds(child):
            _absorb(child, path, held, children, above)
        elif id(child) not in above:
            children.append(_node(child, child_name, f"{path}.{child_name}" if path else child_name, above))
    features = _features(module, held) if is_linear(kinds) else (None, None)
    sparse = bool(embedding_kind(kinds)) and getattr(module, "sparse", False) is True
    return Node(name, path, kinds, tuple(held), tuple(children), features, sparse)


def _own(module: Any, kinds: tuple[str, ...], name: str) -> Iterator[OwnParameter]:
    if not module._parameters:
        return
    collected = "ParameterList" in kinds or "ParameterDict" in kinds
    for own, tensor in module._parameters.items():
        if tensor is None:
            continue
        made = _made_from(module, own)
        leaf = made if made and own.endswith("_orig") else f"{name}_{own}" if collected else own
        yield OwnParameter(own, leaf, tensor, (made,) if made else ())


def _made_from(module: Any, own: str) -> str:
    """`weight` for `weight_orig`, `weight_g` and `weight_v` where a hook computes it from them: pruning, and spectral
    and weight norm of torch.nn.utils, whose forward uses a plain tensor of that name. Empty for any other."""
    if not own.endswith(_MADE_FROM):
        return ""
    plain = next(own.removesuffix(end) for end in _MADE_FROM if own.endswith(end))
    return plain if plain and _is_tensor(vars(module).get(plain)) else ""


def _absorb(parametrizations: Any, path: str, held: list[OwnParameter], children: list[Node], above: set[int]) -> None:
    """Give a parametrized layer its tensors: the originals as its own, the parametrizations' as layers below it."""
    for tensor_name, listed in _children(parametrizations):
        prefix = f"parametrizations.{tensor_name}"
        kinds = {kind for _, child in _children(listed) for kind in _kinds(child)}
        for own, tensor in listed._parameters.items():
            if tensor is not None:
                spelt = _WEIGHT_NORM.get(own, "") if "_WeightNorm" in kinds else ""
                leaf = tensor_name + spelt
                held.append(OwnParameter(f"{prefix}.{own}", leaf, tensor, tuple(dict.fromkeys((tensor_name, leaf)))))
        for name, child in _children(listed):
            below = f"{prefix}.{name}"
            children.append(_node(child, below, f"{path}.{below}" if path else below, above))


def _children(module: Any) -> Iterator[tuple[str, Any]]:
    return ((name, child) for name, child in module._modules.items() if child is not None)


def unwrapped(module: Any) -> Any:
    """The model inside any number of wrappers; one that carries parameters of its own is no mere wrapper."""
    while (inner := _wrapped(module)) is not None:
        module = inner
    return module


def _wrapped(module: Any) -> Any:
    if not module._modules:
        return None
    name = next((name for name in _wrappers.ALWAYS if name in module._modules), None)
    if name is None and "module" in module._modules and any(map(_WRAPPERS.search, _kinds(module))):
        name = "module"
    if name is None or module._parameters:
        return None
    others = (child for other, child in _children(module) if other != name)
    return None if any(any(True for _ in child.parameters()) for child in others) else module._modules[name]


def _kinds(module: Any) -> tuple[str, ...]:
    return _class_names(module.__class__.__mro__)


@functools.lru_cache(maxsize=1024)
def _class_names(mro: tuple[type, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(base.__name__ for base in mro if base.__name__ not in _NOISE))


def _features(module: Any, held: list[OwnParameter]) -> tuple[int | None, int | None]:
    fan_in, fan_out = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(fan_in, int) and isinstance(fan_out, int):
        return fan_in, fan_out
    shape = next((tuple(own.tensor.shape) for own in held if own.leaf == "weight"), ())
    if len(shape) != 2:
        return None, None
    return (shape[0], shape[1]) if "Conv1D" in _kinds(module) else (shape[1], shape[0])


def _is_module(model: Any) -> bool:
    return not isinstance(model, type) and all(
        getattr(model, name, None) is not None for name in ("named_modules", "_modules", "_parameters")
    )


def _is_tensor(part: Any) -> bool:
    return not isinstance(part, type) and not isinstance(part, Mapping) and getattr(part, "shape", None) is not None


def _called(model: Any) -> str:
    return f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__


def _way_out(model: Any) -> str:
    if isinstance(model, type):
        return f"give an instance: {model.__name__}(…)"
    if isinstance(model, Mapping):
        return "networks do not nest: give one flat mapping of names to modules"
    return "give the module itself (not model.parameters()), or a mapping of names to modules or parameters"
