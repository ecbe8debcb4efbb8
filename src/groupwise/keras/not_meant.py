"""What is given to an optimizer and cannot be meant, and what to do instead."""

from __future__ import annotations

import os

import keras

from groupwise.errors import PlanError
from groupwise.plan import Plan

LAST_EPOCH = (
    "last_epoch belongs to torch's schedulers: this optimizer counts its updates itself, and goes on where it was when "
    "the model is loaded (load_model), or its weights together with the optimizer's state (load_weights)"
)

ARGUMENTS_ELSEWHERE = {
    **dict.fromkeys(("epochs", "steps", "decay_steps", "max_steps"), "say total_steps=, the updates in the whole run"),
    **dict.fromkeys(("lr", "beta_1", "momentum", "optimizer"), "the plan says it: Rule('*', optimizer=…, lr=…)"),
    "model": "the plan meets the model in bind: GroupedOptimizer(plan, …).bind(model)",
}

ONE_STEP = (
    "clipping, decay and update are one step over all groups, which optimizer.apply(gradients, variables) makes: there "
    "is no part of it to call, and no update of one variable alone"
)

UNKNOWN = (
    "and was built for others: layers were unfrozen or added (enable_lora) since. Give the model an optimizer of its "
    "own: model.compile(GroupedOptimizer(plan, …).bind(model), …)"
)


def plan_of(given: Plan | str | os.PathLike[str]) -> Plan:
    """The plan, or the one in the file. Raises `PlanError` for anything else."""
    if isinstance(given, keras.Model):
        raise PlanError("the plan comes first, and meets the model in bind: GroupedOptimizer(plan, …).bind(model)")
    return given if isinstance(given, Plan) else Plan.load(given)
