"""How far groups move: not at all, by too much, by too little, against themselves.

did not move   no gradient in any of 10 records and more; or an update ratio below 1e-7 in every record of at least
               20 steps
path           mean update ratio times the number of steps: no weight can have changed by more, relatively. Below
               1e-3, with a loss that did not fall, the steps are too small, whatever the algorithm
fast           a median update ratio, of 10 records and more, above the band of its algorithm
               (`groupwise.report.usual_updates`) and beyond chance above half of it (2.5 standard errors, by what
               successive records differ), with a symptom: the loss did not fall, or turned, or successive gradients
               point back, or the weights grew fivefold; or ten times the band. Of weights that began at 0 (biases,
               adapters, a head) both: any step is large beside them
ran away       weights that grew fivefold while the loss did not fall
died           gradients nine tenths of whose entries are exactly 0 after the start, and were not at the first record,
               and a loss that kept more than half of its first value
works          a fall of any loss by 5 % would have shown, and there was none, though the weights moved by a hundredth
               and more in all
turns back     median cosine between successive gradients below -0.3, in at least 10 records, and negative in so many
               that fair throws give them in less than 1 % of runs (gradients of independent batches: 0 or above)
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterator
from typing import Final

from groupwise.records import Series
from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import finite, formatted, median, percent, quoted
from groupwise.report.reading import Reading, later
from groupwise.report.trend import half_tail
from groupwise.report.verdict.losses import courses, main, stalled

STILL: Final = 1e-7
STILL_STEPS: Final = 20
WITHOUT_GRADIENT: Final = 10
SHORT_PATH: Final = 1e-3
FAR: Final = 10.0
GREW: Final = 5.0
DIED: Final = 0.9
ALIVE: Final = 0.5
MOVED: Final = 0.01
TURNS: Final = -0.3
ENOUGH: Final = 10
CERTAIN: Final = 2.5
HEAD: Final = re.compile(
    r"(?:^|[._/ -])(?:head|heads|classifier|fc|lm_head|readout|decoder|output|logits)(?:$|[._/ -]|\d)", re.IGNORECASE
)


def still(reading: Reading) -> Iterator[Sentence]:
    """Groups that never moved, with the reason where the records show one."""
    by_reason: dict[tuple[str, Tone], list[str]] = {}
    for group in reading.groups:
        if never_moved(reading, group):
            by_reason.setdefault(_reason(reading, group), []).append(group)
    for (reason, tone), groups in by_reason.items():
        size = sum(reading.described[group].parameters for group in groups if group in reading.described)
        text = f"{reason} ({size:,} parameters)" if size else reason
        yield Sentence("still", tone, f"{quoted(groups)} did not move", f"{text}.", "updates")


def waited(reading: Reading) -> Iterator[Sentence]:
    """Groups that stood still at first and then moved: a freeze that ended."""
    for group, series in reading.statistic("update_ratio").items():
        moved = next((i for i, value in enumerate(series.values) if value >= STILL), None)
        if moved and series.steps[moved] - series.steps[0] >= 50:
            last = series.steps[moved - 1]
            text = f"Its update ratio was below {formatted(STILL)} until step {last:,}; then it moved."
            yield Sentence("waited", "note", f"'{group}' moved from step {series.steps[moved]:,} on", text, "updates")


def speed(reading: Reading) -> Iterator[Sentence]:
    """Groups whose steps are too large or too small for their algorithm."""
    moving = {group: ratio for group, ratio in reading.typical("update_ratio").items() if ratio >= STILL}
    beyond = {group: ratio / reading.algorithm(group).fast for group, ratio in moving.items()}
    found = main(reading)
    bad = stalled(reading) or bool(found and found.turned)
    large = [group for group in sorted(moving, key=lambda group: -beyond[group]) if _is_large(reading, group)]
    ill = {group for group in large if bad or _turns(reading, group) or _growth(reading, group) > GREW}
    grown = {group for group in large if not _began_at_nothing(reading, group)}
    fast = [g for g in large if (g in ill and g in grown) or (beyond[g] > FAR and (g in ill or g in grown))]
    if fast:
        yield _fast(reading, fast, moving[fast[0]], "look")
    elif usual := [group for group in large if group in grown]:
        yield _fast(reading, usual, moving[usual[0]], "note")
    if stalled(reading):
        yield from _slow(reading)
        yield from _grown(reading, fast)


def died(reading: Reading) -> Iterator[Sentence]:
    """Groups whose gradient became 0 almost everywhere: units that steps which were too large have switched off."""
    found, zeros = main(reading), reading.statistic("zero")
    if found is None or found.end <= found.first / 2:
        return
    dead = {g: median(later(s)) for g, s in zeros.items() if len(s.values) >= ENOUGH and s.values[0] <= ALIVE}
    dead = {group: share for group, share in dead.items() if share >= DIED}
    if dead:
        worst = max(dead, key=dead.__getitem__)
        ratios = finite(reading.statistic("update_ratio")[worst].values) if worst in moving(reading) else []
        step = f", and its largest recorded step was {formatted(max(ratios))} of its weights" if ratios else ""
        text = (
            f"At the first record {percent(zeros[worst].values[0])} of the entries of '{worst}' were exactly 0{step}: "
            "units that no input reaches any more get no gradient. A smaller rate or a warmup keeps them."
        )
        head = f"The gradient of {quoted(list(dead))} died ({percent(dead[worst])} zeros)"
        yield Sentence("died", "look", head, text, "updates")


def works(reading: Reading) -> Iterator[Sentence]:
    """Of a loss that did not change: that the weights did, so that it is not the optimizer's doing."""
    paths = {group: path(reading, group) or 0.0 for group in moving(reading)}
    known = [it for it in (main(reading), *courses(reading).values()) if it is not None]
    is_flat = all(it.flat or it.direction != "unclear" for it in known)
    if stalled(reading) and is_flat and paths and max(paths.values()) >= MOVED:
        most = max(paths, key=paths.__getitem__)
        ratio = formatted(reading.typical("update_ratio")[most])
        text = (
            f"The gradients are finite, and '{most}' moved by {ratio} of its weights a step. What is left is what it "
            "learns from: labels or inputs that say nothing of each other, a loss that does not mean them, or batches "
            "whose noise is larger than what there is to learn."
        )
        head = "The optimizer works: look at the data, the labels and the loss"
        yield Sentence("works", "note", head, text, "updates")


