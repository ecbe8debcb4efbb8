"""`parameters=` and `at=`: modules, tensors or names, and the tensors that they stand for at the moment.

A module is walked anew at every update, since layers are unfrozen, grow and are replaced. Tensors that were given
one by one are held weakly: one that is gone is an error, as nobody can say which took its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, final
from weakref import ref

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from groupwise._spelling import shown
from groupwise.errors import BalanceError, unknown

Parameters: TypeAlias = "nn.Module | Mapping[str, nn.Module | Tensor] | Iterable[Tensor]"
Place: TypeAlias = "nn.Module | Tensor | str | Iterable[nn.Module | Tensor | str]"

_Held: TypeAlias = "nn.Module | str | Callable[[], Tensor | None]"


class Scope(NamedTuple):
    """What the places stand for now.

    Attributes:
        named: the tensors of `parameters=` by name; None without.
        layer: the parameters of `at=` that train; None without.
    """

    named: Mapping[str, Tensor] | None = None
    layer: tuple[Tensor, ...] | None = None

    @property
    def candidates(self) -> frozenset[Tensor] | None:
        """All that may count as shared; None for everything."""
        return None if self.named is None else frozenset(self.named.values())


EVERYTHING: Final = Scope()
"""Without any place."""


@final
@dataclass(frozen=True, eq=False)
class Places:
    """The two arguments, read. Build it with `read`."""

    parameters: Mapping[str, _Held] | None
    at: tuple[_Held, ...] | None

    def now(self) -> Scope:
        """What they stand for. Raises `BalanceError` for a tensor that is gone or a layer without parameters."""
        if self.parameters is None and self.at is None:
            return EVERYTHING
        named = None if self.parameters is None else self._named(self.parameters)
        return Scope(named, None if self.at is None else self._layer(self.at, named))

    def _named(self, parameters: Mapping[str, _Held]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, part in parameters.items():
            if isinstance(part, nn.Module):
                prefix = f"{name}." if name else ""
                found.update((f"{prefix}{inner}", tensor) for inner, tensor in part.named_parameters())
            elif not isinstance(part, str):
                found[name] = _there(part, "parameters=")
        return found

    def _layer(self, at: tuple[_Held, ...], named: Mapping[str, Tensor] | None) -> tuple[Tensor, ...]:
        found = [tensor for part in at for tensor in _tensors(part, named) if tensor.requires_grad]
        if not found:
            raise BalanceError("at= has no parameter that requires grad")
        return tuple(dict.fromkeys(found))


def read(parameters: object, at: object) -> Places:
    """Check both arguments. Raises `BalanceError`."""
    places = Places(None if parameters is None else _parameters(parameters), None if at is None else tuple(_parts(at)))
    if places.at is not None:
        named = None if places.parameters is None else places._named(places.parameters)
        if not any(tensor.requires_grad for part in places.at for tensor in _tensors(part, named)):
            raise BalanceError(f"at={shown(at)} has no parameter that requires grad")
    return places


def _parameters(parameters: object) -> dict[str, _Held]:
    """By name; numbered where it gives none."""
    if isinstance(parameters, nn.Module):
        return {"": parameters.module if isinstance(parameters, DistributedDataParallel) else parameters}
    if isinstance(parameters, Mapping):
        for name, part in parameters.items():
            if not isinstance(part, Tensor | nn.Module):
                kind = type(part).__name__
                raise BalanceError(f"parameters[{name!r}] is {shown(part)} ({kind}), not a module or a tensor")
        return {name: part if isinstance(part, nn.Module) else ref(part) for name, part in parameters.items()}
    if isinstance(parameters, Tensor | str) or not isinstance(parameters, Iterable):
        raise BalanceError(f"parameters is a module, a mapping or a list of tensors, not {shown(parameters)}")
    listed = {str(i): part for i, part in enumerate(parameters)}
    for part in listed.values():
        if not isinstance(part, Tensor):
            hint = ": give model.parameters(), or the model" if isinstance(part, tuple) else ""
            raise BalanceError(f"parameters holds {shown(part)} ({type(part).__name__}), not a tensor{hint}")
    return {name: ref(part) for name, part in listed.items()}


def _parts(at: object) -> list[_Held]:
    if isinstance(at, str | nn.Module):
        return [at]
    if isinstance(at, Tensor):
        return [ref(at)]
    if isinstance(at, Iterable):
        return [held for part in at for held in _parts(part)]
    raise BalanceError(f"at is a module, a parameter or a name, not {shown(at)} ({type(at).__name__})")


def _tensors(part: _Held, named: Mapping[str, Tensor] | None) -> list[Tensor]:
    if isinstance(part, nn.Module):
        return [*part.parameters()]
    return _of_name(part, named) if isinstance(part, str) else [_there(part, "at=")]


def _there(held: Callable[[], Tensor | None], what: str) -> Tensor:
    tensor = held()
    if tensor is None:
        raise BalanceError(
            f"{what} holds a tensor that is gone (replaced in the model?): give the module, which is walked at "
            "every update, or build the balancer anew"
        )
    return tensor


def _of_name(at: str, named: Mapping[str, Tensor] | None) -> list[Tensor]:
    if named is None:
        raise BalanceError(f"at={at!r} is a name: pass parameters=model too, or the layer itself (at=model.trunk)")
    found = [tensor for name, tensor in named.items() if name == at or name.startswith(f"{at}.")]
    if not found:
        parents = {name.rpartition(".")[0] for name in named} - {""}
        raise BalanceError(f"at=: {unknown('layer', at, [*sorted(parents), *named])}")
    return found
