"""From numbers to advice: what may be said, and how strongly.

Only what was run and beat the plan beyond the noise becomes a rule of the patch: a joint rate, a rate of a single rule,
one AdamW in the plan's
place, static weights. What was only seen (a percentile of the norm for a clip) is told, and not done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from groupwise._finding import SEVERITIES
from groupwise._spelling import number
from groupwise.plan import Plan
from groupwise.probing.inspecting import Inspected, mostly_empty
from groupwise.probing.job import Job
from groupwise.probing.measuring import Seen
from groupwise.probing.patch import patch_of, whole_of
from groupwise.probing.rates import WORTH, Rates, flattered, hardly_fell, judged, longer, parts_advised, said
from groupwise.probing.result import ProbeResult
from groupwise.probing.rounds import Round, Search, preferred, with_weights
from groupwise.probing.search import classes_of
from groupwise.probing.seeing import findings_of, tasks_in_words
from groupwise.probing.single import Single
from groupwise.probing.trial import Setting


def advise(
    job: Job, found: Search, seen: Seen, looked: Inspected, cost: float, budget: float, notes: Sequence[str]
) -> ProbeResult:
    """The result of a search."""
    rates = judged(found, job.total_steps, None if job.single is None else job.single.near)
    parts = parts_advised(found) if rates.verdict != "withheld" else {}
    weights = dict(with_weights(found.weights).weights) if found.weights and preferred(found.weights) else {}
    words = [
        *_about_rates(rates, looked, longer(found.rounds)[-1], job),
        *_about_single(rates, job.single),
        *_about_stable(rates),
    ]
    words += _about_parts(job.plan, found, parts, budget) if not rates.single else ()
    words += tasks_in_words(seen, found, job.plan.balance is not None)
    words += _about_clip(seen) if job.widths is None else [job.widths.said()]  # norms are those of a width
    words += [*notes, f"It took {cost:.2f} runs of {job.total_steps:,} updates; nothing that was given has changed."]
    patch, plan = _patched(job, rates, parts, weights, words[:1])
    findings = [*looked.findings, *findings_of(rates, seen, mostly_empty(looked.tables, seen), looked.modes)]
    return ProbeResult(
        tuple(words),
        patch,
        plan,
        tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        rates,
        {job.plan.rules[i].label: by for i, by in parts.items()},
        weights,
        seen,
        found.rounds,
        cost,
    )


def _patched(
    job: Job, rates: Rates, parts: dict[int, float], weights: dict[str, float], notes: Sequence[str]
) -> tuple[str, Plan]:
    """The advice as TOML, and the plan that follows it."""
    if rates.single and job.single is not None:
        whole = whole_of(job.single.plan(job.plan, rates.single), weights, notes)
        return whole, Plan.loads(whole)
    patch = patch_of(job.plan, rates.advised, parts, weights, notes)
    return patch, job.plan + Plan.loads(patch) if patch else job.plan


def _about_rates(rates: Rates, looked: Inspected, last: Round, job: Job) -> Iterator[str]:
    low, high = rates.likely
    where = f"x{said(low)} to x{said(high)} of the plan's"
    if rates.single:
        yield _about_replacing(rates, last)
    elif rates.verdict == "change":
        gained = f"short runs ended {_share(rates.gain)} lower than with the plan's rates"
        why = gained if rates.gain < 1 else "with the plan's rates a short run diverged"
        yield (
            f"Rates: multiply the plan's by {number(rates.advised)} ({_absolute(looked, rates.advised)}): {why}. The "
            f"best is likely at {where}.{_left(rates, last)}"
        )
    elif rates.verdict == "keep":
        yield (
            f"Rates: keep the plan's ({_absolute(looked, 1.0)}). Nothing beat them on two seeds beyond the noise"
            f"{_declined(last, job)}; the best is likely at {where}."
            f"{f' {_plateau(last)}.' if rates.plateau else _hardly(last)}"
        )
    elif rates.plateau:
        yield (
            f"Rates: advice is withheld, and the plan's stay. {_plateau(last)}: what was ahead there need not be so in "
            "a whole run. A larger budget makes longer runs, and may tell."
        )
    else:
        yield (
            f"Rates: advice is withheld, and the plan's stay. The best may be anywhere from {where}, which is more "
            "than a decade: seeds and lengths do not agree, or what was ahead is not told apart. A larger budget may "
            "tell."
        )


def _left(rates: Rates, last: Round) -> str:
    """Why advice is given all the same where runs end on a plateau."""
    more = "but on each seed it fell by more than twice as much as with the plan's rates"
    return f" {_plateau(last)}, {more}." if rates.plateau else ""


def _hardly(last: Round) -> str:
    """That the longest runs saw next to nothing of the training."""
    if not hardly_fell(last):
        return ""
    fall = f"by {_share(1 - math.exp(-last.fall()))} at most" if last.fall() > 0 else "at no rate"
    return f" Runs of {last.steps:,} updates lowered the loss {fall}, which says little of a whole run."


def _plateau(last: Round) -> str:
    return (
        f"Runs of {last.steps:,} updates end on the plateau that this training begins with (the loss fell by "
        f"{_share(1 - math.exp(-last.fall()))}, and ever faster)"
    )


def _declined(last: Round, job: Job) -> str:
    """What was ahead in the longest runs all the same, and why that is not enough."""
    plain, lead = Setting(), last.ranked()[0]
    if plain not in last.runs or lead == plain or not last.versus(lead, plain).beats():
        return ""
    name = f"one AdamW at lr={number(lead.adamw)}" if lead.adamw else f"x{said(lead.rate)}"
    if last.versus(lead, plain).mean > -WORTH:
        why = "by less than 1 %"
    elif flattered(lead, last.steps, job.total_steps, None if job.single is None else job.single.near):
        why = "but short runs want higher rates than long ones"
    else:
        why = "on one seed alone"
    return f" ({name} was ahead in runs of {last.steps:,} updates, {why})"


def _about_replacing(rates: Rates, last: Round) -> str:
    """That one AdamW takes the plan's place, and what it is ahead of."""
    one, plain = Setting(adamw=rates.single), Setting()
    ends = []
    if plain in last.runs:
        gain = 1 - math.exp(last.versus(one, plain).mean)
        ends.append(f"{_share(gain)} lower than with the plan's own rates")
    if rates.best != 1:
        noise = "" if rates.told_apart else ", which is within the noise: one rate is enough here"
        times = f"those times {said(rates.best)}" if ends else f"the plan's rates times {said(rates.best)}"
        ends.append(f"{_share(rates.ahead)} lower than with {times}, the best of them{noise}")
    return (
        f"Rates: take one AdamW at lr={number(rates.single)} for everything in the place of your plan's algorithms and "
        f"rates: runs of {last.steps:,} updates ended {', and '.join(ends)}.{_left(rates, last)}"
    )


