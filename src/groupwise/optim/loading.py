"""Loading a checkpoint into a `GroupedOptimizer`: all of it, or nothing.

Torch's own `load_state_dict` does the work, so that every hook fires as ever; what it is given is the checkpoint laid
out by name for the groups that are live.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from groupwise.errors import GroupwiseWarning, StateError, listed
from groupwise.optim.fitting import same_algorithm
from groupwise.optim.live import names_of
from groupwise.optim.load_report import LoadReport
from groupwise.optim.only import with_all_groups
from groupwise.optim.rows import same_but_for_rows
from groupwise.optim.saved import Saved, read
from groupwise.optim.transaction import AllOrNothing
from groupwise.optim.transfer import Prefer, members, misfit_of, shape_of, transfer

if TYPE_CHECKING:
    from groupwise.optim.grouped_optimizer import GroupedOptimizer

Layout: TypeAlias = dict[str, Any]


def lay_out(optimizer: GroupedOptimizer, state_dict: dict[str, Any], prefer: Prefer) -> tuple[Layout, LoadReport]:
    """A checkpoint as this optimizer would take it, in torch's layout, and what that would move; nothing is changed.

    Raises:
        StateError: no optimizer's checkpoint, none of this model's, or an ambiguous one; or as `transfer`.
    """
    resolution = optimizer.resolution
    aliases = {name: info.name for info in resolution.parameters for name in info.names}
    here = [name for group in optimizer.param_groups for name in names_of(group)]
    saved = read(state_dict, list(resolution.resolved), aliases | {name: name for name in here})
    _check_known(saved, here)
    _check_likeness(saved, optimizer.param_groups)
    runtime = optimizer._runtime
    done = transfer(saved, optimizer.param_groups, runtime.plan_values(prefer), runtime.fresh_state)
    return done.in_torchs_layout(), done.report


def _check_known(saved: Saved, here: Sequence[str]) -> None:
    if here and saved.parameters.keys().isdisjoint(here):
        raise StateError(
            f"no parameter of the checkpoint is known here: it has {listed(saved.parameters, 3) or 'none'}, "
            f"this optimizer has {listed(here, 3)}"
        )


def _check_likeness(saved: Saved, live: Sequence[Mapping[str, Any]]) -> None:
    """Raise `StateError` if state is another parameter's, and not this one's from before its shape changed: names are
    not sure, two have each other's, or at least as many cannot follow as fit.
    """
    misfits: dict[tuple[object, object], StateError] = {}
    fit = unfit = 0
    for group, name, p in members(live):
        kept = saved.parameters.get(name)
        if kept is None or not kept.state or not same_algorithm(kept.values, group):
            continue
        misfit, theirs, own = misfit_of(name, p, kept.state, group["algorithm"]), shape_of(kept.state), tuple(p.shape)
        fit += misfit is None
        if misfit is not None:
            unfit += theirs is None or not same_but_for_rows(theirs, own) or theirs[0] <= 1  # one row is no table
            if not saved.named or (own, theirs) in misfits:
                raise misfits.get((own, theirs), misfit)
            misfits.setdefault((theirs, own), misfit)
    if unfit and unfit >= fit:
        raise next(iter(misfits.values()))


def load(optimizer: GroupedOptimizer, state_dict: dict[str, Any], prefer: Prefer) -> LoadReport:
    """Load a checkpoint and say what became of it; a warning says so too if anything starts afresh or is lost.

    Raises:
        StateError: as `lay_out`. Whatever is raised, nothing has changed.
    """
    loading = _Loading(optimizer, prefer)
    before = optimizer.register_load_state_dict_pre_hook(loading.lay_out)
    after = optimizer.register_load_state_dict_post_hook(loading.finish, prepend=True)
    try:
        with with_all_groups(optimizer._views.values()), AllOrNothing(optimizer):
            torch.optim.Optimizer.load_state_dict(optimizer, state_dict)
            if _is_unexpected(loading.report, optimizer.param_groups):
                warnings.warn(f"load_state_dict: {loading.report}", GroupwiseWarning, stacklevel=3)
            found = optimizer._look_at_model(stacklevel=4)
            report = optimizer.load_report = replace(loading.report, unowned=found.unowned, stale=found.stale)
    finally:
        before.remove()
        after.remove()
    optimizer._tell_ranks()
    optimizer._monitor.loaded(_updates(optimizer.state))
    return report


def _updates(state: Mapping[Any, object]) -> int | None:
    """Of how many updates a state is, as its algorithm counts them; 0 if none counts, None if there were none."""
    held = [entries for entries in state.values() if isinstance(entries, Mapping) and entries]
    counts = [entries["step"] for entries in held if isinstance(entries.get("step"), int | float | torch.Tensor)]
    if not counts:
        return 0 if held else None
    return next((int(count) for count in counts if count), None)


def _is_unexpected(report: LoadReport, groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a load found less than there was. What is frozen and has no state says so when it is thawed."""
    frozen = {name for group, name, _ in members(groups) if group.get("frozen")}
    afresh = report.new or report.restarted or report.reset or not frozen.issuperset(report.missing)
    return bool(afresh or report.lost or report.resized)


class _Loading:
    """The two hooks of one load: the last before torch's own, and the first after it."""

    report = LoadReport()

    def __init__(self, optimizer: GroupedOptimizer, prefer: Prefer) -> None:
        self._owner = optimizer
        self._prefer = prefer
        self._layout: Layout = {}

    def lay_out(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """What torch's loading is given instead of the checkpoint."""
        self._layout, self.report = lay_out(self._owner, state_dict, self._prefer)
        return self._layout

    def finish(self, optimizer: torch.optim.Optimizer) -> None:
        """What the algorithms' own classes do at the end of a load."""
        owner, runtime = self._owner, self._owner._runtime
        runtime.engines.loaded(owner.param_groups, owner.state, runtime.route, self._layout)
