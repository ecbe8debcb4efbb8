"""The verdict: what the numbers say, in words, each sentence with its number and the panel that shows it.

A rule is a function of a reading that yields sentences; its thresholds stand at the top of its module. Rules state what
was measured. Where a bound is a rule of thumb the sentence says so, and where too little was recorded the rule is
silent.
"""

from __future__ import annotations

from typing import Final

from groupwise.report.document import Sentence
from groupwise.report.reading import Reading
from groupwise.report.verdict import between, clipping, pace, progress, trouble

RULES: Final = (
    trouble.nonfinite, progress.loss, progress.tasks, pace.still, pace.speed, between.loud, between.conflicts,
    between.hurt, progress.contributions, clipping.clipping, trouble.skipped, trouble.spikes, pace.turning,
    pace.waited, trouble.orphans, trouble.noise, trouble.unfinished,
)  # fmt: skip
_ORDER: Final = {"look": 0, "note": 1, "fine": 2}


def verdict(reading: Reading) -> tuple[Sentence, ...]:
    """What there is to say: first what to look at, then what is worth knowing, then what is as it should be."""
    sentences = [sentence for rule in RULES for sentence in rule(reading)]
    return tuple(sorted(sentences, key=lambda sentence: _ORDER[sentence.tone]))


def summary(reading: Reading, sentences: tuple[Sentence, ...]) -> str:
    """The verdict in one line."""
    heads = {sentence.rule: sentence.head for sentence in sentences}
    course = next((heads[rule] for rule in ("loss", "task-learned", "task-worse", "task-flat") if rule in heads), None)
    looks = sum(sentence.tone == "look" for sentence in sentences)
    steps = len(reading.run)
    losses = "loss" in reading.scalars or reading.tasks("loss")
    few = "too few losses to speak of a course" if losses else "no loss among them"
    first = course or (f"{steps:,} record{'s' * (steps != 1)}, {few}" if steps else "Nothing is recorded yet")
    rest = {0: "nothing stands out", 1: "one thing to look at"}.get(looks, f"{looks} things to look at")
    return f"{first}; {rest}." if steps else f"{first}."


__all__ = ["summary", "verdict"]
