"""Rates that follow measurements beside constant ones, on equal terms: who loses as well.

    python -m examples.two_branches.measured [--seeds 8] [--steps 200]            # halves of digits: a minute
    python -m examples.two_branches.measured --whole [--seeds 8] [--steps 200]    # the example's own job: ten minutes

Everybody has one cosine with a warmup and one bound on the norm of all gradients, and searches one number over as many
candidates: the rate, or for `update_ratio` its target (the rate is then the baseline's middle candidate). The first row
of each algorithm has nothing measured, the second a constant factor for the sound, chosen once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples.comparing import Contestant, Outcome, Scores, arguments, compare, score_table, search_table
from examples.two_branches import compare as whole
from examples.two_branches import halves
from examples.two_branches.compare import BOUND, SETTINGS, SOUND
from examples.two_branches.train import STEPS
from groupwise import (
    GroupedOptimizer,
    Plan,
    PlanScheduler,
    Rule,
    clip_norm,
    gradient_share,
    scale,
    trust_ratio,
    update_ratio,
)
from groupwise.schedules import cosine

Rules = Callable[[float], Sequence[Rule]]
RATIOS = (0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Candidates:
    """What is searched: rates by algorithm, those of LARS, targets of update ratios; as many of each."""

    rates: Mapping[str, Sequence[float]]
    lars: Sequence[float]
    targets: Sequence[float]


HALVES = Candidates(
    rates={"AdamW": (3e-3, 6e-3, 1e-2, 2e-2), "SGD": (0.03, 0.1, 0.2, 0.5)},
    lars=(3.0, 10.0, 30.0, 100.0),
    targets=(3e-3, 1e-2, 2e-2, 5e-2),
)
WHOLE = Candidates(
    rates={"AdamW": (6e-3, 1e-2, 2e-2, 4e-2), "SGD": (0.2, 0.5, 1.0, 2.0)},
    lars=(1.0, 3.0, 10.0, 30.0),
    targets=(1e-2, 2e-2, 5e-2, 0.1),
)


def all_at(algorithm: str, rate: float) -> Rule:
    """One rule for everything."""
    return Rule("*", label="all", optimizer=algorithm, lr=cosine(rate, warmup="5%"), **SETTINGS[algorithm])


def with_factor(algorithm: str, factor: Any, match: str = "*") -> Rules:
    """The rate that is searched, times a factor."""
    return lambda rate: [all_at(algorithm, rate), Rule(match, label="factor", lr=scale(factor))]


def with_target(algorithm: str, middle: float) -> Rules:
    """The target that is searched, for all parameters together, under a middle rate."""
    return lambda target: [all_at(algorithm, middle), Rule("*", lr=update_ratio(target, speed=0.05))]


def build(model: nn.ModuleDict, rate: float, steps: int, *, rules: Rules) -> tuple[Optimizer, LRScheduler]:
    """By a plan. Networks of one model share the norm that is clipped; shares compare modules of the first level."""
    optimizer = GroupedOptimizer(model, Plan(rules(rate), clip=clip_norm(BOUND)))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def contestants(algorithm: str, run: Callable[..., Scores], given: Candidates) -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    rates = given.rates[algorithm]
    shares = gradient_share(smoothing=0.9)
    found: list[tuple[str, Sequence[float], Rules]] = [
        (f"one {algorithm}", rates, lambda rate: [all_at(algorithm, rate)]),
        (f"{algorithm}, sound × {SOUND[algorithm]:g}", rates, with_factor(algorithm, SOUND[algorithm], "sound")),
        (f"{algorithm}, gradient_share(-1) of modules", rates, with_factor(algorithm, shares)),
        (f"{algorithm}, update_ratio", given.targets, with_target(algorithm, rates[2])),
        (f"{algorithm}, trust_ratio of the update", RATIOS, with_factor(algorithm, trust_ratio())),
    ]
    if algorithm == "SGD":
        lars = trust_ratio(0.01, of="gradient")
        found.append(("SGD, trust_ratio(0.01) of the gradient (LARS)", given.lars, with_factor("SGD", lars)))
    return [Contestant(name, own, partial(run, partial(build, rules=rules))) for name, own, rules in found]


def _scores(outcomes: Mapping[str, Outcome]) -> list[str]:
    return [*next(iter(outcomes.values())).scores[0]]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison and print its tables."""
    words = list(sys.argv[1:] if argv is None else argv)
    run, candidates = (whole.run, WHOLE) if "--whole" in words else (halves.run, HALVES)
    given = arguments(STEPS, [word for word in words if word != "--whole"])
    for algorithm in candidates.rates:
        outcomes = compare(
            contestants(algorithm, run, candidates), given.seeds, given.steps, given.search_seeds, given.candidates
        )
        tables = f"{score_table(outcomes, [f'{name} %' for name in _scores(outcomes)])}\n\n{search_table(outcomes)}"
        sys.stdout.write(f"\n{tables}\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
