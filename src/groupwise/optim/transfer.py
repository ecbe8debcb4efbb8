"""Resume by name.

A checkpoint in normal form (`Saved`: values per group, state per parameter *name*) is laid out for the groups that are
live now, whatever their number, order or names. The same transfer serves loading and `regroup`, and it is pure: a
checkpoint that does not fit changes nothing.

State that was made for another shape follows where only the number of rows has changed and it is known which row is
which (`rows`); else it starts afresh.

Which values stand (`Prefer`): the checkpoint's, unless this plan schedules the hyperparameter, or declares it
differently from the plan that wrote the checkpoint; or either side's alone. A learning rate that another scheduler has
under way keeps its course (`rates`). Name, algorithm, network, clipping and freezing are always the plan's, and so are
the values of a parameter whose algorithm has changed.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from groupwise.errors import StateError, listed
from groupwise.optim.fitting import check_shapes, foreign_keys, same_algorithm
from groupwise.optim.fresh_state import FreshState
from groupwise.optim.live import names_of
from groupwise.optim.load_report import LoadReport
from groupwise.optim.plan_values import PlanValues
from groupwise.optim.probe import OURS
from groupwise.optim.rates import Rate, RateEdit, is_anothers, rate_of
from groupwise.optim.rows import first_rows, moved, same_but_for_rows
from groupwise.optim.saved import Saved, SavedParameter


@dataclass(frozen=True)
class Transfer:
    """A checkpoint laid out for the live groups: state by position, entries of no parameter, the groups with their
    values, what became of it all, and the `edits` of rates that were under way.
    """

    state: Mapping[int, Mapping[str, Any]]
    extra_state: Mapping[Any, Any]
    groups: Sequence[Mapping[str, Any]]
    report: LoadReport
    edits: Sequence[RateEdit] = ()

    def in_torchs_layout(self) -> dict[str, Any]:
        """As `torch.optim.Optimizer.load_state_dict` takes it."""
        groups, position = [], 0
        for group in self.groups:
            positions = range(position, position + len(group["params"]))
            position = positions.stop
            groups.append({**group, "params": list(positions)})
        return {"state": {**self.extra_state, **self.state}, "param_groups": groups}


def transfer(
    saved: Saved,
    live: Sequence[Mapping[str, Any]],
    plan_values: PlanValues,
    fresh: FreshState,
    fitting: Collection[str] = (),
) -> Transfer:
    """Lay a checkpoint out for the live groups, and say what became of it. Nothing of either is changed.

    Args:
        saved: the checkpoint.
        live: the groups that are to be filled.
        plan_values: what the plan has to say about values.
        fresh: what the algorithms begin with.
        fitting: parameters whose state is known to be theirs.

    Raises:
        StateError: the checkpoint's values are to stand and are not one value in a group.
    """
    begun = any(kept.state for kept in saved.parameters.values())
    outcomes: list[tuple[str, _Outcome]] = []
    moved_to: list[str] = []
    for group, name, p in members(live):
        kept = saved.parameters.get(name)
        if kept is None or not same_algorithm(kept.values, group):
            outcomes.append((name, _Outcome("new" if kept is None else "restarted")))
            continue
        if kept.values.get("name", group["name"]) != group["name"]:
            moved_to.append(name)
        if kept.state:
            outcomes.append((name, _follow(name, p, kept, group, fresh, name in fitting)))
        else:
            missing_state = begun and _is_missing(kept, p, group) and fresh.is_kept(group, p.ndim)
            outcomes.append((name, _Outcome("missing" if missing_state else "stateless")))
    state = {i: outcome.state for i, (_, outcome) in enumerate(outcomes) if outcome.state}
    filled = [_values(group, saved, plan_values) for group in live]
    groups = [{**group, **values} for group, (values, _) in zip(live, filled, strict=True)]
    edits = [rate.edit for _, rate in filled if rate.edit is not None]
    return Transfer(state, saved.extra_state, groups, _report(saved, outcomes, moved_to), edits)


@dataclass(frozen=True)
class _Outcome:
    """What became of one parameter: a field of the report, and the state that it has from now on."""

    kind: str
    state: Mapping[str, Any] | None = None


def _follow(
    name: str, p: torch.Tensor, kept: SavedParameter, group: Mapping[str, Any], fresh: FreshState, fits: bool
) -> _Outcome:
    """What becomes of a parameter that had state, under the same algorithm."""
    state, rows = kept.state or {}, kept.rows
    if not kept.reshaped:
        if fits or misfit_of(name, p, state, group["algorithm"]) is None:
            return _Outcome(kept.found, copy.deepcopy(state) if kept.found == "copied" else state)
        rows = _appended(state, p)
    if rows is None or (bool((rows < 0).any()) and not fresh.is_zero(group, p.ndim)):
        return _Outcome("reset")
    own = moved(state, rows, p)
    return _Outcome("reset") if own is None else _Outcome("resized", own)


def misfit_of(name: str, p: torch.Tensor, state: Mapping[str, Any], algorithm: str) -> StateError | None:
    """Why `state` cannot be that of `p`, as an error; None if it can."""
    try:
        check_shapes(name, p, state, algorithm)
    except StateError as error:
        return error
    return None


def _appended(state: Mapping[str, Any], p: torch.Tensor) -> torch.Tensor | None:
    """The index of a table that has more rows than its state: they came behind. None for anything else."""
    shape = shape_of(state)
    grown = shape is not None and same_but_for_rows(shape, p.shape) and 1 < shape[0] < p.shape[0]
    return first_rows(shape[0], p.shape[0]) if shape is not None and grown else None


def shape_of(state: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The one shape of the tensors of a state, counters apart; None if they have several."""
    shapes = {tuple(value.shape) for value in state.values() if isinstance(value, torch.Tensor) and value.ndim > 0}
    return shapes.pop() if len(shapes) == 1 else None


