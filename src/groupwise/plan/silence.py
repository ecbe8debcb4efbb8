"""No silent default: the law about values that nobody finally declares.

Two cases are errors: a learning rate that no rule declares, and a value that a rule did declare but that a change of
algorithm dropped, where the new class would quietly put its own default in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groupwise.errors import ResolutionError
from groupwise.plan.algorithm import PERFORMANCE, REQUIRED, Algorithm
from groupwise.plan.declarations import Exact, Factor
from groupwise.plan.rule import Rule
from groupwise.plan.words import Speech, text_of, title


def check_defaults(
    rules: Sequence[Rule],
    namer: int,
    standing: Algorithm,
    speeches: Mapping[str, Sequence[Speech]],
    dropped: Sequence[tuple[str, Speech]],
    parameter: str,
) -> None:
    """Raise `ResolutionError` if, for `parameter`, a default of `standing` would stand unsaid where it matters.

    `speeches` are the declarations heard, by slot; `dropped` those that speak for another algorithm; `namer` is the
    rule that named `standing`.
    """
    spoken = {slot for slot, said in speeches.items() if any(not isinstance(s.value, Factor) for s in said)}
    judged = set(spoken)
    for name, speech in reversed(dropped):
        if name in PERFORMANCE or not standing.knows(name):
            continue
        for slot, value in _meant(standing, name, speech.value):
            if slot in judged or isinstance(value, Factor):
                continue
            if not _same(value, standing.default(slot)):
                raise ResolutionError(_dropped(rules, speech.rule, namer, standing, slot, value, parameter))
            judged.add(slot)
    rate = standing.learning_rate
    if rate is not None and rate not in spoken:
        raise ResolutionError(
            f"{parameter!r} has no declared {rate}: {title(rules, namer)} gives it to {standing.name}, "
            f"whose default {rate} is {standing.defaults[rate]!r}, and a learning rate is never a silent default; "
            f"declare {rate}= there"
        )
    missing = [slot for slot, default in standing.defaults.items() if default is REQUIRED and slot not in spoken]
    if missing:
        raise ResolutionError(f"{parameter!r}: {standing.name} requires {', '.join(missing)}, which no rule declares")


def _meant(standing: Algorithm, name: str, value: object) -> list[tuple[str, object]]:
    """The slots of `standing` that a declaration made for another algorithm would have set."""
    slots = standing.slots_of(name)
    inner = value.value if isinstance(value, Exact) else value
    if isinstance(inner, tuple) and slots != [name] and len(inner) == len(slots):
        return list(zip(slots, inner, strict=True))
    return [(slot, value) for slot in slots]


def _dropped(
    rules: Sequence[Rule], source: int, namer: int, standing: Algorithm, slot: str, value: object, parameter: str
) -> str:
    return (
        f"{parameter!r} would silently lose {slot}={text_of(value)}: {title(rules, source)} declares it for "
        f"{rules[source].optimizer}, {title(rules, namer)} changes the algorithm to {standing.name}, whose default "
        f"{slot}={standing.default(slot)!r} would take its place; declare {slot.partition('[')[0]}= "
        f"in rule {namer + 1}, or in a rule that names no optimizer"
    )


def _same(value: object, default: object) -> bool:
    plain = value.value if isinstance(value, Exact) else value
    return type(plain) in (bool, int, float, str, type(None)) and plain == default
