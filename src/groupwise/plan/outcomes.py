"""What became of each declaration of one property: the last value stands, factors multiply into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from groupwise._spelling import number
from groupwise.plan.declarations import Exact, Factor


@dataclass(frozen=True)
class Declaration:
    """The value that one rule declares for one property."""

    rule: int
    value: object


@dataclass(frozen=True)
class Outcome:
    """What became of a declaration.

    `status` is "last word", "factor", "factor of one", "overridden" (by the rule `overridden_by`) or says why the
    declaration does not apply; `effective` is whether it contributes to the value that stands, `changes` whether
    anything would be different without it: a factor of one and a value equal to the one before contribute, but change
    nothing. At the top of a layer-wise decay the factor is one as well; it is part of the ladder, so it counts.
    """

    rule: int
    text: str
    status: str
    effective: bool
    overridden_by: int | None = None
    changes: bool = True


class Outcomes(dict[str, tuple[Outcome, ...]]):
    """The outcomes of every property, in the plan's order. Many parameters share one, so that what is asked of it is
    found once; it is not changed."""

    @cached_property
    def declaring(self) -> frozenset[int]:
        """The rules that declare something, effective or not."""
        return frozenset([outcome.rule for outcome in self._all()])

    @cached_property
    def effective(self) -> frozenset[int]:
        """The rules with an effective declaration."""
        return frozenset([outcome.rule for outcome in self._all() if outcome.effective])

    @cached_property
    def visible(self) -> frozenset[int]:
        """The rules that change something."""
        return frozenset([outcome.rule for outcome in self._all() if outcome.effective and outcome.changes])

    def _all(self) -> Iterator[Outcome]:
        return (outcome for outcomes in self.values() for outcome in outcomes)


def outcomes_of(made: Sequence[Declaration], by_rule: bool = False) -> tuple[Outcome, ...]:
    """The outcomes of one property's declarations: the last value, every factor that applies to it, the overridden.

    `by_rule` says that equal values of two rules differ all the same, as clip scopes do.
    """
    values = [i for i, declaration in enumerate(made) if not isinstance(declaration.value, Factor)]
    changes = by_rule or len(values) < 2 or not _equal(made[values[-2]].value, made[values[-1]].value)
    last = values[-1] if values else -1
    exact_from = last if last >= 0 and isinstance(made[last].value, Exact) else -1
    outcomes = []
    for i, declaration in enumerate(made):
        text = text_of(declaration.value)
        if isinstance(declaration.value, Factor) and i > exact_from:
            outcomes.append(Outcome(declaration.rule, text, "factor", True))
        elif i == last:
            outcomes.append(Outcome(declaration.rule, text, "last word", True, changes=changes))
        else:
            outcomes.append(Outcome(declaration.rule, text, "overridden", False, made[last].rule))
    return tuple(outcomes)


def text_of(value: object) -> str:
    """A declared value as tables and errors print it."""
    return number(value, 6) if isinstance(value, float | tuple) else str(value)


def _equal(before: object, value: object) -> bool:
    """Whether a declared value is the one that stood before it; `exact` also stops the factors before it."""
    return type(before) is type(value) and not isinstance(value, Exact) and before == value
