"""Random module trees: layers, norms, tables, bare and tied parameters, numbered and named containers, networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st
from torch import nn

from groupwise.optim import parameters_of

WORDS = ("backbone", "neck", "head", "embed", "norm", "attn")


class Box(nn.Module):
    """Named children, and perhaps a parameter of its own."""

    def __init__(self, children: Mapping[str, nn.Module], own: bool = False) -> None:
        super().__init__()
        if own:
            self.gain = nn.Parameter(torch.ones(3))
        for name, child in children.items():
            self.add_module(name, child)


@dataclass
class Occurrence:
    """A parameter as a walk of one's own finds it: every name, the classes that hold it, every level."""

    tensor: torch.Tensor
    network: str
    names: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    depths: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.names[0]


Model = nn.Module | dict[str, nn.Module | nn.Parameter]


def networks_of(model: Model) -> list[tuple[str, nn.Module | nn.Parameter]]:
    return [("", model)] if isinstance(model, nn.Module) else list(model.items())


def places_of(model: Model) -> list[Occurrence]:
    """Every parameter of a model once, in module order. Levels are taken as given: tests/select has their laws."""
    levels = {id(info.parameter): [o.depth for o in info.occurrences] for info in parameters_of(model)}
    found: dict[int, Occurrence] = {}
    for network, part in networks_of(model):
        for name, kinds, tensor in _held(network, part):
            occurrence = found.setdefault(id(tensor), Occurrence(tensor, network, depths=levels[id(tensor)]))
            occurrence.names.append(name)
            occurrence.kinds |= kinds
    return list(found.values())


def _held(network: str, part: nn.Module | nn.Parameter) -> list[tuple[str, set[str], torch.Tensor]]:
    if isinstance(part, nn.Parameter):
        return [(network, set(), part)]
    return [
        (".".join(filter(None, (network, path, leaf))), {c.__name__ for c in type(module).__mro__}, p)
        for path, module in part.named_modules(remove_duplicate=False)
        for leaf, p in module._parameters.items()
        if p is not None
    ]


def _carries(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


leaves = st.one_of(
    st.builds(nn.Linear, st.just(2), st.just(3)),
    st.builds(nn.Linear, st.just(3), st.just(2), bias=st.just(False)),
    st.builds(nn.Conv2d, st.just(1), st.just(3), st.just(1)),
    st.builds(nn.LayerNorm, st.just(3)),
    st.builds(nn.Embedding, st.just(2), st.just(3)),
    st.builds(nn.ReLU),
)


def _containers(inner: st.SearchStrategy[nn.Module]) -> st.SearchStrategy[nn.Module]:
    named = st.dictionaries(st.sampled_from(WORDS), inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(Box, named, st.booleans()),
        st.lists(inner, min_size=1, max_size=3).map(lambda children: nn.Sequential(*children)),
    )


trees = st.recursive(leaves, _containers, max_leaves=7).filter(_carries)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A tree, two trees, or a tree and a lone parameter; some parameters frozen, some tied."""
    kind = draw(st.sampled_from(["tree", "two", "lone"]))
    model: Model = draw(trees)
    if kind != "tree":
        model = {"gen": model, "other": draw(trees) if kind == "two" else nn.Parameter(torch.zeros(()))}
    _tie(draw, [part for _, part in networks_of(model) if isinstance(part, nn.Module)])
    for occurrence in places_of(model):
        occurrence.tensor.requires_grad_(draw(st.integers(0, 4)) > 0)
    return model


def _tie(draw: st.DrawFn, parts: list[nn.Module]) -> None:
    holders = [
        (m, leaf) for part in parts for m in part.modules() for leaf, p in m._parameters.items() if p is not None
    ]
    for _ in range(draw(st.integers(0, 2))):
        (one, a), (other, b) = draw(st.sampled_from(holders)), draw(st.sampled_from(holders))
        if one._parameters[a].shape == other._parameters[b].shape:  # type: ignore[union-attr]
            other._parameters[b] = one._parameters[a]
