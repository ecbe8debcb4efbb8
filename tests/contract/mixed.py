"""Mixed optimizers behind the constructor of a plain one, in the form of PyTorch's own optimizer database.

PyTorch tests every optimizer class over `torch.testing._internal.common_optimizers.optim_db`: a list of
`OptimizerInfo`, each a class, a function that yields its configurations, and what it supports. A plan takes a model and
not a list of parameters, so a shim stands between: it routes each parameter of a plain list to one of two algorithms,
through a real `GroupedOptimizer`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch.testing._internal.common_optimizers import (
    OptimizerInfo,
    OptimizerInput,
    _get_optim_inputs_including_global_cliquey_kwargs,
    optim_db,
)

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise.optim.algorithms import hyperparameters_of
from groupwise.select import ParameterInfo, tag
from groupwise.select.info import Occurrence

Route = Callable[[int, torch.Tensor], bool]
DB: Mapping[str, OptimizerInfo] = {info.name: info for info in optim_db}


class Shim(GroupedOptimizer):
    """Routes parameters to `first` or to `second`; arguments go to whichever of the two has them."""

    first: ClassVar[type[torch.optim.Optimizer]]
    second: ClassVar[type[torch.optim.Optimizer]]
    route: ClassVar[Route]

    def __init__(self, params: Iterable[Any], lr: float | torch.Tensor = 1e-3, **arguments: Any) -> None:
        shapes = torch.optim.Optimizer(params, {"lr": lr, **arguments}).param_groups  # torch's own reading of them
        super().__init__(tuple(self._infos(shapes)), Plan(list(self._rules(shapes))))
        for group in self.param_groups:
            given = shapes[int(group["name"].rpartition("group ")[2])]["lr"]
            group["lr"] = given if isinstance(given, torch.Tensor) else group["lr"]

    def _infos(self, groups: list[dict[str, Any]]) -> Iterator[ParameterInfo]:
        seen: dict[int, None] = {}
        for g, group in enumerate(groups):
            names = group.get("param_names") or [f"{g}.{i}" for i in range(len(group["params"]))]
            for name, p in zip(names, group["params"], strict=True):
                first = type(self).route(len(seen), p)
                if id(p) not in seen:
                    seen[id(p)] = None
                    where = frozenset({f"group{g}", "first" if first else "second"})
                    shape = tuple(p.shape)
                    yield ParameterInfo((Occurrence(name),), shape, p.requires_grad, tags=where, parameter=p)

    def _rules(self, groups: list[dict[str, Any]]) -> Iterator[Rule]:
        for g, group in enumerate(groups):
            for which in ("first", "second"):
                cls = getattr(self, which)
                known = hyperparameters_of(cls)
                values = {name: value for name, value in group.items() if name in known}
                values["lr"] = float(group["lr"])
                match = tag(f"group{g}") & tag(which)
                yield Rule(match, label=f"{which} of group {g}", optimizer=cls, optional=True, **values)


class ByRank(Shim):
    """Matrices under SGD, the rest under AdamW."""

    first, second = torch.optim.SGD, torch.optim.AdamW
    route = staticmethod(lambda i, p: p.ndim == 2)


class ByPlace(Shim):
    """Every other parameter under SGD, the rest under AdamW: the real view of a complex matrix has three dimensions."""

    first, second = torch.optim.SGD, torch.optim.AdamW
    route = staticmethod(lambda i, p: i % 2 == 0)


class Sparse(Shim):
    """Every other parameter under SGD, the rest under Adagrad: both take sparse gradients."""

    first, second = torch.optim.SGD, torch.optim.Adagrad
    route = staticmethod(lambda i, p: i % 2 == 0)


def _inputs(device: str, dtype: torch.dtype | None = None) -> list[OptimizerInput]:
    return [
        OptimizerInput(params=None, kwargs={"momentum": 0.9}, desc="momentum"),
        OptimizerInput(params=None, kwargs={"momentum": 0.9, "lr": 0.01}, desc="non-default lr"),
        OptimizerInput(params=None, kwargs={"momentum": 0.9, "lr": torch.tensor(0.001)}, desc="tensor lr"),
        OptimizerInput(params=None, kwargs={"momentum": 0.9, "weight_decay": 0.1}, desc="weight_decay"),
        OptimizerInput(params=None, kwargs={"momentum": 0.9, "weight_decay": 0.1, "maximize": True}, desc="maximize"),
        OptimizerInput(
            params=None,
            kwargs={"momentum": 0.9, "nesterov": True, "betas": (0.8, 0.95), "amsgrad": True},
            desc="an argument of each algorithm",
        ),
    ]


def _sparse_inputs(device: str, dtype: torch.dtype | None = None) -> list[OptimizerInput]:
    return [OptimizerInput(params=None, kwargs={"maximize": up}, desc=f"maximize={up}") for up in (False, True)]


def _info(cls: type[Shim]) -> OptimizerInfo:
    sgd = DB["SGD"]
    return OptimizerInfo(
        cls,
        optim_inputs_func=_sparse_inputs if cls is Sparse else _inputs,
        scheduler_inputs=sgd.scheduler_inputs,
        supported_impls=("foreach", "fused"),
        not_og_supported_flags=sgd.not_og_supported_flags,
        supports_sparse=cls is Sparse,
        supports_complex=True,
        supports_fused_on=("cpu",),
    )


MIXED = [_info(cls) for cls in (ByRank, ByPlace)]
SPARSE = _info(Sparse)


def configurations(info: OptimizerInfo, *skip: str) -> list[dict[str, Any]]:
    """Every configuration, each alone and with foreach and fused (without those that are named in `skip`)."""
    inputs = _get_optim_inputs_including_global_cliquey_kwargs("cpu", torch.float32, info, skip=skip)
    return [chosen.kwargs for chosen in inputs]


def plain(info: OptimizerInfo) -> list[dict[str, Any]]:
    """The configurations alone."""
    return [chosen.kwargs for chosen in info.optim_inputs_func(device="cpu")]
