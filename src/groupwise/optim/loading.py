"""Loading a checkpoint into a `GroupedOptimizer`: all of it, or nothing.

Torch's own `load_state_dict` does the work, so that every hook fires as ever; what it is given is the checkpoint laid
out by name for the groups that are live.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from groupwise.errors import GroupwiseWarning, StateError, listed
from groupwise.optim.live import names_of
from groupwise.optim.load_report import LoadReport
from groupwise.optim.saved import Saved, read
from groupwise.optim.state import Values, transfer
from groupwise.optim.transaction import AllOrNothing

if TYPE_CHECKING:
    from groupwise.optim.grouped_optimizer import GroupedOptimizer

Layout: TypeAlias = dict[str, Any]


def lay_out(optimizer: GroupedOptimizer, state_dict: dict[str, Any], values: Values) -> tuple[Layout, LoadReport]:
    """A checkpoint as this optimizer would take it, in torch's layout, and what that would move; nothing is changed.

    Raises:
        StateError: no optimizer's checkpoint, none of this model's, or an ambiguous one.
    """
    resolution = optimizer.resolution
    aliases = {name: info.name for info in resolution.parameters for name in info.names}
    here = [name for group in optimizer.param_groups for name in names_of(group)]
    saved = read(state_dict, list(resolution.treatments), aliases | {name: name for name in here})
    _check_known(saved, here)
    runtime = optimizer._runtime
    done = transfer(saved, optimizer.param_groups, runtime.claims(values), runtime.begins_at_zero)
    return done.in_torchs_layout(), done.report


def _check_known(saved: Saved, here: Sequence[str]) -> None:
    if here and saved.parameters.keys().isdisjoint(here):
        raise StateError(
            f"no parameter of the checkpoint is known here: it has {listed(saved.parameters, 3) or 'none'}, "
            f"this optimizer has {listed(here, 3)}"
        )


def load(optimizer: GroupedOptimizer, state_dict: dict[str, Any], values: Values) -> LoadReport:
    """Load a checkpoint and say what became of it; a warning says so too if anything starts afresh or is lost.

    Raises:
        StateError: as `lay_out`. Whatever is raised, nothing has changed.
    """
    loading = _Loading(optimizer, values)
    before = optimizer.register_load_state_dict_pre_hook(loading.lay_out)
    after = optimizer.register_load_state_dict_post_hook(loading.finish, prepend=True)
    try:
        with AllOrNothing(optimizer):
            torch.optim.Optimizer.load_state_dict(optimizer, state_dict)
            optimizer.load_report = loading.report
            if loading.report.unexpected:
                warnings.warn(f"load_state_dict: {loading.report}", GroupwiseWarning, stacklevel=3)
    finally:
        before.remove()
        after.remove()
    return loading.report


class _Loading:
    """The two hooks of one load: the last before torch's own, and the first after it."""

    report = LoadReport()

    def __init__(self, optimizer: GroupedOptimizer, values: Values) -> None:
        self._owner = optimizer
        self._values = values
        self._layout: Layout = {}

    def lay_out(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """What torch's loading is given instead of the checkpoint."""
        self._layout, self.report = lay_out(self._owner, state_dict, self._values)
        return self._layout

    def finish(self, optimizer: torch.optim.Optimizer) -> None:
        """What the algorithms' own classes do at the end of a load."""
        owner, runtime = self._owner, self._owner._runtime
        runtime.engines.loaded(owner.param_groups, owner.state, runtime.route, self._layout)
