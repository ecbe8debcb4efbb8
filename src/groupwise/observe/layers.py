"""Which layer a parameter belongs to: the module that holds it, known by the parameter's dotted name.

Names come from the model, where it is given; else from the optimizer: those of a plan, or torch's own `param_names`
(`AdamW(model.named_parameters())`). Layers stand in the order of the model, as far as the names tell it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, final

import torch

from groupwise.errors import RecordError

Model: TypeAlias = torch.nn.Module | Mapping[str, torch.nn.Module]
ROOT: Final = "(root)"
"""The layer of parameters that the model itself holds."""
_INSIDE: Final = "parametrizations."


@final
class Layers:
    """Names the layers of an optimizer's parameters; keeps no model alive.

    Args:
        optimizer: whose parameters.
        model: the model, or networks by name, if the names are to be its own.

    Raises:
        RecordError: `model` is neither.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: Model | None) -> None:
        self._optimizer = optimizer
        networks = {"": model} if isinstance(model, torch.nn.Module) else model
        if networks is not None and not (
            isinstance(networks, Mapping) and all(isinstance(each, torch.nn.Module) for each in networks.values())
        ):
            raise RecordError(f"model= is a torch.nn.Module, or a mapping of names to them, not {type(model).__name__}")
        self._networks: dict[str, Callable[[], torch.nn.Module | None]] = {
            name: weakref.ref(each) for name, each in (networks or {}).items()
        }

    def of(self, live: Sequence[Mapping[str, Any]]) -> dict[int, str]:
        """The layer of each parameter of live groups, by the parameter's identity, in the order of the model.

        Raises `RecordError` if some parameter has no name.
        """
        named = self._of_model() if self._networks else self._of_groups(live)
        names: dict[int, str] = {}
        for p, name in named:
            names.setdefault(id(p), name)
        params = [p for group in live for p in group["params"]]
        unnamed = sum(id(p) not in names for p in params)
        if unnamed:
            raise RecordError(_without_names(self._optimizer, unnamed, len(params), bool(self._networks)))
        wanted = {id(p) for p in params}
        return {key: layer_of(name) for key, name in names.items() if key in wanted}

    def moving_statistics(self) -> list[str]:
        """The norms with frozen parameters whose running statistics follow the data, where a model is known."""
        models = {prefix: reference() for prefix, reference in self._networks.items()}
        return [
            ".".join(part for part in (prefix, name) if part)
            for prefix, model in models.items()
            for name, module in (model.named_modules() if model is not None else ())
            if _follows_the_data(module)
        ]

    def _of_model(self) -> Iterator[tuple[torch.Tensor, str]]:
        for prefix, reference in self._networks.items():
            model = reference()
            for name, p in model.named_parameters() if model is not None else ():
                yield p, f"{prefix}.{name}" if prefix else name

    def _of_groups(self, live: Sequence[Mapping[str, Any]]) -> list[tuple[torch.Tensor, str]]:
        named = [(p, name) for group in live for p, name in zip(group["params"], names_in(group), strict=True) if name]
        resolution = getattr(self._optimizer, "resolution", None)  # resolved in the order of the model
        order = {name: i for i, name in enumerate(getattr(resolution, "resolved", ()))}
        return sorted(named, key=lambda pair: order.get(pair[1], len(order)))


def _follows_the_data(module: torch.nn.Module) -> bool:
    params = list(module.parameters(recurse=False))
    frozen = bool(params) and not any(p.requires_grad for p in params)
    return frozen and module.training and isinstance(getattr(module, "running_mean", None), torch.Tensor)


def layers_in(model: Model) -> Iterator[tuple[str, torch.nn.Module]]:
    """The modules that are layers, by name; and as "" those that have neither parameters nor children."""
    for prefix, each in ({"": model} if isinstance(model, torch.nn.Module) else model).items():
        modules = dict(each.named_modules())
        for layer in dict.fromkeys(layer_of(name) for name, _ in each.named_parameters()):
            named = ".".join(part for part in (prefix, layer if layer != ROOT or not prefix else "") if part)
            yield named, modules["" if layer == ROOT else layer]
        for path, module in modules.items():
            if _INSIDE not in f"{path}." and not list(module.children()) and not list(module.parameters()):
                yield "", module


def names_in(group: Mapping[str, Any]) -> list[str]:
    """The names of a live group's parameters, empty where it has none."""
    names = list(map(str, group.get("param_names", ())))
    return names if len(names) == len(group["params"]) else [""] * len(group["params"])


def layer_of(name: str) -> str:
    """The path of the module that holds a parameter; under a parametrization the module that is parametrized."""
    path = name[: name.index(_INSIDE)].removesuffix(".") if _INSIDE in name else name.rpartition(".")[0]
    return path or ROOT


def _without_names(optimizer: torch.optim.Optimizer, unnamed: int, count: int, given: bool) -> str:
    kind = type(optimizer).__name__
    if given:
        return f"by='layer': {unnamed} of the {count} tensors of {kind} are not in the model that was given"
    return (
        f"by='layer' needs the names of the parameters, and {unnamed} of the {count} tensors of {kind} have none: "
        f"give Observer(…, model=model), or build {kind}(model.named_parameters(), …)"
    )
