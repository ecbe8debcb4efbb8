"""The verdict: what the numbers say, in words, each sentence with its number and the panel that shows it.

A rule is a function of a reading that yields sentences. Its thresholds stand at the top of its module, each with what
chance alone would do; where too little was recorded the rule is silent. Causes come before symptoms: what is wrong
with a number or a setting, then what is wrong between groups and tasks, then what the loss made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from groupwise.report.document import Sentence
from groupwise.report.reading import Reading
from groupwise.report.verdict import (
    activations,
    clipping,
    contributions,
    depth,
    faults,
    losses,
    networks,
    pace,
    precision,
    rates,
    resumes,
    settings,
    tasks,
)

Rule = Callable[[Reading], Iterable[Sentence]]

RULES: Final[tuple[Rule, ...]] = (
    faults.nonfinite, faults.warnings, faults.skipped, resumes.resumes, clipping.starved, clipping.beforehand,
    precision.underflow, precision.rounded, depth.depth, precision.below_eps, rates.rates, pace.still, pace.died,
    activations.dead_units, settings.routers, settings.betas, settings.outweighing_decay,
    settings.decayed_norms, tasks.owners, tasks.drowned, losses.outrun, pace.speed, clipping.clipping, pace.turning,
    tasks.conflicts, tasks.conflicting, faults.spikes, losses.turned, losses.settled, losses.tasks, losses.loss,
    contributions.contributions, networks.networks, pace.waited, faults.orphans, precision.zeros, faults.noise,
    faults.unfinished,
)  # fmt: skip
_FLAT: Final = "The loss did not clearly change"
_ORDER: Final = {"look": 0, "note": 1, "fine": 2}


def verdict(reading: Reading) -> tuple[Sentence, ...]:
    """What there is to say: first what to look at, then what is worth knowing, then what is as it should be."""
    sentences = [sentence for rule in RULES for sentence in rule(reading)]
    if {sentence.head for sentence in sentences if sentence.tone == "look"} <= {_FLAT}:
        sentences += pace.works(reading)
    return tuple(sorted(sentences, key=lambda sentence: _ORDER[sentence.tone]))


def summary(reading: Reading, sentences: tuple[Sentence, ...]) -> str:
    """The verdict in one line: the course of the loss, then what to look at first."""
    course = _course(reading, sentences)
    if not len(reading.run):
        return f"{course}."
    rest = [sentence for sentence in sentences if sentence.head != course]
    looks = [sentence.head for sentence in rest if sentence.tone == "look"]
    notes = sum(sentence.tone == "note" for sentence in rest)
    if looks:
        more = f" (and {len(looks) - 1} more to look at)" if len(looks) > 1 else ""
        return f"{course}. Look first: {looks[0]}{more}."
    if course == _FLAT and any(sentence.rule == "works" for sentence in sentences):
        return f"{course}, though the weights moved: look at the data, the labels and the loss."
    if any(sentence.tone == "look" for sentence in sentences):
        return f"{course}, and no rule of this report says why."
    if notes:
        return f"{course}; nothing needs a look, {notes} {'thing is' if notes == 1 else 'things are'} worth knowing."
    return f"{course}; nothing stands out."


def _course(reading: Reading, sentences: tuple[Sentence, ...]) -> str:
    heads = {sentence.rule: sentence.head for sentence in sentences}
    order = ("loss", "task-worse", "task-flat", "task-learned")
    found = next((heads[rule] for rule in order if rule in heads), None)
    steps = len(reading.run)
    few = "too few losses for a course" if reading.losses or reading.tasks("loss") else "no loss among them"
    return found or (f"{steps:,} record{'s' * (steps != 1)}, {few}" if steps else "Nothing is recorded yet")


__all__ = ["RULES", "summary", "verdict"]
