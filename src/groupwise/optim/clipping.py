"""Clipping as part of the plan.

With g_i the gradients of a scope, n_i = |g_i| and N = sqrt(sum n_i^2), clipping to c multiplies each by
f = min(1, c / (N + 1e-6)), as `torch.nn.utils.clip_grad_norm_` does. The plan's own clip comes last and sees f * n_i,
which needs no second look at the gradients: each is read once for its norm and written once. Nothing waits for the
device, unless a clip is to do something about a norm that is not finite; what was found stays there, at
`optimizer.measured`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import torch

from groupwise import _torch
from groupwise._warning import warn
from groupwise.errors import OptimizerError, listed
from groupwise.optim.clip_arrangement import Arrangement, Cell
from groupwise.optim.clip_factors import Found, Numbers, factors_of, joint_norms
from groupwise.optim.entries import clip_unitwise, clip_values
from groupwise.optim.gradients import Alike, Present, present_in, values_of
from groupwise.plan import Clip, ClipScope, Resolution

WHOLE = "plan"
"""The name, in `measured`, of the scope over everything."""

_ANSWERS = {
    "skip_step": "the step is left out",
    "pass": "clipping makes {} of all the gradients that share it, as torch's clip_grad_norm_ does. "
    'clip_norm(…, nonfinite="skip_step") leaves such a step out, "raise" ends the run',
}


class Clipped(NamedTuple):
    """What was found, numbers of the host as of which type, whether the step is to be left out, and the tensors of the
    active groups, if they have the gradients still that they had."""

    found: list[Found]
    dtype: torch.dtype
    skipped: bool
    present: Present | None = None


_NOTHING = Clipped([], torch.float32, skipped=False)

Key: TypeAlias = tuple[object, ...]
Group: TypeAlias = Mapping[str, Any]
Groups: TypeAlias = Sequence[dict[str, Any]]
_MANY = 64  # trainers that step group after group show a few lists of groups in turn


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
        clips = [self._whole, *(scope.clip for scope in self._scopes.values())]
        self._by_name = any(clip is not None and clip.per in ("parameter", "module") for clip in clips)
        self._arrangements: dict[Key, tuple[Arrangement, Alike]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrangements": {}}

    def clip(self, groups: Groups) -> Clipped:
        """Clip in place the gradients of the groups of a step that are active.

        Raises `OptimizerError` in a step inside of backward, if a norm is to be joint and some of its gradients are not
        there yet; and for a norm that is not finite, if its clip says so.
        """
        if not self._scopes and self._whole is None:
            return _NOTHING
        active = [group for group in groups if not group.get("frozen", False)]
        if _torch.backward_pass() is not None:
            self._check_joint(active)
        present = present_in(active)
        arranged, alike = self._arranged(groups, active, present)
        params = present.params
        found = [
            _clip_entries(key, clip, [params[i] for i in places]) for key, clip, places in arranged.clipped_by_entry
        ]
        same = not arranged.clipped_by_entry
        if arranged.normed:
            gradients = arranged.of_normed(present.gradients if same else [p.grad for p in params])
            tensors = alike.look_at(arranged.of_normed(params), gradients)
            same = same and tensors is gradients
            cells = joint_norms(alike.norms(tensors), arranged.spans)
            factors = factors_of(arranged, cells)
            found += factors.found
            if self._is_skipped(arranged, cells, active):
                return Clipped(found, alike.dtype, skipped=True)
            alike.multiply(tensors, arranged.spans, factors.of_cells)
        if self._whole is not None and self._whole.kind != "norm" and params:
            found.append(_clip_entries(WHOLE, self._whole, params))
            same = False
        return Clipped(found, alike.dtype, skipped=False, present=present if same else None)

    def _arranged(self, groups: Groups, active: Groups, present: Present) -> tuple[Arrangement, Alike]:
        """The arrangement for the groups of a step, whose parameters with gradients are `present`; made once."""
        if torch.compiler.is_compiling():  # before a look at what is kept, which would be traced as a constant
            self._warn_if_cut(groups)
            return Arrangement(self._cells(active, present), self._whole), Alike()
        key = self._key(groups, active, present)
        found = self._arrangements.get(key)
        if found is None:
            self._warn_if_cut(groups)
            if len(self._arrangements) >= _MANY:
                self._arrangements.clear()
            found = self._arrangements[key] = Arrangement(self._cells(active, present), self._whole), Alike()
        return found

    def _key(self, groups: Groups, active: Groups, present: Present) -> Key:
        """What an arrangement, and the warning that comes with it, read of the groups."""
        of_groups = ([group.get(key) for group in active] for key in ("name", "network"))
        stepped = [] if len(active) == len(groups) else [group.get("name") for group in groups]
        named = zip(active, present.by_group, strict=True) if self._by_name else ()
        names = (name for group, own in named for name in _names(group, own))
        return (*chain.from_iterable(of_groups), *present.sizes, *stepped, *names)

    def _is_skipped(self, arranged: Arrangement, norms: Numbers, groups: Groups) -> bool:
        """Whether a norm that is not finite has the step left out; said once, or raised, as its clip says.

        Under "pass" a norm on a device is not looked at: to look is to wait for it.
        """
        at_hand = not isinstance(norms, torch.Tensor)
        if at_hand and math.isfinite(sum(norms)):
            return False
        looked_at = {
            (clip.nonfinite, key): own
            for level in arranged.levels()
            for key, clip, own in zip(level.keys, level.clips, level.sets, strict=True)
            if (clip.nonfinite != "pass" or at_hand) and not _is_finite(norms, own)
        }
        if not looked_at:
            return False
        for answer in ("raise", "skip_step", "pass"):
            key, cells = next(((key, own) for (said, key), own in looked_at.items() if said == answer), ("", []))
            if cells:
                what = _what_is_not_finite([arranged.normed[i] for i in cells], groups, key)
                if answer == "raise":
                    raise OptimizerError(f'{what}; nonfinite="raise"')
                made = "nan" if any(math.isnan(norms[i]) for i in cells) else "0, and nan of what is infinite,"
                self._warn(f"{what}: {_ANSWERS[answer].format(made)}; said once", f"not finite, {answer}")
                return answer == "skip_step"
        return False

    def _cells(self, groups: Groups, present: Present) -> list[Cell]:
        cells: dict[tuple[str, str], Cell] = {}
        place = 0
        for group, own in zip(groups, present.by_group, strict=True):
            scope = self._scopes.get(str(group.get("name")))
            network = self._network(group)
            for name in _names(group, own):
                keys = self._scope_key(scope, network, name), _joined(WHOLE, _subset(self._whole, network, name))
                cells.setdefault(keys, Cell(scope, *keys, [])).places.append(place)
                place += 1
        return list(cells.values())

    def _check_joint(self, groups: Groups) -> None:
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

    def _joint(self, groups: Groups) -> dict[str, list[torch.Tensor]]:
        """The parameters of every norm that is meant to be one over several tensors, whether they have gradients."""
        joint: dict[str, list[torch.Tensor]] = {}
        for group in groups:
            scope, network = self._scopes.get(str(group.get("name"))), self._network(group)
            for p, name in zip(group["params"], _names(group, group["params"]), strict=True):
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

    def _warn_if_cut(self, groups: Groups) -> None:
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
            warn(message)


def _names(group: Group, params: Sequence[torch.Tensor]) -> list[str]:
    """The names of some of a live group's parameters, in their order; none where others stand in their place than the
    names are of."""
    names, held = group.get("param_names") or [], group["params"]
    if len(names) != len(held):
        return [""] * len(params)
    if len(params) == len(held):
        return list(names)
    wanted = {id(p) for p in params}
    return [name for name, p in zip(names, held, strict=True) if id(p) in wanted]


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


def _is_finite(norms: Numbers, cells: Sequence[int]) -> bool:
    if isinstance(norms, torch.Tensor):
        return bool(torch.isfinite(torch.stack([norms[i] for i in cells])).all())
    return all(math.isfinite(norms[i]) for i in cells)


def _what_is_not_finite(cells: Sequence[Cell], groups: Groups, key: str) -> str:
    """Which gradients of these cells have a norm that is not finite, and whether it is their own fault or that of a
    norm too large for a number."""
    held = [
        (p, name) for group in groups for p, name in zip(group["params"], _names(group, group["params"]), strict=True)
    ]
    present = [(p, name) for p, name in held if p.grad is not None]
    own = [present[i] for cell in cells for i in cell.places]
    alike = Alike()
    params = [p for p, _ in own]
    norms = alike.norms(alike.look_at(params, [p.grad for p in params]))
    finite = torch.isfinite(torch.as_tensor(norms)).tolist()
    named = [(p, repr(name) if name else "a parameter") for (p, name), ok in zip(own, finite, strict=True) if not ok]
    broken = [name for p, name in named if not bool(torch.isfinite(values_of(p)).all())]
    if broken:
        return f"the gradient of {listed(broken, 4)} is not finite, and so neither is the norm of clip {key!r}"
    large = f", as that of {listed([name for _, name in named], 4)}" if named else ""
    return f"the norm of clip {key!r} is too large for a number{large}, though every gradient is finite"


def _clip_entries(key: str, clip: Clip, params: Sequence[torch.Tensor]) -> Found:
    """Value and adaptive clipping: every entry, or every unit, on its own."""
    by_value = clip.kind == "value"
    largest = (
        clip_values([*map(values_of, params)], clip.bound) if by_value else clip_unitwise(params, clip.bound, clip.eps)
    )
    return Found([key], largest[None], torch.clamp(clip.bound / largest, max=1.0)[None])
