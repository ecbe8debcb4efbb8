"""Random module trees: layers, norms, tables, bare and tied parameters, numbered and named containers, networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st
from torch import nn

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
    """A parameter as a walk of one's own finds it: every name, the classes that hold it, every depth."""

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
    """Every parameter of a model once, in module order."""
    found: dict[int, Occurrence] = {}
    for network, part in networks_of(model):
        for name, kinds, depth, tensor in _held(network, part):
            occurrence = found.setdefault(id(tensor), Occurrence(tensor, network))
            occurrence.names.append(name)
            occurrence.kinds |= kinds
            occurrence.depths.append(depth)
    return list(found.values())


def _held(network: str, part: nn.Module | nn.Parameter) -> list[tuple[str, set[str], int, torch.Tensor]]:
    if isinstance(part, nn.Parameter):
        return [(network, set(), 0, part)]
    modules = list(part.named_modules(remove_duplicate=False))
    depths = depths_of(part)
    return [
        (".".join(filter(None, (network, path, leaf))), {c.__name__ for c in type(module).__mro__}, depths[path], p)
        for path, module in modules
        for leaf, p in module._parameters.items()
        if p is not None
    ]


def depths_of(root: nn.Module) -> dict[str, int]:
    """Depth by module path, as the design words it: what lies between blocks goes with the last one passed."""
    modules = list(root.named_modules(remove_duplicate=False))
    stacks = [path for path, module in modules if _numbered(module)]
    outermost = [path for path in stacks if not any(_below(path, other) for other in stacks if other != path)]
    blocks = [path for path, module in modules if path.rpartition(".")[0] in outermost and path and _carries(module)]
    if not blocks:
        children = [name for name, child in root._modules.items() if _carries(child)]
        return {path: children.index(top) + 1 if (top := path.split(".")[0]) in children else 0 for path, _ in modules}
    order = {path: i for i, (path, _) in enumerate(modules)}
    return {path: _level(path, blocks, order) for path, _ in modules}


def _level(path: str, blocks: list[str], order: dict[str, int]) -> int:
    own = next((k for k, block in enumerate(blocks, start=1) if _below(path, block)), None)
    passed = sum(order[block] < order[path] for block in blocks)
    return own or (len(blocks) + 1 if passed == len(blocks) else passed)


def _below(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(f"{top}.")


def _carries(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def _numbered(module: nn.Module) -> bool:
    names = list(module._modules)
    return bool(names) and all(name.isdigit() for name in names) and any(map(_carries, module._modules.values()))


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