def moving(reading: Reading) -> list[str]:
    """The groups that have an update ratio."""
    return list(reading.statistic("update_ratio"))


def path(reading: Reading, group: str) -> float | None:
    """The relative change of a group that its updates could have made at the most, over the whole run."""
    ratios = reading.statistic("update_ratio").get(group)
    found = finite(ratios.values) if ratios is not None else []
    return statistics.fmean(found) * reading.length if found else None


def turning(reading: Reading) -> Iterator[Sentence]:
    """Groups whose gradient keeps turning back."""
    found = reading.statistic("gradient_cosine")
    back = sorted((group for group in found if _turns(reading, group)), key=lambda group: median(found[group].values))
    if back:
        cosine = formatted(median(found[back[0]].values))
        text = (
            f"The cosine between successive gradients has the median {cosine} in '{back[0]}': each "
            "step tends to undo the "
            "one before, as steps that are too long do."
        )
        tone: Tone = "look" if stalled(reading) else "note"
        yield Sentence(
            "turning", tone, f"The gradient of {quoted(back)} turns back and forth ({cosine})", text, "steps"
        )


def never_moved(reading: Reading, group: str) -> bool:
    """Whether no record shows a group moving."""
    ratio = reading.statistic("update_ratio").get(group)
    if without_gradient(reading, group):
        return ratio is None or all(value < STILL for value in ratio.values)
    if ratio is None:  # weights that are all 0 have none
        ratio = reading.statistic("update_norm").get(group)
    return ratio is not None and _long(reading, ratio) and all(value < STILL for value in ratio.values)


def without_gradient(reading: Reading, group: str) -> bool:
    """Whether none of a group's tensors had a gradient in any of ten records and more."""
    absent = reading.statistic("no_grad").get(group)
    tensors = reading.described[group].tensors if group in reading.described else 0
    if absent is None or not tensors or len(absent.values) < WITHOUT_GRADIENT:
        return False
    return all(value >= tensors for value in absent.values) and len(absent.values) >= 0.9 * len(reading.run)


def is_frozen(reading: Reading, group: str) -> bool:
    """Whether none of a group's tensors required a gradient when the run began, as its header says."""
    known = reading.described.get(group)
    return known is not None and 0 < known.tensors <= known.frozen


def _long(reading: Reading, series: Series) -> bool:
    return len(series.values) >= 2 and reading.length >= STILL_STEPS


