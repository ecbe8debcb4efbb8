"""Which parameter of a model is which of those that an optimizer holds, after the model has changed under it.

First by identity: a tensor that is still there keeps its state, under whatever name (torch keeps the tensor when a
single parametrization is registered or removed, for this reason). Then by name: another tensor at a name whose tensor
the model no longer has takes the state over. A name whose tensor lives on at *another of its own names* was tied to it
and is not any more: it gets a copy. A name whose tensor has moved elsewhere (a layer was put before it) is free, and
what stands there now is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import torch

from groupwise._spelling import shown
from groupwise.errors import OptimizerError, unknown, within
from groupwise.optim.live import names_of
from groupwise.optim.rows import RowsGiven, first_rows, front_is_kept, index_of, same_but_for_rows
from groupwise.optim.saved import Found, Saved, SavedParameter
from groupwise.plan import Resolution
from groupwise.select import ParameterInfo, selector


@dataclass(frozen=True, eq=False)
class HeldParameter:
    """A tensor in a group: its name first, all the names that it went by, its shape when the plan was resolved."""

    names: tuple[str, ...]
    tensor: torch.Tensor
    shape: tuple[int, ...]
    saved: SavedParameter
    planned: bool


def held_parameters(
    resolution: Resolution, groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]
) -> list[HeldParameter]:
    """Everything in the groups of an optimizer; nothing is copied."""
    planned = {group.name for group in resolution.groups}
    infos = {info.name: info for info in resolution.parameters}
    held: list[HeldParameter] = []
    for group in groups:
        values = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for name, p in zip(names_of(group), group["params"], strict=True):
            info = infos.get(name)
            names, shape = (info.names, info.shape) if info is not None else ((name,), tuple(p.shape))
            saved = SavedParameter(state.get(p) or {}, values)
            held.append(HeldParameter(names, p, shape, saved, group.get("name") in planned))
    return held


def matched(
    infos: Sequence[ParameterInfo],
    held: Sequence[HeldParameter],
    placed: AbstractSet[int],
    rows: Mapping[str, RowsGiven],
    extra_state: Mapping[Any, Any],
) -> tuple[Saved, set[int]]:
    """The running state as a checkpoint of the model as it is now, by the names of `infos`.

    Args:
        infos: the model's parameters, walked again.
        held: what the optimizer holds.
        placed: the tensors that the plan gives a group, by identity; the others of `infos` are frozen.
        rows: by glob, what the caller said about the rows of tables.
        extra_state: the entries of the state that are of no parameter.

    Returns:
        The checkpoint, and the tensors, by identity, that stay in groups that somebody added.

    Raises:
        OptimizerError: `rows` matches nothing, or does not fit a table that it matches.
    """
    pairs = _pairs(infos, held, placed)
    given_rows = _given(rows, [info for info, _, _ in pairs])
    parameters = {info.name: _moved_along(info, own, found, given_rows.get(info.name)) for info, own, found in pairs}
    used = {id(own) for _, own, _ in pairs}
    rest = [own for own in held if id(own) not in used and id(own.tensor) not in placed]
    gone = {own.names[0]: own.saved for own in rest if own.planned}
    outside = {own.names[0]: own for own in rest if not own.planned}
    kept = {name: own.saved for name, own in outside.items()}
    return Saved({**kept, **parameters}, extra_state, gone), {id(own.tensor) for own in outside.values()}


def _pairs(
    infos: Sequence[ParameterInfo], held: Sequence[HeldParameter], placed: AbstractSet[int]
) -> list[tuple[ParameterInfo, HeldParameter, Found]]:
    """Each parameter that the plan gives a group and that the optimizer holds already, with how it was found."""
    by_tensor = {id(own.tensor): own for own in held}
    by_name = {name: own for own in held for name in own.names[1:]} | {own.names[0]: own for own in held}
    here = {id(info.parameter): set(info.names) for info in infos}
    pairs: list[tuple[ParameterInfo, HeldParameter, Found]] = []
    taken: set[int] = set()
    for info in (info for info in infos if id(info.parameter) in placed):
        own = by_tensor.get(id(info.parameter))
        if own is not None:
            pairs.append((info, own, "renamed" if here[id(own.tensor)].isdisjoint(own.names) else "found"))
            continue
        named = (by_name[name] for name in info.names if name in by_name)
        own = next((own for own in named if _is_free(own, here)), None)
        if own is not None:
            tied = id(own.tensor) in here or id(own) in taken
            pairs.append((info, own, "copied" if tied else "replaced"))
            taken.add(id(own))
    return pairs


def _is_free(own: HeldParameter, here: Mapping[int, set[str]]) -> bool:
    """Whether a tensor's names may be another's now: it is gone, or it lives on at some of them (it was tied)."""
    names = here.get(id(own.tensor))
    return names is None or not names.isdisjoint(own.names)


def _given(rows: Mapping[str, RowsGiven], infos: Iterable[ParameterInfo]) -> dict[str, RowsGiven]:
    """What was said about rows, by parameter name; where two globs match, the later one stands."""
    if not isinstance(rows, Mapping):
        raise OptimizerError(f"rows are given by glob, {{'embed.weight': mask}}, not as {shown(rows)}")
    given_rows: dict[str, RowsGiven] = {}
    known = list(infos)
    for glob, given in rows.items():
        chosen = [info.name for info in known if selector(glob).matches(info)]
        if not chosen:
            raise OptimizerError(f"rows: {unknown('parameter', glob, (info.name for info in known))}")
        given_rows |= dict.fromkeys(chosen, given)
    return given_rows


def _moved_along(info: ParameterInfo, own: HeldParameter, found: Found, given_rows: RowsGiven | None) -> SavedParameter:
    """The state of a parameter as a checkpoint would hold it, with what is known of its rows if they have changed."""
    before, after = _shape_of_state(info, own), tuple(info.shape)
    saved = replace(own.saved, found=found, state=_state_for(info.parameter, own))
    if given_rows is None and before == after:
        return saved
    with within(f"rows, parameter {info.name!r}"):
        return replace(saved, reshaped=True, rows=_index(info, own, before, given_rows))


def _state_for(p: torch.Tensor, own: HeldParameter) -> Mapping[str, Any]:
    """The state, where the other tensor `p` is, and of its type where it was of the old one's."""
    state, old = own.saved.state or {}, own.tensor
    if old is p or (old.dtype, old.device) == (p.dtype, p.device):
        return state
    return {key: _like(value, old, p) for key, value in state.items()}


