"""Clipping as part of the plan.

With g_i the gradients of a scope, n_i = |g_i| and N = sqrt(sum n_i^2), clipping to c multiplies each by
f = min(1, c / (N + 1e-6)), as `torch.nn.utils.clip_grad_norm_` does. The plan's own clip comes last and sees f * n_i,
which needs no second look at the gradients: each is read once for its norm and written once. Nothing waits for the
device, unless a clip is to do something about a norm that is not finite; what was found stays there, at
`optimizer.measured`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from groupwise import _torch
from groupwise.errors import GroupwiseWarning, OptimizerError, listed
from groupwise.optim.entries import clip_unitwise, clip_values
from groupwise.optim.gradients import multiply, norms_of, values_of
from groupwise.plan import Clip, ClipScope, Resolution

WHOLE = "plan"
"""The name, in `measured`, of the scope over everything."""

_ANSWERS = {
    "skip_step": "the step is left out",
    "pass": "clipping makes nan of all the gradients that share it, as torch's clip_grad_norm_ does. "
    'clip_norm(…, nonfinite="skip_step") leaves such a step out, "raise" ends the run',
}


class Measured(NamedTuple):
    """What a scope's clipping found (0-dim tensors on the device).

    `norm` is the joint 2-norm before clipping (for value clipping the largest entry, for adaptive clipping the largest
    ratio of gradient to weight); `factor` is what the gradients, or the largest of them, were multiplied by.
    """

    norm: torch.Tensor
    factor: torch.Tensor


class Clipped(NamedTuple):
    """What was found, by scope, and whether the step is to be left out."""

    measured: dict[str, Measured]
    skipped: bool


@dataclass
class _Cell:
    """Gradients that share every joint norm: one rule's scope (or none) and one of the plan's own."""

    scope: ClipScope | None
    scope_key: str
    whole_key: str
    params: list[torch.Tensor] = field(default_factory=list)
    norm: torch.Tensor | None = None
    factor: torch.Tensor | None = None


class Clipper:
    """Clips the gradients of a step, by the scopes of one resolution."""

    def __init__(self, resolution: Resolution) -> None:
        self._whole = resolution.clip
        self._several = len({group.network for group in resolution.groups}) > 1
        self._scopes = {g.name: g.clip for g in resolution.groups if g.clip is not None and g.algorithm is not None}
        self._members: dict[tuple[int, str], set[str]] = {}
        for group in resolution.groups:
            if group.name in self._scopes:
                self._members.setdefault((self._scopes[group.name].rule, group.network), set()).add(group.name)
        labels = Counter(scope.label for scope in set(self._scopes.values()))
        self._ambiguous = {label for label, count in labels.items() if count > 1} | {WHOLE}
        self._warned: set[str] = set()

    def clip(self, groups: Sequence[dict[str, Any]]) -> Clipped:
        """Clip in place the gradients of the groups of a step that are active.

        Raises `OptimizerError` in a step inside of backward, if a norm is to be joint and some of its gradients are not
        there yet; and for a norm that is not finite, if its clip says so.
        """
        if not self._scopes and self._whole is None:
            return Clipped({}, skipped=False)
        self._warn_if_cut(groups)
        active = [group for group in groups if not group.get("frozen", False)]
        if _torch.backward_pass() is not None:
            self._check_joint(active)
        cells = self._cells(active)
        scoped = {cell.scope_key: cell.scope.clip for cell in cells if cell.scope is not None}
        measured = {
            key: _clip_entries(clip, [p for cell in cells if cell.scope_key == key for p in cell.params])
            for key, clip in scoped.items()
            if clip.kind != "norm"
        }
        _measure([cell for cell in cells if self._wants_norm(cell)])
        sets = self._norms(cells)
        if self._is_skipped(sets, active):
            norms = {key: _joint(own, clip.bound) for key, (clip, own) in sets.items()}
            return Clipped(measured | norms, skipped=True)
        for key, clip in scoped.items():
            if clip.kind == "norm":
                measured[key] = _bound([cell for cell in cells if cell.scope_key == key], clip.bound)
        return Clipped(measured | self._clip_whole(cells), skipped=False)

    def _norms(self, cells: Sequence[_Cell]) -> dict[str, tuple[Clip, list[_Cell]]]:
        """The cells of every joint norm, with its clip."""
        sets: dict[str, tuple[Clip, list[_Cell]]] = {}
        for cell in cells:
            if cell.scope is not None and cell.scope.clip.kind == "norm":
                sets.setdefault(cell.scope_key, (cell.scope.clip, []))[1].append(cell)
            if self._whole is not None and self._whole.kind == "norm":
                sets.setdefault(cell.whole_key, (self._whole, []))[1].append(cell)
        return sets

    def _is_skipped(self, sets: Mapping[str, tuple[Clip, list[_Cell]]], groups: Sequence[dict[str, Any]]) -> bool:
        """Whether a norm that is not finite has the step left out; said once, or raised, as its clip says.

        Under "pass" a norm on another device than the CPU is not looked at: to look is to wait for it.
        """
        looked_at = {
            key: clip.nonfinite
            for key, (clip, own) in sets.items()
            if (clip.nonfinite != "pass" or _is_at_hand(own)) and not _is_finite(own)
        }
        if not looked_at:
            return False
        for answer in ("raise", "skip_step", "pass"):
            key = next((key for key, said in looked_at.items() if said == answer), None)
            if key is not None:
                broken = _not_finite(sets[key][1], groups)
                what = f"the gradient of {listed(broken, 4)} is not finite, and so neither is the norm of clip {key!r}"
                if answer == "raise":
                    raise OptimizerError(f'{what}; nonfinite="raise"')
                self._warn(f"{what}: {_ANSWERS[answer]}; said once", f"not finite, {answer}")
                return answer == "skip_step"
        return False

    def _clip_whole(self, cells: Sequence[_Cell]) -> dict[str, Measured]:
        """The plan's own clip, after the rules'; writes the gradients."""
        whole, measured = self._whole, {}
        keys = dict.fromkeys(cell.whole_key for cell in cells) if whole is not None else {}
        if whole is not None and whole.kind == "norm":
            measured = {key: _bound([cell for cell in cells if cell.whole_key == key], whole.bound) for key in keys}
        for cell in cells:
            if cell.factor is not None:
                multiply([values_of(p) for p in cell.params], cell.factor)
        if whole is not None and whole.kind != "norm" and cells:
            measured = {WHOLE: _clip_entries(whole, [p for cell in cells for p in cell.params])}
        return measured

    def _cells(self, groups: Sequence[dict[str, Any]]) -> list[_Cell]:
        cells: dict[tuple[str, str], _Cell] = {}
        for group in groups:
            scope = self._scopes.get(str(group.get("name")))
            network = self._network(group)
            for p, name in zip(group["params"], _names(group), strict=True):
                if p.grad is not None and p.grad.numel() > 0:
                    keys = self._scope_key(scope, network, name), _joined(WHOLE, _subset(self._whole, network, name))
                    cells.setdefault(keys, _Cell(scope, *keys)).params.append(p)
        return list(cells.values())

    def _check_joint(self, groups: Sequence[dict[str, Any]]) -> None:
        """A step that a hook takes inside of backward finds the gradients that are there already, mostly a single one.

        A joint norm would be that of a part, another at each step; said once where one tensor is all that there is.
        """
        for key, params in self._joint(groups).items():
            absent = sum(p.grad is None for p in params)
            if absent:
                raise OptimizerError(
                    f"step() is called inside of backward(), where {absent} of the {len(params)} gradients of the clip "
                    f"scope {key!r} are not there yet, so the norm would be that of a part. Step after backward(), or "
                    'bound every tensor by itself: clip_norm(…, per="parameter")'
                )
            if sum(map(len, (group["params"] for group in groups))) == 1:
                self._warn(
                    "this optimizer has one tensor and steps it inside of backward(): its clip bounds the norm of that "
                    'tensor, not one over the model. If that is meant, say so: clip_norm(…, per="parameter")'
                )

    def _joint(self, groups: Sequence[dict[str, Any]]) -> dict[str, list[torch.Tensor]]:
        """The parameters of every norm that is meant to be one over several tensors, whether they have gradients."""
        joint: dict[str, list[torch.Tensor]] = {}
        for group in groups:
            scope, network = self._scopes.get(str(group.get("name"))), self._network(group)
            for p, name in zip(group["params"], _names(group), strict=True):
                keys = [self._scope_key(scope, network, name)] if scope is not None and _is_joint(scope.clip) else []
                keys += [_joined(WHOLE, _subset(self._whole, network, name))] if _is_joint(self._whole) else []
                for key in keys if p.requires_grad else []:
                    joint.setdefault(key, []).append(p)
        return joint

    def _network(self, group: dict[str, Any]) -> str:
        return str(group.get("network", "")) if self._several else ""

    def _scope_key(self, scope: ClipScope | None, network: str, name: str) -> str:
        if scope is None:
            return ""
        label = f"{scope.label}#{scope.rule + 1}" if scope.label in self._ambiguous else scope.label
        return _joined(label, _subset(scope.clip, network, name))

    def _wants_norm(self, cell: _Cell) -> bool:
        whole = self._whole is not None and self._whole.kind == "norm"
        return whole or (cell.scope is not None and cell.scope.clip.kind == "norm")

    def _warn_if_cut(self, groups: Sequence[dict[str, Any]]) -> None:
        """A scope some of whose groups are missing from this step has another norm than the plan means."""
        present = {str(group.get("name")) for group in groups}
        for (rule, _), members in self._members.items():
            if members & present and not members <= present:
                label = next(scope.label for scope in self._scopes.values() if scope.rule == rule)
                self._warn(
                    f"this step updates only {listed(sorted(members & present))} of the clip scope {label!r} "
                    f"({listed(sorted(members))}): its norm is that of the part that is stepped",
                    "cut",
                )

    def _warn(self, message: str, kind: str = "") -> None:
        """Say something of a kind once."""
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, GroupwiseWarning, stacklevel=5)


def _names(group: dict[str, Any]) -> list[str]:
    """The names of a live group's parameters; none where others stand in their place than the names are of."""
    names, count = group.get("param_names") or [], len(group["params"])
    return list(names) if len(names) == count else [""] * count