def _reason(reading: Reading, group: str) -> tuple[str, Tone]:
    if reading.planned.get(group, {}).get("trains") == "no":
        if HEAD.search(group) and stalled(reading):
            return "The plan freezes it, and it looks like a head: what it puts out stays as it was initialised", "look"
        return "The plan freezes them", "note"
    if without_gradient(reading, group) and is_frozen(reading, group):
        lone = HEAD.search(group) and stalled(reading)
        return "They are frozen: `requires_grad` is False", "look" if lone else "note"
    if all(without_gradient(reading, each) for each in reading.groups):
        why = "the loss is of another copy of the model than the optimizer's, or nobody calls backward"
        return f"No gradient ever reached any parameter: {why}", "look"
    if without_gradient(reading, group):
        return "No gradient ever reached them: they are frozen, or no loss depends on them", "look"
    rates = reading.values("lr").get(group)
    if rates is not None and not any(rates.values):
        return "Their learning rate was 0 at every step", "look"
    norms = reading.statistic("grad_norm").get(group)
    if norms is not None and not any(norms.values):
        weights = reading.statistic("weight_norm").get(group)
        if weights is not None and not any(weights.values):
            return "They and their gradient were exactly 0 in every record: a path begins at 0 in two places", "look"
        return "Their gradient was exactly 0 in every record: dead units, or a path that is cut", "look"
    return f"Their update ratio was below {formatted(STILL)} in every record, although there was a gradient", "look"


def _fast(reading: Reading, groups: list[str], ratio: float, tone: Tone) -> Sentence:
    algorithm = reading.algorithm(groups[0])
    usual = "the band" if algorithm.family == "other" else f"what is usual for {algorithm.family}"
    text = f"Median update ratio {formatted(ratio)} in '{groups[0]}', above {usual} ({formatted(algorithm.fast)})."
    if algorithm.family == "SGD":
        text += " A loss that is summed rather than averaged, or not divided by the micro-batches, does the same."
    head = (
        f"{_verb(groups, 'moves', 'move')} {formatted(ratio)} of {'its' if len(groups) == 1 else 'their'} "
        "weights a step"
    )
    return Sentence("fast", tone, f"{head}: {'too far' if tone == 'look' else 'far'}", text, "updates")


def _slow(reading: Reading) -> Iterator[Sentence]:
    paths = {group: path(reading, group) for group in reading.statistic("update_ratio")}
    moving = {group: moved for group, moved in paths.items() if moved is not None and moved > 0}
    if moving and max(moving.values()) < SHORT_PATH and reading.length >= STILL_STEPS:
        furthest = max(moving, key=moving.__getitem__)
        ratio = formatted(moving[furthest] / reading.length)
        text = (
            f"In {reading.length:,} steps of a mean update ratio of {ratio} '{furthest}' can have changed by "
            f"{formatted(100 * moving[furthest])} % of its weights, the others by less, and the loss did not fall."
        )
        yield Sentence("slow", "look", f"The steps are too small (update ratio {ratio})", text, "updates")


def _grown(reading: Reading, fast: list[str]) -> Iterator[Sentence]:
    growths = {group: _growth(reading, group) for group in reading.statistic("weight_norm")}
    grew = {group: times for group, times in growths.items() if times > GREW}
    if grew and not fast:
        most = max(grew, key=grew.__getitem__)
        text = (
            f"Their norm grew, in '{most}' {formatted(grew[most])} times, while the loss did not fall: "
            "steps that are too large."
        )
        yield Sentence(
            "grown",
            "look",
            f"The weights of {quoted(list(grew))} ran away ({formatted(grew[most])} ×)",
            text,
            "updates",
        )


def _growth(reading: Reading, group: str) -> float:
    """How many times the weights of a group are what they were at the first record; 1 where that is not known."""
    series = reading.statistic("weight_norm").get(group)
    norms = finite(series.values) if series is not None else []
    return norms[-1] / norms[0] if norms and norms[0] > 0 else 1.0


def _is_large(reading: Reading, group: str) -> bool:
    """Whether steps lie far above the band of their algorithm; or above it, and beyond chance above half of it."""
    series, band = reading.statistic("update_ratio")[group], reading.algorithm(group).fast
    values = [value for value in finite(later(series)) if value > 0]
    beyond = median(values) / band
    if beyond > FAR:
        return True
    changes = [abs(math.log(after / before)) for before, after in itertools.pairwise(values)]
    error = 1.25 * 1.05 * median(changes) / math.sqrt(len(values)) if changes else math.inf
    return len(series.values) >= ENOUGH and beyond > max(1.0, 0.5 * math.exp(CERTAIN * error))


def _began_at_nothing(reading: Reading, group: str) -> bool:
    """Whether all weights of a group were 0 at the first record."""
    norms = reading.statistic("weight_norm").get(group)
    return norms is not None and norms.values[0] == 0


def _turns(reading: Reading, group: str) -> bool:
    series = reading.statistic("gradient_cosine").get(group)
    values = finite(series.values) if series is not None else []
    if len(values) < ENOUGH or not median(values) < TURNS:
        return False
    return half_tail(sum(value < 0 for value in values), len(values)) < 0.01


def _verb(groups: list[str], one: str, many: str) -> str:
    return f"{quoted(groups)} {one if len(groups) == 1 else many}"


__all__ = ["courses", "died", "never_moved", "path", "speed", "still", "turning", "waited", "without_gradient", "works"]
