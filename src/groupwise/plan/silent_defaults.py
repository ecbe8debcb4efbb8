"""No default is taken silently: neither a learning rate that no rule declares, nor the default of another algorithm in
the place of a value that was declared for the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from groupwise.errors import ResolutionError
from groupwise.plan.algorithm import PERFORMANCE, REQUIRED, Algorithm, same
from groupwise.plan.declarations import Exact, Factor
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.outcomes import Declaration, text_of
from groupwise.plan.rule import Rule, title


def check_defaults(
    rules: Sequence[Rule],
    namer: int,
    algorithm: Algorithm,
    declared: Iterable[str],
    dropped: Sequence[tuple[str, Declaration]],
    parameter: str,
    mistakes: Mistakes,
) -> None:
    """Collect an error for every default of `algorithm` that `parameter` would take silently where it matters.

    `declared` are the slots whose value a rule declares; `dropped` the declarations made for another algorithm; `namer`
    is the rule that named `algorithm`.
    """
    checked, stated = set(declared), set(declared)
    for name, declaration in reversed(dropped):
        if name in PERFORMANCE or not algorithm.knows(name):
            continue
        for slot, value in _assigned_elsewhere(algorithm, name, declaration.value):
            if slot in checked or isinstance(value, Factor):
                continue
            if not same(slot, value.value if isinstance(value, Exact) else value, algorithm.default(slot)):
                stated.add(slot)
                with mistakes.collecting(parameter):
                    raise ResolutionError(_lost(rules, declaration.rule, namer, algorithm, slot, value, parameter))
            checked.add(slot)
    rate = algorithm.learning_rate
    missing = [slot for slot, default in algorithm.defaults.items() if default is REQUIRED and slot not in stated]
    with mistakes.collecting(parameter):
        if rate is not None and rate not in stated:
            raise ResolutionError(
                f"{parameter!r} has no declared {rate}: {title(rules, namer)} gives it to {algorithm.name}, "
                f"whose default {rate} is {algorithm.defaults[rate]!r}, and a learning rate is never a silent default; "
                f"declare {rate}= there{_rate_of_another(rules, dropped, algorithm, rate)}"
            )
        if missing:
            names = ", ".join(missing)
            raise ResolutionError(f"{parameter!r}: {algorithm.name} requires {names}, which no rule declares")


def _rate_of_another(
    rules: Sequence[Rule], dropped: Sequence[tuple[str, Declaration]], algorithm: Algorithm, rate: str
) -> str:
    """Which rule declares a rate for another algorithm; a value that happens to be the default is no loss."""
    rates = [made for name, made in dropped if rate in algorithm.slots_of(name) and not isinstance(made.value, Factor)]
    if not rates:
        return ""
    source = rates[-1].rule
    return f" ({title(rules, source)} declares one for {rules[source].optimizer} alone)"


def _assigned_elsewhere(algorithm: Algorithm, name: str, value: object) -> list[tuple[str, object]]:
    """The slots of `algorithm` that a declaration made for another algorithm would have set."""
    slots = algorithm.slots_of(name)
    inner = value.value if isinstance(value, Exact) else value
    if isinstance(inner, tuple) and slots != [name] and len(inner) == len(slots):
        return list(zip(slots, inner, strict=True))
    return [(slot, value) for slot in slots]


def _lost(
    rules: Sequence[Rule], source: int, namer: int, algorithm: Algorithm, slot: str, value: object, parameter: str
) -> str:
    return (
        f"{parameter!r} would silently lose {slot}={text_of(value)}: {title(rules, source)} declares it for "
        f"{rules[source].optimizer}, {title(rules, namer)} changes the algorithm to {algorithm.name}, whose default "
        f"{slot}={algorithm.default(slot)!r} would take its place; declare {slot.partition('[')[0]}= "
        f"in rule {namer + 1}, or in a rule that names no optimizer"
    )
