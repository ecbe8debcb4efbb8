"""Advice as a part of a plan file: rules that multiply rates, and weights of tasks; what was not tried is a comment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groupwise.plan import Plan, Rule, scale


def patch_of(
    plan: Plan, rate: float, parts: Mapping[int, float], weights: Mapping[str, float], notes: Sequence[str]
) -> str:
    """TOML such that `plan + Plan.loads(patch)` is the plan as advised; empty where there is nothing to change.

    Args:
        rate: the factor on every learning rate.
        parts: by place in the plan, the factor more on what that rule matches.
        weights: static weights of the tasks; empty for none.
        notes: lines for its head, as comments.
    """
    rules = [Rule("*", label="probe", lr=scale(rate))] if rate != 1 or (weights and not parts) else []
    rules += [Rule(plan.rules[i].match, label=f"probe {plan.rules[i].label}", lr=scale(by)) for i, by in parts.items()]
    if not rules:
        return ""
    balance = {"weights": dict(weights)} if weights else None
    head = "".join(f"# {line}\n" for note in notes for line in note.splitlines())
    return f"{head}\n{Plan(rules, balance=balance).dumps()}"
