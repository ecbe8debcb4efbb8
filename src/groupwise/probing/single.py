"""One AdamW in the place of a plan's algorithms and rates: the challenger that a plan has to be as good as.

A plan of several algorithms and rates is worth its words where one AdamW for everything ends higher. So a probe runs
that as well, from the same budget. It has the course of the plan's rate (that of the most parameters), its peak being
searched, and what the plan says besides: what is frozen, what is clipped, how tasks are balanced.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, final

import torch

from groupwise._spelling import number
from groupwise.errors import PlanError
from groupwise.plan import Group, Plan, Resolution, Rule, ScalarSetting
from groupwise.schedules import Schedule

ALIKE: Final = ("AdamW", "Adam", "NAdam", "RAdam")
"""Whose rates mean to AdamW about what they mean to them."""

DECAY: Final = 0.01
"""Its weight decay, the default of `torch.optim.AdamW`."""

LABEL: Final = "one AdamW"


@final
@dataclass(frozen=True)
class Single:
    """How one AdamW is made of a plan.

    Attributes:
        course: the rate of the most parameters as it is declared, a number or a schedule.
        peak: the highest that comes to.
        near: the rate that those parameters have, where their algorithm's mean the same to AdamW; None otherwise, and a
            rate has to be searched from nothing.
    """

    course: float | Schedule
    peak: float
    near: float | None

    def plan(self, plan: Plan, lr: float) -> Plan:
        """The plan with one AdamW for everything, `lr` being the highest rate."""
        rule = Rule("*", label=LABEL, optimizer="AdamW", lr=_at_peak(self.course, self.peak, lr), weight_decay=DECAY)
        kept = (_without_rates(each) for each in plan.rules)
        rules = [rule, *(each for each in kept if each is not None)]
        balance = None if plan.balance is None else dict(plan.balance)
        return Plan(rules, plan.clip, dict(plan.values), balance, plan.depth)


def single_of(resolution: Resolution, gradients: Iterable[Any]) -> Single | None:
    """The challenger; None where the plan is one AdamW already, or where that cannot be: sparse gradients."""
    groups = [group for group in resolution.groups if group.algorithm is not None and "lr" in group.settings]
    if not groups or any(g is not None and g.layout != torch.strided for g in gradients) or _is_one(groups):
        return None
    most = max(groups, key=lambda group: sum(math.prod(info.shape) for info in group.parameters))
    setting = most.settings["lr"]
    if not isinstance(setting, ScalarSetting) or not isinstance(setting.base, int | float | Schedule):
        return None
    peak, rate = ScalarSetting(setting.base).peak, setting.peak
    if not (isinstance(peak, int | float) and isinstance(rate, int | float) and peak > 0 and rate > 0):
        return None
    near = float(rate) if most.algorithm in ALIKE else None
    return Single(setting.base, float(peak), near)


def _is_one(groups: Iterable[Group]) -> bool:
    """Whether all have AdamW, the same rate and no measured factor."""
    own = list(groups)
    rates = {(str(group.settings["lr"]), group.settings["lr"].peak) for group in own}
    return {group.algorithm for group in own} == {"AdamW"} and len(rates) == 1 and not own[0].settings["lr"].measured


def _at_peak(course: float | Schedule, peak: float, lr: float) -> float | Schedule:
    """The course, its highest value being `lr`; as the same schedule with another first argument, where that is it."""
    if not isinstance(course, Schedule):
        return lr
    try:
        written = Plan([Rule("*", label=LABEL, lr=course)]).replace(LABEL, {f"lr.{course.kind}": lr})
    except PlanError:
        return course.scaled(lr / peak)
    found = written.rules[0].hyperparameters["lr"]
    if isinstance(found, Schedule) and _alike(found, course, lr / peak):
        return found
    return course.scaled(lr / peak)


def _alike(one: Schedule, course: Schedule, by: float) -> bool:
    """Whether one is the other times a number, at the start, in the course and at the end."""
    steps = (0, 1, 7, 40, 333, 500, 750, 999, 1000)
    pairs = ((one.at(step, 1000, 10), by * course.at(step, 1000, 10)) for step in steps)
    return all(abs(a - b) <= 1e-9 * max(abs(a), abs(b)) for a, b in pairs)


def _without_rates(rule: Rule) -> Rule | None:
    """What a rule says of freezing and clipping; None if it says nothing of them."""
    if rule.trainable is None and rule.clip is None:
        return None
    return Rule(rule.match, label=rule.label, trainable=rule.trainable, clip=rule.clip, optional=True)


def said_of(lr: float) -> str:
    """One AdamW in a sentence."""
    return f"one AdamW at lr={number(lr)}"