def _about_single(rates: Rates, single: Single | None) -> Iterator[str]:
    """What became of the challenger, where it does not take the plan's place."""
    if single is None or rates.single:
        return
    if not rates.challenger:
        yield "One AdamW: it diverged at the rates tried."
        return
    where = f"{_share(abs(rates.ahead))} {'lower' if rates.ahead > 0 else 'higher'}"
    beside = "with the plan's rates" if rates.best == 1 else f"with those times {said(rates.best)}"
    ends = f"One AdamW at lr={number(rates.challenger)} for everything ended {where} than {beside}"
    if not rates.told_apart:
        yield f"{ends}, which is within the noise: one rate is enough here, and the plan's may stay."
    elif rates.ahead < 0:
        yield f"{ends}: the plan's algorithms and rates are worth having."
    else:
        yield f"{ends}, on one seed or in short runs alone: the plan stays."


def _share(change: float) -> str:
    return f"{change:.0%}" if change >= 0.095 else f"{change:.1%}"


def _about_stable(rates: Rates) -> Iterator[str]:
    low, high = rates.stable
    of = "the plan's rates: " if rates.single else ""
    if high is None:
        yield f"Stable: {of}nothing diverged up to x{said(low)}."
        return
    least = "none of the rates tried fell throughout" if low == 0 else f"all runs fell up to x{said(low)}"
    yield f"Stable: {of}{least}, and at x{said(high)} one diverged; the largest stable rate lies between."


def _absolute(looked: Inspected, by: float) -> str:
    rates = [f"{name} {said(rate * by)}" for name, rate in looked.rates.items()]
    more = f" and {len(rates) - 4} more" if len(rates) > 4 else ""
    return ", ".join(rates[:4]) + more


def _about_parts(plan: Plan, found: Search, parts: dict[int, float], budget: float) -> Iterator[str]:
    tried = len(found.parts)
    labels = [f"{plan.rules[i].label} x{said(by)}" for i, by in parts.items()]
    if labels:
        yield f"Parts: beyond the joint rate, {', '.join(labels)}, better in every seed."
    elif tried:
        yield f"Parts: one rate is enough here: none of {tried} rules tried on its own differs beyond the noise."
    elif classes_of(plan):
        yield (
            f"Parts: not tried within a budget of {said(budget)} runs; where they were, they seldom were worth "
            "more than the joint rate."
        )


def _about_clip(seen: Seen) -> Iterator[str]:
    bound = seen.norm_percentile(0.95)
    acts = [part.clip_factor for part in seen.groups if part.clip_factor is not None]
    if bound > 0:
        now = "" if not acts else f"; the plan's leaves {min(acts):.2g} of the gradient at the median"
        now = "; the plan's acts in less than half of them" if acts and min(acts) >= 1 else now
        yield (
            f"Clipping: the joint norm is below {said(bound)} in 95 % of the updates seen; a clip there acts on "
            f"the rest alone{now}."
        )
