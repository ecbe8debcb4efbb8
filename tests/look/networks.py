"""Random networks whose structure is known, with attributes named after anything: nothing is to be read from a name."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

WIDTH = 8

Names = Callable[[str], str]


def plain(name: str) -> str:
    """Names as people give them."""
    return name


def noise(seed: int) -> Names:
    """Names that say nothing, or something else."""
    chance, given = random.Random(seed), dict[str, str]()
    words = ["qx", "head", "embed", "norm", "stem", "bias", "teacher", "scale", "zz", "weight", "pos", "gamma"]

    def name(plain: str) -> str:
        if plain not in given:
            given[plain] = f"{chance.choice(words)}_{len(given)}x"
        return given[plain]

    return name


class Named(nn.Module):
    """A module whose attributes are called by a `Names`, in its code as well."""

    def __init__(self, names: Names, **parts: Any) -> None:
        super().__init__()
        self._names = names
        for plain_name, part in parts.items():
            setattr(self, names(plain_name), part)

    def part(self, plain_name: str) -> Any:
        """What a plain name stands for."""
        return getattr(self, self._names(plain_name))


class RootMeanSquare(Named):
    """A norm by hand."""

    def __init__(self, names: Names) -> None:
        super().__init__(names, gain=nn.Parameter(torch.ones(WIDTH)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x / rms(x) * gain."""
        out: torch.Tensor = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.part("gain")
        return out


class Layer(Named):
    """A residual block: norm, two products (by layers, or by bare parameters), a layer scale."""

    def __init__(self, names: Names, bare: bool) -> None:
        up: Any = nn.Parameter(torch.rand(WIDTH, 2 * WIDTH)) if bare else nn.Linear(WIDTH, 2 * WIDTH)
        super().__init__(
            names, before=RootMeanSquare(names) if bare else nn.LayerNorm(WIDTH), up=up,
            down=nn.Linear(2 * WIDTH, WIDTH), size=nn.Parameter(torch.ones(WIDTH)),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x + size * down(relu(up(norm(x))))."""
        up, inside = self.part("up"), self.part("before")(x)
        inside = up(inside) if isinstance(up, nn.Module) else inside @ up
        out: torch.Tensor = x + self.part("down")(F.relu(inside)) * self.part("size")
        return out


@dataclass(frozen=True)
class Spec:
    """A network: towers of some lengths side by side, a trunk over their sum, heads, and what else it may have."""

    towers: tuple[int, ...] = (2,)
    trunk: int = 0
    heads: int = 1
    tied: bool = False
    copy: int = 0
    bare: bool = False
    spare: bool = False
    expected: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict, compare=False)


specs = st.builds(
    Spec,
    towers=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    trunk=st.integers(0, 2),
    heads=st.integers(0, 3),
    tied=st.booleans(),
    copy=st.sampled_from([0, 0, 1, 6]),
    bare=st.booleans(),
    spare=st.booleans(),
)


class Network(Named):
    """What a `Spec` says, as a module."""

    def __init__(self, spec: Spec, names: Names) -> None:
        def stack(length: int) -> nn.Module:
            return nn.ModuleList(Layer(names, spec.bare) for _ in range(length))

        parts: dict[str, Any] = {"table": nn.Embedding(11, WIDTH), "place": nn.Parameter(torch.rand(1, 5, WIDTH))}
        parts |= {f"tower{i}": stack(length) for i, length in enumerate(spec.towers)}
        parts |= {"trunk": stack(spec.trunk)} if spec.trunk else {}
        parts["last"] = RootMeanSquare(names)
        parts |= {f"end{i}": nn.Linear(WIDTH, i + 2) for i in range(spec.heads)}
        parts |= {"words": nn.Linear(WIDTH, 11, bias=False)} if spec.tied else {}
        parts |= {"copy": stack(spec.copy).requires_grad_(False)} if spec.copy else {}
        parts |= {"spare": nn.Linear(WIDTH, WIDTH)} if spec.spare else {}
        super().__init__(names, **parts)
        self._spec = spec
        if spec.tied:
            self.part("words").weight = self.part("table").weight

    def forward(self, ids: torch.Tensor) -> Any:
        """The outputs of all heads."""
        spec, start = self._spec, self.part("table")(ids) + self.part("place")
        with torch.no_grad():
            copied = _through(self.part("copy"), start) if spec.copy else None
        x = sum(_through(self.part(f"tower{i}"), start) for i in range(len(spec.towers)))
        x = _through(self.part("trunk"), x) if spec.trunk else x
        x = self.part("last")(x)
        outputs = [self.part(f"end{i}")(x) for i in range(spec.heads)]
        return [*outputs, *([self.part("words")(x)] if spec.tied else []), copied, x]


def _through(blocks: Any, x: Any) -> Any:
    for block in blocks:
        x = block(x)
    return x


def expected(spec: Spec, names: Names) -> dict[str, tuple[int, frozenset[str]]]:
    """Level and roles of every parameter that the forward uses, by name."""
    found: dict[str, tuple[int, frozenset[str]]] = {}

    def put(path: str, level: int, *roles: str) -> None:
        dotted = ".".join(
            part if part.isdigit() or part in ("weight", "bias") else names(part) for part in path.split(".")
        )
        found[dotted] = (level, frozenset(roles))

    def blocks(name: str, start: int, length: int, top: int) -> None:
        for i in range(length):
            _put_layer(put, f"{name}.{i}", min(start + i + 1, top), spec.bare)

    tall = max(spec.towers)
    top = tall + spec.trunk + 1
    put("table.weight", 0, "embedding", "weight", *(["head"] if spec.tied else []))
    put("place", 0, "embedding")
    for i, length in enumerate(spec.towers):
        blocks(f"tower{i}", 0, length, top)
    blocks("trunk", tall, spec.trunk, top)
    blocks("copy", 0, spec.copy, top)
    put("last.gain", top, "norm", "weight")
    for i in range(spec.heads):
        put(f"end{i}.weight", top, "head", "weight")
        put(f"end{i}.bias", top, "head", "bias")
    return found


def _put_layer(put: Callable[..., None], path: str, level: int, bare: bool) -> None:
    if bare:
        put(f"{path}.before.gain", level, "norm", "weight")
        put(f"{path}.up", level, "matrix", "weight")
    else:
        put(f"{path}.before.weight", level, "norm", "weight")
        put(f"{path}.before.bias", level, "norm", "bias")
        put(f"{path}.up.weight", level, "matrix", "weight")
        put(f"{path}.up.bias", level, "bias")
    put(f"{path}.down.weight", level, "matrix", "weight")
    put(f"{path}.down.bias", level, "bias")
    put(f"{path}.size", level, "scalar")


def renamed(model: nn.Module, names: Names) -> nn.Module:
    """The same model with every attribute under another name; numbers, and the keys of dictionaries, stay."""
    for module in list(model.modules()):
        if isinstance(module, nn.ModuleDict | nn.ParameterDict | nn.utils.parametrize.ParametrizationList):
            continue
        given = {plain: names(plain) for plain in [*module._modules, *module._parameters] if not plain.isdigit()}
        for held in (module._modules, module._parameters):
            items = list(held.items())
            held.clear()
            held.update((given.get(plain, plain), part) for plain, part in items)  # type: ignore[misc]
        module.__class__ = _answering(type(module), given)
    return model


def _answering(kind: type[nn.Module], given: dict[str, str]) -> type[nn.Module]:
    """A class whose code finds its attributes under their other names."""

    def found(self: nn.Module, name: str) -> Any:
        return kind.__getattr__(self, given.get(name, name))

    return type(kind.__name__, (kind,), {"__getattr__": found})
