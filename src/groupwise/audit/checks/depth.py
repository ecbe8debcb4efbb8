"""Groups that were meant to differ, and do not.

Layer-wise decay is a loop over names. If the names never match, every layer falls into the default, and what is left
is a list of groups with one rate. timm's and BEiT's form puts the factor into the group as `lr_scale`, which timm's
schedulers and BEiT's loop multiply by, and torch's schedulers do not. OneCycleLR and CyclicLR overwrite every group's
rate with one number, unless they are given a list.

Nobody's intent is in a group, so signs must do: groups that hold one layer each, or one tensor each, or that carry an
`lr_scale`, all with one rate. Two or three equal groups of whole parts, an encoder and a head, are an idiom, and go
without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from groupwise._spelling import number
from groupwise.audit.checks.check import Check
from groupwise.audit.checks.values import MULTIPLIERS, SETTERS
from groupwise.audit.finding import Finding, Severity
from groupwise.audit.inspected import Group, Owner, Program, names
from groupwise.select import ParameterInfo

_FEW = 3
"""As many layers as it takes to call groups a list of layers."""

_OF_SCHEDULERS = re.compile(r"^(initial|max|min|base)_(lr|momentum)$|^name$|^declared$")


def levelled(program: Program, owner: Owner) -> str:
    """The scheduler that brought one rate to groups that differ in nothing else; empty if there is none."""
    setter = next((driver for driver in program.drivers(owner) if SETTERS & set(driver.kinds)), None)
    return str(setter) if setter and len(owner.groups) > 1 and _alike(owner.groups) else ""


def _idle(program: Program) -> Iterator[Finding]:
    for owner in program.optimizers:
        groups = [group for group in owner.groups if program.held(group)]
        rates = {_rate(program, owner, group) for group in groups}
        if len(groups) > 1 and len(rates) == 1 and 0 not in rates and not levelled(program, owner):
            yield from _scaled(program, owner, groups) or _layered(program, owner, groups)


def _rate(program: Program, owner: Owner, group: Group) -> float:
    """A group's rate; in a warm-up from 0, what a scheduler of torch multiplies by 0 at the moment."""
    multiplied = [driver for driver in program.drivers(owner) if MULTIPLIERS & set(driver.kinds)]
    return group.number("initial_lr") if group.lr == 0 and multiplied else group.lr


def _scaled(program: Program, owner: Owner, groups: Sequence[Group]) -> list[Finding]:
    scales = {group.number("lr_scale", 1.0) for group in groups if "lr_scale" in group.settings}
    if len(scales) < 2:
        return []
    severity: Severity = "warning" if program.drivers(owner) or program.record else "note"
    message = (
        f"{owner}: lr_scale goes from {number(min(scales))} to {number(max(scales))}, and every group has lr "
        f"{number(_rate(program, owner, groups[0]))}: torch's optimizers and schedulers do not read lr_scale"
    )
    remedy = 'multiply it in before a scheduler is built: for g in optimizer.param_groups: g["lr"] *= g["lr_scale"]'
    return [_finding(program, groups, severity, message, remedy)]


def _layered(program: Program, owner: Owner, groups: Sequence[Group]) -> list[Finding]:
    by_layer = _by_tensor(groups) if _lone(groups) else _by_layer(program, groups)
    if not by_layer and not _defaulted(program, groups):
        return []
    severity: Severity = "warning" if len(groups) >= _FEW else "note"
    message = (
        f"{owner}: {len(groups)} groups by layer, and all have lr {number(_rate(program, owner, groups[0]))}: "
        "a decay by layer changes nothing, as if no name had matched"
    )
    remedy = "print what the loop compares: [n for n, _ in model.named_parameters()], and each group's lr"
    return [_finding(program, groups, severity, message, remedy)]


def _finding(program: Program, groups: Sequence[Group], severity: Severity, message: str, remedy: str) -> Finding:
    infos = [info for group in groups for info in program.held(group)]
    return Finding("idle-layers", severity, names(infos), message, remedy)


def _by_layer(program: Program, groups: Sequence[Group]) -> bool:
    """Whether each group lies within one numbered layer, and there are a few of these."""
    depths = [{info.depth for info in program.held(group)} for group in groups]
    numbered = [g for g in groups if all(map(_is_numbered, program.held(g)))]
    layers = {info.depth for group in numbered for info in program.held(group)}
    return all(len(depth) == 1 for depth in depths) and len(layers) >= _FEW


def _is_numbered(info: ParameterInfo) -> bool:
    return re.search(r"\d+\.", info.name) is not None


def _lone(groups: Sequence[Group]) -> bool:
    return all(len(group.tensors) == 1 for group in groups)


def _by_tensor(groups: Sequence[Group]) -> bool:
    """Whether there is a group for each tensor, as loops over names make them, which differ in nothing."""
    return len(groups) > _FEW and _alike(groups)


def _defaulted(program: Program, groups: Sequence[Group]) -> bool:
    """Whether all carry one `lr_scale`, while the model has layers that could be told apart."""
    scaled = all("lr_scale" in group.settings for group in groups)
    return scaled and len({info.depth for info in program.parameters}) >= _FEW


def _alike(groups: Sequence[Group]) -> bool:
    """Whether groups differ in nothing but their parameters."""
    return all(_settings(group) == _settings(groups[0]) for group in groups)


def _settings(group: Group) -> dict[str, Any]:
    return {k: str(v) for k, v in group.settings.items() if not _OF_SCHEDULERS.match(k) or k == "max_lr"}


LAYERS: Iterable[Check] = (
    Check(
        "idle-layers", "warning", (), "groups by layer that all have one learning rate: a layer-wise decay whose names "
        "never matched, or an `lr_scale` that nobody multiplies by",
        "every layer falls into the default, and training works, with one rate",
        "print each group's lr; `g[\"lr\"] *= g[\"lr_scale\"]` before a scheduler is built", _idle,
    ),
)  # fmt: skip
