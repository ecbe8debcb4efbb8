"""Advice as a part of a plan file: rules that multiply rates, and weights of tasks; what was not tried is a comment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groupwise.plan import Plan, Rule, scale


def whole_of(plan: Plan, weights: Mapping[str, float], notes: Sequence[str]) -> str:
    """A plan that takes the place of another, as TOML: `notes` for its head, and static weights where there are any."""
    balance = {"weights": dict(weights)} if weights else None if plan.balance is None else dict(plan.balance)
    made = Plan(plan.rules, plan.clip, dict(plan.values), balance, plan.depth, plan.parts)
    return f"{_head([*notes, 'This is a plan of its own, in the place of the one that was probed.'])}\n{made.dumps()}"


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
    return f"{_head(notes)}\n{Plan(rules, balance=balance).dumps()}"


def _head(notes: Sequence[str]) -> str:
    """Lines of comments."""
    return "".join(f"# {line}\n" for note in notes for line in note.splitlines())
