"""The learning rate of a group over a change of its plan, where something besides the plan has moved it.

A scheduler of torch's multiplies what a group held when it was built, its `initial_lr`. So an edited rate is the new
peak of a course that is under way: what the group holds now is

    new peak × (old rate / old base)

with `initial_lr` for the old base, or where there is none (`ReduceLROnPlateau`) what the old plan declared, if the rate
is below it. A scheduler with rates of its own (`OneCycleLR`, `CyclicLR`, `SWALR`) does not multiply the plan's, and its
rates stand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import torch

from groupwise.errors import listed
from groupwise.optim.live import declared_number
from groupwise.optim.plan_values import PlanValues

Kind: TypeAlias = Literal["under way", "by hand", "its own", "several", "at its base"]

_OWN_RATES: Final = ("max_lr", "swa_lr")  # what OneCycleLR and SWALR keep in a group

BASE_RATES: Final = (
    "set scheduler.base_lrs = [group['initial_lr'] for group in optimizer.param_groups], after its load_state_dict "
    "(and of each scheduler inside a SequentialLR or ChainedScheduler)"
)


@dataclass(frozen=True)
class RateEdit:
    """An edited rate that was moved: of which `group`, from `before` to `after`, the old base and the new peak."""

    kind: Kind
    group: str
    before: float
    after: float
    base: float
    peak: float


@dataclass(frozen=True)
class Rate:
    """What a live group is to hold, by key (nothing where the plan's own value stands), and what there is to say."""

    values: Mapping[str, Any] = field(default_factory=dict)
    edit: RateEdit | None = None


def is_anothers(group: Mapping[str, Any], values: Sequence[Mapping[str, Any]], plan_values: PlanValues) -> bool:
    """Whether the rate of a live group is neither the checkpoint's nor the plan's as it stands: see `rate_of`."""
    if plan_values.prefer != "unchanged" or "lr" not in group or not all("declared" in each for each in values):
        return False
    if plan_values.schedules_rate(group):
        return plan_values.driver != "plan" and any("initial_lr" in each for each in values)
    return any(_edited(group, each) or each.get("lr") != values[0].get("lr") for each in values)


def rate_of(group: Mapping[str, Any], values: Sequence[Mapping[str, Any]], plan_values: PlanValues) -> Rate:
    """The rate of a live group whose parameters had these group `values`, one mapping for each parameter.

    Parameters that come together at different shares of their courses go on at the lowest rate.
    """
    peak = plan_values.peaks.get(group["name"])
    found = [_rate(group, each, peak, plan_values) for each in values]
    rates = [float(rate.values["lr"]) for rate in found if "lr" in rate.values]
    if len(rates) < len(found):
        return Rate()
    lowest = min(range(len(rates)), key=rates.__getitem__)
    if all(math.isclose(rate, rates[0], rel_tol=1e-9) for rate in rates):
        return next((rate for rate in found if rate.edit is not None), found[0])
    if not any("initial_lr" in each for each in values):
        return Rate()
    edit = RateEdit("several", str(group["name"]), max(rates), rates[lowest], float(peak or 0), float(peak or 0))
    return Rate(found[lowest].values, edit)


def _edited(group: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return bool(group.get("declared", {}).get("lr") != values["declared"].get("lr"))


def _rate(group: Mapping[str, Any], values: Mapping[str, Any], peak: Any, plan_values: PlanValues) -> Rate:
    kept = {key: values[key] for key in ("lr", "initial_lr") if key in values}
    if not _edited(group, values):
        return Rate(kept)
    base, declared = values.get("initial_lr"), values["declared"].get("lr")
    was = declared_number(declared)
    replaced = declared is not None and was is None and plan_values.driver != "other"
    base = base if base is not None or plan_values.schedules_rate(group) else was
    if replaced or base is None or peak is None or float(base) == 0 or "lr" not in values:
        return Rate()
    if "initial_lr" not in values and float(values["lr"]) > float(base):  # nothing that reduces: it was set by hand
        return Rate()
    if _has_own_rates(values, was):
        return Rate(kept, _edit("its own", group, values, values["lr"], base, peak))
    rate = values["lr"] * (peak / base)
    begun = {"initial_lr": peak} if "initial_lr" in values else {}
    return Rate({"lr": rate, **begun}, _edit(_kind(values, base), group, values, rate, base, peak))


def _has_own_rates(values: Mapping[str, Any], was: float | None) -> bool:
    begun = values.get("initial_lr")
    other = begun is not None and was is not None and not math.isclose(float(begun), was, rel_tol=1e-6)
    return other or any(key in values for key in _OWN_RATES)


def _kind(values: Mapping[str, Any], base: Any) -> Kind:
    if math.isclose(float(values["lr"]), float(base), rel_tol=1e-9):
        return "at its base"
    return "under way" if "initial_lr" in values else "by hand"


def _edit(kind: Kind, group: Mapping[str, Any], values: Mapping[str, Any], rate: Any, base: Any, peak: Any) -> RateEdit:
    return RateEdit(kind, str(group["name"]), float(values["lr"]), float(rate), float(base), float(peak))


class UndoneEdits:
    """Watches rates that were edited while a torch scheduler had them at their base, until it has written them again.

    One that computes them from base rates of its own brings the old ones back (`LambdaLR`), others do not (`StepLR`),
    and until then there is no difference.
    """

    def __init__(self, edits: Iterable[RateEdit] = ()) -> None:
        self._watched = {edit.group: edit for edit in edits if edit.kind == "at its base"}

    @property
    def watches(self) -> bool:
        """Whether there is any left."""
        return bool(self._watched)

    def found(self, groups: Sequence[Mapping[str, Any]]) -> str:
        """A sentence on those of `groups`, which are about to be updated, that have the old rate; "" if none has."""
        undone = list[RateEdit]()
        for group in groups:
            edit, rate = self._watched.get(group.get("name", "")), group.get("lr")
            if edit is None or isinstance(rate, torch.Tensor) or rate == edit.after:
                continue
            del self._watched[edit.group]
            if math.isclose(float(rate or 0.0), edit.before, rel_tol=1e-9):
                undone.append(edit)
        if not undone:
            return ""
        first, names = undone[0], listed((edit.group for edit in undone), 3)
        return (
            f"another scheduler has put the lr of {names} back to what it was before the plan was edited: "
            f"{first.group!r} is at {first.before:.3g} again, not at {first.after:.3g}. It keeps base rates of its "
            f"own: {BASE_RATES}"
        )


def sentences(edits: Iterable[RateEdit]) -> Iterator[str]:
    """What there is to say about edited rates, one sentence for each kind."""
    by_kind: dict[Kind, list[RateEdit]] = {}
    for edit in edits:
        by_kind.setdefault(edit.kind, []).append(edit)
    for kind, found in by_kind.items():
        if kind in _SAID:
            first, names = found[0], listed((edit.group for edit in found), 3)
            share = first.before / first.base if first.base else math.nan
            yield _SAID[kind].format(names=names, first=first, share=share)


_SAID: Mapping[Kind, str] = {
    "under way": (
        "the plan has another lr for {names}, whose course is another scheduler's: {first.group!r} stood at "
        "{first.before:.3g}, {share:.3g} of its base {first.base:.3g}, and goes on at {first.after:.3g}, as much of "
        "{first.peak:.3g}. A scheduler that keeps base rates of its own (LambdaLR, CosineAnnealingWarmRestarts, …) "
        f"takes up the old course at its next step: {BASE_RATES}"
    ),
    "by hand": (
        "the plan has another lr for {names}, which something besides the plan had changed (ReduceLROnPlateau, or by "
        "hand): {first.group!r} stood at {first.before:.3g}, {share:.3g} of the declared {first.base:.3g}, and goes on "
        "at {first.after:.3g}, as much of {first.peak:.3g}. If it is to be another, set it in param_groups"
    ),
    "its own": (
        "the plan has another lr for {names}, but a scheduler that gives rates of its own runs there (OneCycleLR, "
        "CyclicLR, SWALR): {first.group!r} stays at {first.before:.3g}. Give the rate to that scheduler"
    ),
    "several": (
        "parameters that come together in {names} had different rates under another scheduler: {first.group!r} goes on "
        "at the lowest, {first.after:.3g}; the highest was {first.before:.3g}. Keep them apart in the plan, or set it "
        "in param_groups"
    ),
}
