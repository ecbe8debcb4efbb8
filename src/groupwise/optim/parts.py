"""Stepping the parts of a parameter.

A parameter that the plan takes apart stays one tensor in one live group, with one entry of state in torch's layout.
For the time of a step its engine sees the parts in its place, each a matrix of its own with its gradient and its state,
under a group whose learning rate and weight decay are the live one's times the part's factors. So the step is that of
separate parameters: Muon orthogonalises q, k and v apart, and experts one by one.

A matrix that lies in one piece of memory is a view, and is stepped where it is. One that does not (columns of a
projection, a kernel in channels-last order) is copied, since kernels differ by layout in their last bits, and written
back. State that has the shape of its matrix lies in the whole entry as the matrix lies in the parameter; a count of
steps is one for all. A class with other state (rows and columns of Adafactor, blocks in eight bits) is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from groupwise.errors import OptimizerError
from groupwise.optim.borrowed import Groups
from groupwise.optim.live import names_of
from groupwise.plan import PartFactor, Resolution, ResolvedPart
from groupwise.select import Part

State: TypeAlias = MutableMapping[Any, Any]
Call: TypeAlias = Callable[[Groups, State], None]
Factors: TypeAlias = tuple[tuple[str, PartFactor], ...]


@dataclass
class Cut:
    """A tensor of a parameter's shape, cut into the matrices of a part. `outside` are those that are copies, each
    after the place that it was taken from."""

    matrices: list[torch.Tensor]
    outside: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def write_back(self) -> None:
        """Bring what became of copies to where they were taken from."""
        for place, copy in self.outside:
            place.copy_(copy)


def cut(part: Part, t: torch.Tensor) -> Cut:
    """The matrices of a part of `t`: views where each lies in one piece of memory, else copies."""
    items, made = [part.of(t)], Cut([])
    for _ in range(t.ndim - 2 if part.stack else 0):
        items = [matrix for item in items for matrix in item.unbind(0)]
    for item in items:
        dense = item if item.is_contiguous() else item.contiguous()
        if dense is not item:
            made.outside.append((item, dense))
        made.matrices.append(dense.flatten(part.flatten).flatten(0, part.flatten - 1) if part.flatten else dense)
    return made


@dataclass
class _Piece:
    """A part of a parameter during a step: its matrices, and its cuts of the entries of state."""

    part: Part
    weight: Cut
    entries: dict[str, Cut]


class PartedSteps:
    """The parts of a resolution's parameters, and one step of them."""

    def __init__(self, resolution: Resolution) -> None:
        self._parts = {group.name: group.parts for group in resolution.groups if group.parts}

    def takes_apart(self, groups: Groups) -> bool:
        """Whether any parameter of these live groups has parts."""
        return any(group.get("name") in self._parts for group in groups)

    def around(self, call: Call, groups: Groups) -> Call:
        """`call(groups, state)` with parts in the place of the parameters of the live `groups` that have any.

        Raises `OptimizerError` for a group in which they are not to be found.
        """
        parted = [group for group in groups if group.get("name") in self._parts]
        for group in parted:
            _check_found(group, self._parts[str(group["name"])])
        return functools.partial(self._step, call) if parted else call

    def _step(self, call: Call, groups: Groups, state: State) -> None:
        opened: list[Opened] = []
        local: State = dict(state)
        given = [(group, *used) for group in groups for used in self._taken_apart(group, opened, local)]
        try:
            call([used for _, used, _ in given], local)
        finally:
            for one in opened:
                if after := one.closed(local):
                    state[one.p] = after
            state.update(local)
            for group, used, own in reversed(given):  # of several made from one group, the first has the last word
                group.update({key: value for key, value in used.items() if key not in own})

    def _taken_apart(
        self, group: dict[str, Any], opened: list[Opened], local: State
    ) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
        """The groups that an engine gets for one, one for each set of factors, each with the keys that are its own."""
        parts = self._parts.get(str(group.get("name")))
        if parts is None:
            yield group, frozenset()
            return
        members: dict[Factors, list[torch.Tensor]] = {}
        for name, p in zip(names_of(group), group["params"], strict=True):
            if name not in parts or p.grad is None or _is_stepped_whole(name, p, parts[name]):
                members.setdefault((), []).append(p)
                continue
            opened.append(Opened.of(name, p, [own.part for own in parts[name]], local))
            for own, piece in zip(parts[name], opened[-1].pieces, strict=True):
                members.setdefault(tuple(sorted(own.factors.items())), []).extend(piece.weight.matrices)
        for i, (factors, params) in enumerate(members.items()):
            changed = {key: factor.of(group[key]) for key, factor in factors if key in group}
            changed |= {"name": f"{group['name']}@{i}", "params": params, "param_names": []}
            yield {**group, **changed}, frozenset(changed)


