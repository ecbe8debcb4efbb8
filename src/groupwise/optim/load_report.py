"""What became of the state of each parameter, in a load or a regroup.

A name that is found is not yet a state that is found: a checkpoint may hold the name and nothing for it, and a tensor
may have changed its shape since. So parameters are counted by what they *have* afterwards, and each that has no state
stands under the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from groupwise import _pickling
from groupwise.errors import listed

_AFRESH = ("new", "restarted", "reset", "missing")


@_pickling.public("groupwise.optim:LoadReport")
@dataclass(frozen=True)
class LoadReport:
    """What a load or a `regroup` did, by parameter name.

    No parameter is in two of `found`, `new`, `restarted`, `reset`, `missing` and `stateless`, and every one that
    is in a group is in one of them.

    Attributes:
        moved: now in a group of another name.
        new: not known before, so their state starts afresh.
        lost: known before, but in no group now; their state is dropped.
        restarted: their algorithm changed, so their state starts afresh.
        found: they have the state that they had; the next four say of some of them how.
        renamed: the same tensor under another name, such as the one that a parametrization gives it.
        replaced: another tensor of the same name and shape, which took the state over.
        copied: untied from another parameter, and given a copy of the shared state.
        resized: tables of another number of rows: rows that were kept have their state, new ones start at zero.
        reset: their shape changed in a way that state cannot follow, so it starts afresh.
        missing: the checkpoint has their name and no state, where it has state for others of the same algorithm.
        stateless: they had none, and have none.
        unowned: trainable parameters of the model that no group holds.
        stale: held, but no longer the model's (both only while the model is there to be asked).
    """

    moved: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    stateless: tuple[str, ...] = ()
    unowned: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    def __str__(self) -> str:
        kinds = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name not in _COUNTED]
        sentences = [f"{len(names)} {kind} ({listed(names, 3)})" for kind, names in kinds if names]
        whole = bool(self.found) and not self.stateless and not any(getattr(self, kind) for kind in _AFRESH)
        if whole:
            return "; ".join(sentences) or "every parameter found its state"
        return "; ".join([self._count(), *sentences])

    def _count(self) -> str:
        afresh = sum(len(getattr(self, kind)) for kind in _AFRESH)
        total = len(self.found) + len(self.stateless) + afresh
        if not self.found and not afresh:
            return "no parameter has state yet"
        none = f", {len(self.stateless)} had none ({listed(self.stateless, 3)})" if self.stateless else ""
        return f"{len(self.found)} of {total} parameters found their state{none}"


_COUNTED = frozenset({"found", "stateless"})