def _is_joint(clip: Clip | None) -> bool:
    return clip is not None and clip.kind == "norm" and clip.per != "parameter"


def _subset(clip: Clip | None, network: str, name: str) -> str:
    """Which of the sets that have a norm of their own, under `clip.per`, a parameter belongs to."""
    if clip is not None and clip.per == "parameter":
        return name
    if clip is not None and clip.per == "module":
        return name.rpartition(".")[0] or network
    return network


def _joined(label: str, subset: str) -> str:
    return f"{label}/{subset}" if subset else label


def _measure(cells: Sequence[_Cell]) -> None:
    """The norm of each cell: one pass over all gradients together."""
    tensors = [values_of(p) for cell in cells for p in cell.params]
    if not tensors:
        return
    norms = torch.split(norms_of(tensors), [len(cell.params) for cell in cells])
    for cell, own in zip(cells, norms, strict=True):
        cell.norm = torch.linalg.vector_norm(own)


def _bound(cells: Sequence[_Cell], bound: float) -> Measured:
    """Bring the joint norm of the cells, as their factors leave them, down to `bound`."""
    measured = _joint(cells, bound)
    for cell in cells:
        cell.factor = measured.factor if cell.factor is None else cell.factor * measured.factor
    return measured


def _joint(cells: Sequence[_Cell], bound: float) -> Measured:
    """The joint norm of the cells, as their factors leave them, and the factor that brings it down to `bound`."""
    norms = [cell.norm if cell.factor is None else cell.norm * cell.factor for cell in cells if cell.norm is not None]
    joint = torch.linalg.vector_norm(torch.stack(norms))
    return Measured(joint, torch.clamp(bound / (joint + 1e-6), max=1.0))