@dataclass
class Opened:
    """A parameter that is taken apart during a step."""

    p: torch.Tensor
    pieces: list[_Piece]
    before: Mapping[str, Any]

    @staticmethod
    def of(name: str, p: torch.Tensor, parts: Sequence[Part], local: State) -> Opened:
        """Cut a parameter, its gradient and its state, and put the state of its matrices into `local`."""
        if p.grad is None or p.grad.layout != torch.strided:
            raise OptimizerError(f"{name!r} is taken apart by the plan, and its gradient is sparse: parts are dense")
        held = local.pop(p, None) or {}
        opened = Opened(p, [], held)
        for part in parts:
            weight, gradient = cut(part, p.detach()), cut(part, p.grad)
            entries = {key: cut(part, value) for key, value in held.items() if _is_whole(value, p)}
            shared = {key: value for key, value in held.items() if key not in entries}
            for i, (matrix, own) in enumerate(zip(weight.matrices, gradient.matrices, strict=True)):
                matrix.grad = own
                if held:
                    cuts = {key: entry.matrices[i] for key, entry in entries.items()}
                    local[matrix] = {**{key: _copy(value) for key, value in shared.items()}, **cuts}
            opened.pieces.append(_Piece(part, weight, entries))
        return opened

    def closed(self, local: State) -> dict[str, Any]:
        """Write what became of the matrices where they lie; the state of the parameter, which that of the matrices in
        `local` becomes."""
        after = dict(self.before)
        for piece in self.pieces:
            piece.weight.write_back()
            for i, matrix in enumerate(piece.weight.matrices):
                matrix.grad = None
                for key, value in (local.pop(matrix, None) or {}).items():
                    self._take(piece, i, key, value, after)
            for entry in piece.entries.values():
                entry.write_back()
        return after

    def _take(self, piece: _Piece, i: int, key: str, value: Any, after: dict[str, Any]) -> None:
        """Take one entry of state of the i-th matrix of a part into that of the parameter."""
        matrix = piece.weight.matrices[i]
        if isinstance(value, torch.Tensor) and value.shape == matrix.shape:
            if key not in piece.entries:
                if key not in after:
                    after[key] = torch.zeros_like(self.p, dtype=value.dtype, device=value.device, requires_grad=False)
                piece.entries[key] = cut(piece.part, after[key])
            place = piece.entries[key].matrices[i]
            if place is not value:
                place.copy_(value)
        elif not isinstance(value, torch.Tensor | int | float | str | None):
            raise OptimizerError(
                f"{key!r} is a {type(value).__name__}, and the state of a parameter that is taken apart is made of "
                "tensors and numbers"
            )
        elif isinstance(value, torch.Tensor) and value.numel() != 1:
            raise OptimizerError(
                f"{key!r} of shape {tuple(value.shape)} is neither of its matrix, {tuple(matrix.shape)}, nor "
                "one number, so it cannot lie in the state of the whole parameter"
            )
        else:
            after[key] = value


def _check_found(group: Mapping[str, Any], parts: Mapping[str, Sequence[ResolvedPart]]) -> None:
    """Raise `OptimizerError` where parameters that are taken apart are not in their group, or have another shape."""
    held = dict(zip(names_of(group), group["params"], strict=True))
    if len(group.get("param_names", ())) != len(group["params"]):
        raise OptimizerError(
            f"group {group['name']!r} holds other tensors than the plan gave it, so {min(parts)!r}, which is taken "
            "apart, cannot be found in them: what flattens parameters (ZeRO) leaves no parts"
        )
    for name, own in parts.items():
        if name in held and tuple(held[name].shape) != own[0].part.whole:
            raise OptimizerError(
                f"{name!r} has got the shape {tuple(held[name].shape)} in place, and was taken apart as "
                f"{own[0].part.whole}: call optimizer.regroup(model=model) after such a change"
            )


def _is_stepped_whole(name: str, p: torch.Tensor, parts: Sequence[ResolvedPart]) -> bool:
    """Whether a tensor is what a rank holds of a parameter, under a class that treats entry by entry, and all of its
    entries are optimised alike. Raises `OptimizerError` where they are not and the cut is along the parts."""
    place = parts[0].part
    if tuple(p.shape) == place.whole:
        return False
    if not p.numel() or not any(resolved.factors for resolved in parts):
        return True
    if p.shape[place.axis] == place.whole[place.axis]:
        return False
    raise OptimizerError(
        f"{name!r} is sharded along axis {place.axis}, along which the plan cuts it into parts with other rates: shard "
        "it along another dimension (shard_placement_fn of fully_shard), or give its parts one rate"
    )


def _is_whole(value: object, p: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == p.shape


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
