"""From the losses of one process to gradients of the joint batch: alone, replicated (DDP), sharded (FSDP2)."""

from __future__ import annotations

from groupwise.balance.engine.reduction.alone import Alone
from groupwise.balance.engine.reduction.reduction import Reduction
from groupwise.balance.engine.reduction.replicated import Replicated
from groupwise.balance.engine.reduction.sharded import Sharded
from groupwise.balance.engine.state import State


def reduction_of(state: State) -> Reduction:
    """That of the module in `parameters=`."""
    ranks = state.setup.ranks
    if ranks is None:
        return Alone(state)
    return Replicated(state, ranks) if ranks.parts is None else Sharded(state, ranks, ranks.parts)
