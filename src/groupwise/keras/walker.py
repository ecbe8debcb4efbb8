"""From a Keras model to a tree of named layers.

Keras names a variable by its path, which depends on how the model was made and changes when it is loaded again
(`net/body/kernel` becomes `body/kernel`). So names are taken from the structure instead: layers under a Functional or
Sequential model go by the names that they have there, layers under anything else by the attribute that holds them, and
lists and dictionaries of layers are levels of their own: `blocks.1.attention.query_dense.kernel`. What the structure
gives besides is the class of each layer and, from numbered lists, the depth.

A bare list of variables has no structure. `paths_of` makes the best of their paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import keras

from groupwise.errors import ResolutionError, listed
from groupwise.keras._keras import attributes_of, class_names, layers_of, own_variables, path_of
from groupwise.keras.balanced_model import BalancedModel
from groupwise.keras.blocks import with_blocks
from groupwise.select import ParameterInfo
from groupwise.select.described import describe
from groupwise.select.tree import Node, OwnParameter
from groupwise.select.vocabulary import is_conv, is_linear


def variables_of(model: Any) -> tuple[ParameterInfo, ...]:
    """Every variable of a model that training may change, frozen ones included, once each, in order of registration.

    Args:
        model: a built Keras model or layer, or a mapping of names to such; from a mapping, names start with the key,
            and the key is the variable's `network`.

    Raises:
        ResolutionError: not a model, or one that has no variables yet.
    """
    networks = model.items() if isinstance(model, Mapping) else [("", model)]
    return describe([(key, _root(part)) for key, part in networks])


def paths_of(variables: Sequence[Any]) -> tuple[ParameterInfo, ...]:
    """What the paths of variables tell about them: names and shapes, no classes.

    Raises `ResolutionError` if two variables have the same path, as they may in nested models.
    """
    paths = [path_of(variable).replace("/", ".") for variable in variables]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise ResolutionError(
            f"several variables have the path {listed(twice)}, so their paths cannot tell them apart; "
            "let the model do it: GroupedOptimizer(plan, …).bind(model)"
        )
    return describe([("", _of_paths("", "", list(zip(paths, variables, strict=True))))])


def averaging_layers(model: Any, frozen: Collection[int]) -> list[str]:
    """Names of the layers of a model that average what they see in training, and whose own variables are all `frozen`.

    Args:
        frozen: ids of variables. A layer that Keras itself has frozen does not average.
    """
    return [
        layer.name
        for layer in _all_layers(model, set())
        if "BatchNormalization" in _kinds(layer) and layer.trainable and (own := own_variables(layer))
        if all(id(variable) in frozen for variable in own)
    ]


def _all_layers(layer: Any, visited: set[int]) -> Iterator[Any]:
    if id(layer) not in visited:
        visited.add(id(layer))
        yield layer
        for _, value in _entries(layer):
            for part in _layers_in(value):
                yield from _all_layers(part, visited)


def _root(model: Any) -> Node:
    if not isinstance(model, keras.layers.Layer):
        raise ResolutionError(
            f"bind takes a keras model, or a mapping of names to models, not a {type(model).__name__}"
        )
    if not model.built:
        raise ResolutionError(
            f"model {model.name!r} is not built, so it has no variables yet: give it an Input, or call it on one batch "
            "(or model.build(input_shape)) before bind(model)"
        )
    inner = model.inner if isinstance(model, BalancedModel) else model
    return _node(inner, "", "", frozenset())


def _node(layer: Any, name: str, path: str, above: frozenset[int]) -> Node:
    above = above | {id(layer)}
    kinds = _kinds(layer)
    held = tuple(_held(layer))
    entries = _entries(layer)
    children = tuple(_children(entries, path, above))
    if isinstance(layer, keras.Model) and _is_graph(layer):
        layers = dict(entries)
        children = with_blocks(path, [(layers[child.name], child) for child in children])
    linear = is_linear(kinds) or _is_pointwise(layer, kinds)
    return Node(name, path, kinds, held, children, _features(held) if linear else (None, None))


def _children(entries: Iterable[tuple[str, Any]], path: str, above: frozenset[int]) -> Iterator[Node]:
    for name, value in entries:
        below = f"{path}.{name}" if path else name
        if not isinstance(value, keras.layers.Layer):
            yield Node(name, below, (), (), tuple(_children(_members(value), below, above)))
        elif id(value) not in above:
            yield _node(value, name, below, above)


def _entries(layer: Any) -> list[tuple[str, Any]]:
    """What a layer is made of, by name, in order of registration: layers, and containers of layers."""
    named = [(part.name, part) for part in layer.layers] if isinstance(layer, keras.Model) and _is_graph(layer) else []
    known = {id(part) for _, part in named}
    order = {id(part): i for i, part in enumerate(layers_of(layer))}
    own = [
        (name.lstrip("_"), value, [id(part) for part in _layers_in(value)])
        for name, value in attributes_of(layer).items()
    ]
    own = [entry for entry in own if entry[2] and not known.issuperset(entry[2])]
    own.sort(key=lambda entry: min(order.get(part, len(order)) for part in entry[2]))
    return named + [(name, value) for name, value, _ in own]


def _is_graph(model: Any) -> bool:
    return isinstance(model, keras.Sequential) or "Functional" in _kinds(model)


def _layers_in(value: Any) -> list[Any]:
    if isinstance(value, keras.layers.Layer):
        return [value]
    return [layer for _, member in _members(value) for layer in _layers_in(member)]


def _members(value: Any) -> list[tuple[str, Any]]:
    """The entries of a list or dictionary that have layers in them."""
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, list | tuple):
        entries = enumerate(value)
    elif isinstance(value, dict):
        entries = value.items()
    return [(str(key), member) for key, member in entries if _layers_in(member)]


def _held(layer: Any) -> Iterator[OwnParameter]:
    """The layer's own variables that were made to be trained, whether or not they are now."""
    taken: set[str] = set()
    for i, variable in enumerate(own_variables(layer)):
        name = variable.name if variable.name not in taken else f"{variable.name}_{i}"
        taken.add(name)
        yield OwnParameter(name, variable.name, variable)


def _is_pointwise(layer: Any, kinds: tuple[str, ...]) -> bool:
    """Whether a convolution is an affine map of one place, as the last layer of a MobileNet is."""
    if not is_conv(kinds):
        return False
    try:
        places = tuple(layer.input.shape)[1:-1]
    except (AttributeError, ValueError):  # not called, called several times, or with several tensors
        return False
    return set(places) == {1}


def _features(held: Sequence[OwnParameter]) -> tuple[int | None, int | None]:
    """What a kernel takes and gives; the places of a pointwise convolution are all one."""
    shape = next((tuple(own.tensor.shape) for own in held if own.leaf == "kernel"), ())
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (None, None)


def _kinds(layer: Any) -> tuple[str, ...]:
    """Class names of a layer, its own first, the same on every backend."""
    return tuple(dict.fromkeys(class_names(layer)))


def _of_paths(name: str, path: str, found: Sequence[tuple[str, Any]]) -> Node:
    """The node of all variables whose rest of the path is given with them."""
    held = tuple(OwnParameter(rest, rest, variable) for rest, variable in found if "." not in rest)
    below: dict[str, list[tuple[str, Any]]] = {}
    for rest, variable in found:
        first, dot, others = rest.partition(".")
        if dot:
            below.setdefault(first, []).append((others, variable))
    children = [_of_paths(first, f"{path}.{first}" if path else first, own) for first, own in below.items()]
    return Node(name, path, (), held, tuple(children))
