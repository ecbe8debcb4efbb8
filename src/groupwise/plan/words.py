"""What rules say: one `Speech` per declaration, and the `Word` that is left once it is decided who is heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groupwise._spelling import number, shown
from groupwise.plan.declarations import Exact, Factor
from groupwise.plan.rule import Rule


@dataclass(frozen=True)
class Speech:
    """One rule's value for one property, before anything is decided."""

    rule: int
    value: object


@dataclass(frozen=True)
class Word:
    """What one rule says about one property, and whether it is heard; `verdict` says why not, `silenced_by` by whom."""

    rule: int
    text: str
    verdict: str
    heard: bool
    silenced_by: int | None = None


def last_word(said: Sequence[Speech]) -> tuple[Word, ...]:
    """The words of one property: the last value stands, with every factor that it hears; the rest is overridden."""
    last = max((i for i, speech in enumerate(said) if not isinstance(speech.value, Factor)), default=-1)
    deaf_until = last if last >= 0 and isinstance(said[last].value, Exact) else -1
    words = []
    for i, speech in enumerate(said):
        text = text_of(speech.value)
        if isinstance(speech.value, Factor) and i > deaf_until:
            words.append(Word(speech.rule, text, "factor", True))
        elif i == last:
            words.append(Word(speech.rule, text, "last word", True))
        else:
            words.append(Word(speech.rule, text, "overridden", False, said[last].rule))
    return tuple(words)


def text_of(value: object) -> str:
    """A declared value as tables and errors print it."""
    return number(value, 6) if isinstance(value, float | tuple) else str(value)


def title(rules: Sequence[Rule], i: int) -> str:
    """How an error calls a rule: its place in the plan, counted from one, and its label."""
    return f"rule {i + 1} {shown(rules[i].label)}"