def _is_at_hand(cells: Sequence[_Cell]) -> bool:
    """Whether the norms of these cells can be read without waiting."""
    on_cpu = all(cell.norm is not None and cell.norm.device.type == "cpu" for cell in cells)
    return on_cpu and not torch.compiler.is_compiling()


def _is_finite(cells: Sequence[_Cell]) -> bool:
    return bool(torch.isfinite(torch.stack([cell.norm for cell in cells if cell.norm is not None])).all())


def _not_finite(cells: Sequence[_Cell], groups: Sequence[dict[str, Any]]) -> list[str]:
    """The names of the parameters whose gradient has a norm that is not finite."""
    params = [p for cell in cells for p in cell.params]
    finite = torch.isfinite(norms_of([values_of(p) for p in params])).tolist()
    broken = {id(p) for p, is_finite in zip(params, finite, strict=True) if not is_finite}
    named = (pair for group in groups for pair in zip(group["params"], _names(group), strict=True))
    return [repr(name) if name else "a parameter" for p, name in named if id(p) in broken] or ["all together"]


def _clip_entries(clip: Clip, params: Sequence[torch.Tensor]) -> Measured:
    """Value and adaptive clipping: every entry, or every unit, on its own."""
    if clip.kind == "value":
        largest = clip_values([values_of(p) for p in params], clip.bound)
        return Measured(largest, torch.clamp(clip.bound / largest, max=1.0))
    largest = clip_unitwise(params, clip.bound, clip.eps)
    return Measured(largest, torch.clamp(clip.bound / largest, max=1.0))