def _like(value: Any, old: torch.Tensor, p: torch.Tensor) -> Any:
    if not isinstance(value, torch.Tensor) or value.ndim == 0:
        return value
    return value.to(p.device, p.dtype if value.dtype == old.dtype else value.dtype)


def _shape_of_state(info: ParameterInfo, own: HeldParameter) -> tuple[int, ...]:
    """The shape that a parameter had when its state was made; whoever resized it in place may have seen to that."""
    if own.tensor is not info.parameter:
        return tuple(own.tensor.shape)
    held = (value for value in (own.saved.state or {}).values() if isinstance(value, torch.Tensor))
    return tuple(info.shape) if any(value.shape == own.tensor.shape for value in held) else tuple(own.shape)


def _index(
    info: ParameterInfo, own: HeldParameter, before: tuple[int, ...], given_rows: RowsGiven | None
) -> torch.Tensor | None:
    """Which old row each row is; None if that cannot be known."""
    after = tuple(info.shape)
    if not same_but_for_rows(before, after):
        if given_rows is not None:
            raise OptimizerError(f"its shape was {before} and is {after}: only the number of rows may change")
        return None
    if given_rows is not None:
        return index_of(given_rows, before[0], after[0])
    if own.tensor is info.parameter:  # in place, so the old rows are not there any more
        return first_rows(before[0], after[0]) if after[0] > before[0] else None
    return first_rows(before[0], after[0]) if front_is_kept(own.tensor, info.parameter) else None
