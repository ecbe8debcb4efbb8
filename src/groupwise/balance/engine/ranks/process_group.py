"""Which processes belong together: read from the module in `parameters=`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from groupwise import _ranks
from groupwise._ranks import Group
from groupwise._shards import is_sharded
from groupwise.balance.engine.ranks.agreement import Ranks
from groupwise.balance.engine.ranks.parts import Parts
from groupwise.errors import BalanceError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def ranks_of(parameters: object) -> Ranks | None:
    """Those of the `DistributedDataParallel` or `fully_shard` module in `parameters=`; None where there is none."""
    parts = [*parameters.values()] if isinstance(parameters, Mapping) else [parameters]
    modules = [part for part in parts if isinstance(part, nn.Module)]
    copied = [module for module in modules if isinstance(module, DistributedDataParallel)]
    if len(copied) > 1:
        raise BalanceError(f"parameters holds {len(copied)} DistributedDataParallel modules: wrap one that holds all")
    if copied and (group := Group(copied[0].process_group)).size > 1:
        return Ranks(group, copied[0].module.parameters)

    shards = [parameter for module in modules for parameter in _parts_of(module)]
    return Ranks(_group_of(shards), tuple, Parts(shards)) if shards else None


def _parts_of(module: nn.Module) -> list[DTensor]:
    """The parameters in parts; between forward and backward some are there whole instead, which is undone here."""
    if (fsdp := sys.modules.get("torch.distributed.fsdp")) is not None:  # else nobody has called fully_shard
        for part in module.modules():
            if isinstance(part, fsdp.FSDPModule):
                part.reshard()
    parameters: Iterable[Any] = module.parameters()
    return [parameter for parameter in parameters if is_sharded(parameter)]


def _group_of(shards: Sequence[DTensor]) -> Group:
    mesh = shards[0].device_mesh
    if any(parameter.device_mesh != mesh for parameter in shards):
        raise BalanceError(
            "the parameters of the fully_shard module lie on several meshes: balancing needs one for all"
        )
    if mesh.size() == dist.get_world_size():
        return Group(dist.group.WORLD)
    if mesh.ndim > 1:
        raise BalanceError(
            f"the mesh of the fully_shard module has {mesh.ndim} dimensions and {mesh.size()} of "
            f"{dist.get_world_size()} ranks: balancing needs a mesh of one dimension, or of all ranks"
        )
    return Group(mesh.get_group())


def require_single(alone: bool) -> None:
    """Raise `BalanceError` where several processes run and nobody said how they belong together."""
    world = None if alone else _ranks.world()
    if world is not None:
        raise BalanceError(
            f"{world.size} ranks are running, and their gradients have to be averaged before they are "
            "balanced: pass parameters= the DistributedDataParallel or the fully_shard module; "
            'or distributed="local" if each is for itself'
        )
