"""`parameters=` and `at=`: modules, tensors or names, as the tensors they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from groupwise._spelling import shown
from groupwise.errors import BalanceError, unknown

Parameters: TypeAlias = "nn.Module | Mapping[str, nn.Module | Tensor] | Iterable[Tensor]"
Place: TypeAlias = "nn.Module | Tensor | str | Iterable[nn.Module | Tensor | str]"


def by_name(parameters: object) -> dict[str, Tensor]:
    """The tensors of `parameters=` by name; numbered where it gives none."""
    if isinstance(parameters, DistributedDataParallel):
        parameters = parameters.module
    if isinstance(parameters, nn.Module):
        return dict(parameters.named_parameters())
    if isinstance(parameters, Mapping):
        found: dict[str, Tensor] = {}
        for name, part in parameters.items():
            found.update({name: part} if isinstance(part, Tensor) else _prefixed(name, part))
        return found
    if isinstance(parameters, Tensor | str) or not isinstance(parameters, Iterable):
        raise BalanceError(f"parameters is a module, a mapping or a list of tensors, not {shown(parameters)}")
    listed = {str(i): part for i, part in enumerate(parameters)}
    for part in listed.values():
        if not isinstance(part, Tensor):
            hint = ": give model.parameters(), or the model" if isinstance(part, tuple) else ""
            raise BalanceError(f"parameters holds {shown(part)} ({type(part).__name__}), not a tensor{hint}")
    return listed


def _prefixed(name: str, part: object) -> dict[str, Tensor]:
    if not isinstance(part, nn.Module):
        raise BalanceError(f"parameters[{name!r}] is {shown(part)} ({type(part).__name__}), not a module or a tensor")
    return {f"{name}.{inner}": tensor for inner, tensor in part.named_parameters()}


def layer(at: Place, named: Mapping[str, Tensor] | None) -> tuple[Tensor, ...]:
    """The tensors of `at=`. Raises `BalanceError` for a name that is not known, or a place without parameters."""
    found = tuple(dict.fromkeys(_tensors(at, named)))
    if not found:
        raise BalanceError(f"at={shown(at)} has no parameter that requires grad")
    return found


def _tensors(at: object, named: Mapping[str, Tensor] | None) -> list[Tensor]:
    if isinstance(at, str):
        return _of_name(at, named)
    if isinstance(at, Tensor):
        return [at] if at.requires_grad else []
    if isinstance(at, nn.Module):
        return [parameter for parameter in at.parameters() if parameter.requires_grad]
    if isinstance(at, Iterable):
        return [tensor for part in at for tensor in _tensors(part, named)]
    raise BalanceError(f"at is a module, a parameter or a name, not {shown(at)} ({type(at).__name__})")


def _of_name(at: str, named: Mapping[str, Tensor] | None) -> list[Tensor]:
    if named is None:
        raise BalanceError(f"at={at!r} is a name: pass parameters=model too, or the layer itself (at=model.trunk)")
    found = [tensor for name, tensor in named.items() if name == at or name.startswith(f"{at}.")]
    if not found:
        parents = {name.rpartition(".")[0] for name in named} - {""}
        raise BalanceError(f"at=: {unknown('layer', at, [*sorted(parents), *named])}")
    return [tensor for tensor in found if tensor.requires_grad]
