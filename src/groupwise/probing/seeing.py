"""What a run of the plan as it is says: parts that do not move, clips that starve, tasks that dominate or disagree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from groupwise._finding import Finding
from groupwise.errors import listed
from groupwise.probing.measuring import Seen, Task
from groupwise.probing.rates import HALF, Rates, said
from groupwise.probing.rounds import Search, preferred, started, with_weights

STILL: Final = 1e-7
"""An update ratio below which a part does not move."""

FILLS: Final = 0.99
CUT: Final = 0.1
DOMINATES: Final = 0.9
OPPOSED: Final = 0.1
"""The share of updates with a negative cosine from which tasks disagree."""


def findings_of(rates: Rates, seen: Seen, tables: Sequence[str], mode: str) -> Iterator[Finding]:
    """What is wrong with the plan as it is, or may be."""
    yield from _unstable(rates)
    yield from _still(seen)
    yield from _starved(seen)
    if tables:
        yield Finding(
            "sparse",
            "note",
            tuple(tables),
            f"an update has a gradient for less than a tenth of {listed(tables, 4)}, and a dense algorithm steps all",
            "nn.Embedding(…, sparse=True), and a rule of its own: Rule(role('embedding'), optimizer='SparseAdam')",
        )
    if any(loss < 0 for loss in seen.lowest.values()) and len(seen.lowest) > 1:
        below = [task for task, loss in seen.lowest.items() if loss < 0]
        yield Finding(
            "negative-loss",
            "warning",
            (),
            f"the loss of {listed(below, 4)} went below 0, where uncertainty weighting has no minimum",
            "weight it by hand, or by a method that reads gradients",
        )
    if mode == "eval":
        yield Finding(
            "mode",
            "warning",
            (),
            "the model was handed in eval mode, and was tried so: no dropout, no statistics of batches",
            "model.train() before the probe",
        )


def _unstable(rates: Rates) -> Iterator[Finding]:
    high = rates.stable[1]
    if high is None or high > HALF + 0.1:
        return
    if high <= 1:
        message = f"at the plan's own rates a short run diverged (x{said(high)} is the lowest that did)"
        yield Finding("unstable", "error", (), message, "lower the rates as advised, or lengthen the warmup")
    else:
        message = f"a run with x{said(high)} of the plan's rates diverged: they are close to where training breaks"
        yield Finding("unstable", "warning", (), message, "a longer warmup or a clip makes room")


def _still(seen: Seen) -> Iterator[Finding]:
    for part in seen.groups:
        if part.grad_norm == 0:
            message = f"the gradient of group {part.name!r} is 0 in most updates: it learns nothing"
            yield Finding("dead", "error", (), message, "look for a ReLU that is never on, a detach, a weight of 0")
        elif part.update_ratio < STILL:
            message = f"group {part.name!r} moves by {part.update_ratio:.0e} of its weights in an update"
            yield Finding("still", "warning", (), message, "raise its rate, or freeze it: trainable=False")


def _starved(seen: Seen) -> Iterator[Finding]:
    eater = max(seen.groups, key=lambda part: part.share, default=None)
    if eater is None or eater.clip_factor is None or eater.share < FILLS or eater.clip_factor > CUT:
        return
    hungry = [part.name for part in seen.groups if part is not eater and part.clip_factor == eater.clip_factor]
    if hungry:
        message = (
            f"{eater.name!r} fills {eater.share:.0%} of a joint norm, of which the clip leaves "
            f"{said(eater.clip_factor)}: {listed(hungry, 4)} is cut with it"
        )
        yield Finding("starved", "warning", (), message, "a clip for each rule, or clip_norm(…, per='module')")


def dominant(seen: Seen) -> Task | None:
    """The task that has nearly all of the gradient; None where none does."""
    return next((task for task in seen.tasks if task.share > DOMINATES), None)


def tasks_in_words(seen: Seen, found: Search, balanced: bool) -> Iterator[str]:
    """Who dominates, whether tasks disagree, and what became of weights that were tried."""
    if not seen.tasks:
        return
    first = max(seen.tasks, key=lambda task: task.share)
    quiet = min(seen.tasks, key=lambda task: task.share)
    if first.share > DOMINATES or first.share > 3 / len(seen.tasks):
        yield (
            f"Tasks: {first.name!r} has {first.share:.0%} of the gradient, {quiet.name!r} {quiet.share:.1%}; their "
            f"losses begin at {said(first.loss)} and {said(quiet.loss)}."
        )
    else:
        yield f"Tasks: none dominates; the largest share of the gradient is {first.share:.0%} ({first.name!r})."
    yield _about_weights(found, balanced)
    opposed = {pair: share for pair, (_, share) in seen.cosines.items() if share > OPPOSED}
    if opposed:
        pair = max(opposed, key=opposed.__getitem__)
        yield (
            f"Conflict: {pair[0]!r} and {pair[1]!r} disagree in {opposed[pair]:.0%} of the updates seen: a balancing "
            "method has something to settle. `groupwise.balance.compare` tells whether it pays."
        )
    elif seen.cosines:
        yield "Conflict: the tasks hardly ever disagree: a balancing method has nothing to settle but scales."


def _about_weights(found: Search, balanced: bool) -> str:
    if balanced:
        return "Weights: the plan balances the tasks already; none were tried."
    if found.weights is None:
        return "Weights: none were tried, since a loss is not above 0 at the start."
    if not preferred(found.weights):
        return "Weights: of 1 over the first losses, none were better than the plain sum beyond the noise."
    weights = ", ".join(f"{task} {said(w)}" for task, w in with_weights(found.weights).weights)
    order = "; tried before the rates, which are those under these weights" if found.weights_first else ""
    moved = listed([repr(task) for task in started(found.weights)], 4)
    learns = f"have {moved} learn, which the plain sum leaves where it was"
    did = learns if moved else "beat the plain sum in every seed"
    return f"Weights: 1 over the first losses {did}: {weights}{order}."
