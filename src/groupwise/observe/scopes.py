"""What clipping did, where the optimizer says it.

An optimizer that clips inside its step leaves at `measured`, by scope, the norm it found and the factor it multiplied
by, both on the device. A rule's scope goes by its label (`label#2` where labels are alike), the plan's own by `plan`; a
scope that is several sets (networks, modules, parameters) has one entry for each, `label/set`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from groupwise.observe.grouping import WHOLE, Grouping, Member


def factor_of(members: Sequence[Member], grouping: Grouping, measured: Mapping[str, Any]) -> torch.Tensor | None:
    """The factor of some groups, 0-dim; the smallest where they have several. None where nothing was clipped."""
    found = (_factor(member, grouping.planned(member.group), measured) for member in members)
    factors = [factor for factor in found if factor is not None]
    if not factors:
        return None
    return factors[0] if len(factors) == 1 else torch.stack(factors).amin()


def _factor(member: Member, planned: Any, measured: Mapping[str, Any]) -> torch.Tensor | None:
    scope = getattr(planned, "clip", None)
    labels = [] if scope is None else [f"{scope.label}#{scope.rule + 1}", scope.label]
    own = next((found for label in labels if (found := list(_of(label, member, measured)))), [])
    whole = list(_of(WHOLE, member, measured)) if WHOLE not in labels[-1:] else []
    parts = [f[0] if len(f) == 1 else torch.stack(f).amin() for f in (own, whole) if f]
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] * parts[1]


def _of(label: str, member: Member, measured: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The factors of a scope that concern a group: of the whole of it, of its network, modules or parameters."""
    names = [name for name in member.names if name]
    sets = [str(member.group.get("network", "")), *names, *dict.fromkeys(name.rpartition(".")[0] for name in names)]
    keys = dict.fromkeys([label, *(f"{label}/{part}" for part in sets if part)])
    return (measured[key].factor for key in keys if key in measured)
