"""A checkpoint laid out by name for the groups that are live, and what there is to say about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from groupwise.errors import StateError, listed
from groupwise.optim.fitting import same_algorithm
from groupwise.optim.live import names_of
from groupwise.optim.load_report import LoadReport
from groupwise.optim.plan_values import Driver, Prefer
from groupwise.optim.rows import same_but_for_rows
from groupwise.optim.runtime import Runtime
from groupwise.optim.saved import Saved, read
from groupwise.optim.scheduled_values import Overwritten, as_plain
from groupwise.optim.transfer import Transfer, members, misfit_of, shape_of, transfer

Layout: TypeAlias = dict[str, Any]


def lay_out(
    runtime: Runtime,
    live: Sequence[Mapping[str, Any]],
    state_dict: dict[str, Any],
    prefer: Prefer,
    driver: Driver = "none",
) -> Transfer:
    """A checkpoint laid out for an optimizer with these live groups, whose learning rates `driver` writes.

    Raises:
        StateError: no optimizer's checkpoint, none of this model's, or an ambiguous one; or as `transfer`.
    """
    resolution = runtime.resolution
    aliases = {name: info.name for info in resolution.parameters for name in info.names}
    here = [name for group in live for name in names_of(group)]
    saved = read(state_dict, list(resolution.resolved), aliases | {name: name for name in here})
    _check_known(saved, here)
    fitting = _check_likeness(saved, live)
    return transfer(saved, live, runtime.plan_values(prefer, driver), runtime.fresh_state, fitting)


def _check_known(saved: Saved, here: Sequence[str]) -> None:
    if here and saved.parameters.keys().isdisjoint(here):
        raise StateError(
            f"no parameter of the checkpoint is known here: it has {listed(saved.parameters, 3) or 'none'}, "
            f"this optimizer has {listed(here, 3)}"
        )


def _check_likeness(saved: Saved, live: Sequence[Mapping[str, Any]]) -> set[str]:
    """The parameters whose state can be theirs.

    Raises `StateError` if state is another parameter's, and not this one's from before its shape changed: names are
    not sure, two have each other's, or at least as many cannot follow as fit.
    """
    misfits: dict[tuple[object, object], StateError] = {}
    fitting: set[str] = set()
    unfit = 0
    for group, name, p in members(live):
        kept = saved.parameters.get(name)
        if kept is None or not kept.state or not same_algorithm(kept.values, group):
            continue
        misfit = misfit_of(name, p, kept.state, group["algorithm"])
        if misfit is None:
            fitting.add(name)
        else:
            theirs, own = shape_of(kept.state), tuple(p.shape)
            unfit += theirs is None or not same_but_for_rows(theirs, own) or theirs[0] <= 1  # one row is no table
            if not saved.named or (own, theirs) in misfits:
                raise misfits.get((own, theirs), misfit)
            misfits.setdefault((theirs, own), misfit)
    if unfit and unfit >= len(fitting):
        raise next(iter(misfits.values()))
    return fitting


def updates_of(state: Mapping[Any, object]) -> int | None:
    """Of how many updates a state is, as its algorithm counts them; 0 if none counts, None if there were none."""
    held = [entries for entries in state.values() if isinstance(entries, Mapping) and entries]
    counts = [entries["step"] for entries in held if isinstance(entries.get("step"), int | float | torch.Tensor)]
    if not counts:
        return 0 if held else None
    return next((int(count) for count in counts if count), None)


def with_state(groups: Sequence[Mapping[str, Any]], state: Mapping[Any, object]) -> set[str]:
    """The groups that have been updated, by name: those with state, or all of them if no algorithm keeps any."""
    begun = {str(group["name"]) for group in groups if any(state.get(p) for p in group["params"])}
    return begun or {str(group["name"]) for group in groups}


def saved_rates(groups: Sequence[Mapping[str, Any]], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """By group, the learning rate in a checkpoint, where the live group declares the one that the checkpoint's did."""
    saved = {group["name"]: group for group in state_dict["param_groups"] if "name" in group and "lr" in group}
    alike = ((group["name"], saved.get(group["name"], {}), group.get("declared", {}).get("lr")) for group in groups)
    return {name: own["lr"] for name, own, declared in alike if own and own.get("declared", {}).get("lr") == declared}


def saved_standing(
    groups: Sequence[Mapping[str, Any]], state_dict: Mapping[str, Any], overwritten: Iterable[Sequence[Any]]
) -> Overwritten:
    """Of scheduled values that are `overwritten` now, those that stood in a checkpoint, where the live group declares
    what the checkpoint's did.
    """
    saved = {group["name"]: group for group in state_dict["param_groups"] if "name" in group}
    declared = {group["name"]: group.get("declared") for group in groups}
    places = ((name, key, saved.get(name, {})) for name, key, *_ in overwritten)
    return {
        (name, key): as_plain(group[key])
        for name, key, group in places
        if key in group and group.get("declared") == declared.get(name)
    }


def is_unexpected(report: LoadReport, groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a load found less than there was. What is frozen and has no state says so when it is unfrozen."""
    frozen = {name for group, name, _ in members(groups) if group.get("frozen")}
    afresh = report.new or report.restarted or report.reset or not frozen.issuperset(report.missing)
    return bool(afresh or report.lost or report.resized)