def _is_missing(kept: SavedParameter, p: torch.Tensor, group: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of ours says nothing about the state of a parameter that is trained, and was."""
    trained = "algorithm" in kept.values and not kept.values.get("frozen")
    return kept.state is None and trained and bool(p.requires_grad or group.get("frozen"))


def _report(saved: Saved, outcomes: Sequence[tuple[str, _Outcome]], moved_to: Sequence[str]) -> LoadReport:
    here = {name for name, _ in outcomes}
    by_kind: dict[str, list[str]] = defaultdict(list)
    for name, outcome in outcomes:
        by_kind[outcome.kind].append(name)
    by_kind["found"] = [name for name, outcome in outcomes if outcome.state]
    by_kind["moved"] = list(moved_to)
    by_kind["lost"] = [*(name for name in saved.parameters if name not in here), *saved.gone]
    return LoadReport(**{kind: tuple(names) for kind, names in by_kind.items()})


def members(live: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str, torch.Tensor]]:
    """Every parameter of the groups: its group, its name, itself."""
    for group in live:
        for name, p in zip(names_of(group), group["params"], strict=True):
            yield group, name, p


def _values(group: Mapping[str, Any], saved: Saved, plan_values: PlanValues) -> tuple[dict[str, Any], Rate]:
    """The values that the checkpoint decides for a live group, those on which all of its parameters agree, and its
    learning rate where that is neither side's."""
    known = {name: saved.parameters[name].values for name in names_of(group) if name in saved.parameters}
    known = {name: values for name, values in known.items() if same_algorithm(values, group)}
    known = known or _of_the_group(group, saved)
    if not known:
        return {}, Rate()
    first = next(iter(known.values()))
    own = plan_values.of(group, first.get("declared", group.get("declared", {}))) | foreign_keys(first)
    rate = Rate()
    if is_anothers(group, list(known.values()), plan_values):
        own, rate = own | {"lr", "initial_lr"}, rate_of(group, list(known.values()), plan_values)
    kept = {key: value for key, value in first.items() if key not in OURS and key not in own}
    others = {id(values): values for values in known.values() if values is not first}.values()  # one for a group
    split = [key for key, value in kept.items() if not all(_equal(v.get(key), value) for v in others)]
    if split and plan_values.prefer == "checkpoint":
        raise StateError(_differing(group, split[0], known))
    return {**{key: value for key, value in kept.items() if key not in split}, **rate.values}, rate


def _differing(group: Mapping[str, Any], key: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    who = {repr(values.get(key)): name for name, values in reversed([*known.items()])}
    held_values = listed((f"{value} for {name!r}" for value, name in reversed([*who.items()])), 3)
    return (
        f"the checkpoint's values cannot stand in group {group['name']!r}: {key} was {held_values}. Keep these apart "
        "in the plan, or load with prefer='unchanged'"
    )


def _of_the_group(group: Mapping[str, Any], saved: Saved) -> dict[str, Mapping[str, Any]]:
    """The values of the group of the same name and algorithm, all of whose parameters are gone (a new head)."""
    before = {**saved.parameters, **saved.gone}
    alike = ((name, kept.values) for name, kept in before.items() if kept.values.get("name") == group["name"])
    return dict([pair for pair in alike if pair[1].get("algorithm") == group["algorithm"]][:1])


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
    return a == b
