"""Whether advice is worth following: `groupwise.probe` on the jobs of `probe_jobs.py`, whoever wins.

    PYTHONPATH=site python -m benchmarks.probe --seeds 8 --write    # probe_jobs.py: what `site` holds

Arms are kept in probe_rows.jsonl as they are done, so a run that was stopped goes on, and what is left is told on
stderr (where the method changes, the lines of the probed arm are to be deleted); `--write` has the table in
docs/probe.md.

Three arms, and every seed is run under all of them, from the same split and in the same order of batches:

    default   the plan as it was written, one run
    probed    `probe(…, budget=1.5)`, whose patch is added to the plan; then one run
    tuned     one AdamW with the same schedule, its rate the best of a coarse grid, 1e-2, 3e-3, 1e-3, 3e-4: four runs of
              3/8 of the length, judged on the tuning data; then one run. What the probe cost, it cost as well

The probe and the grid are judged on the same tuning data; errors are on the test data. The table has the median over
seeds, and of the paired differences the median and the p of a sign test.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import groupwise
from benchmarks.probe_jobs import JOBS, Job
from groupwise import Balancer, GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.balance.plan_table import decode
from groupwise.schedules import cosine

GRID = (1e-2, 3e-3, 1e-3, 3e-4)
SHARE = 3 / 8
BUDGET = 1.5
ARMS = ("default", "probed", "tuned")
BEGIN, END = "<!-- probe table: written by benchmarks/probe.py --write -->", "<!-- end -->"


def made(job: Job, seed: int, dense: bool = False) -> nn.Module:
    """The initial model of a seed."""
    torch.manual_seed(seed)
    return job.dense() if dense else job.model()


def run(job: Job, model: nn.Module, plan: Plan, steps: int, seed: int) -> nn.Module:
    """Train by a plan."""
    optimizer = GroupedOptimizer(model, plan)
    scheduler = PlanScheduler(optimizer, total_steps=steps)
    balancer = None if plan.balance is None else Balancer(decode(plan.balance).method)
    for _, batch in zip(range(steps), job.batches(seed), strict=False):
        losses = job.loss(model, batch)
        optimizer.zero_grad()
        if isinstance(losses, Mapping) and balancer is not None:
            balancer.backward(losses)
        else:
            (sum(losses.values()) if isinstance(losses, Mapping) else losses).backward()
        optimizer.step()
        scheduler.step()
    return model


@torch.no_grad()
def measured(job: Job, model: nn.Module, data: Any) -> float:
    """The error, infinite where it is nan."""
    model.eval()
    error = job.error(model, data)
    return error if math.isfinite(error) else math.inf


def single(lr: float) -> Plan:
    """One AdamW."""
    return Plan([Rule("*", optimizer="AdamW", lr=cosine(lr, warmup="5%"), weight_decay=0.01)])


def tuned(job: Job, seed: int) -> tuple[float, float]:
    """The error of the best of the grid, and its rate."""
    short = int(SHARE * job.steps)
    scores = {lr: measured(job, run(job, made(job, seed, True), single(lr), short, seed), job.tuning) for lr in GRID}
    best = min(scores, key=scores.__getitem__)
    return measured(job, run(job, made(job, seed, True), single(best), job.steps, seed), job.test), best


def probed(job: Job, seed: int) -> tuple[float, Any]:
    """The error under the patched plan, and what the probe found."""
    found = groupwise.probe(
        made(job, seed), job.plan, job.batches, loss=job.loss, total_steps=job.steps, budget=BUDGET,
        validation=job.held_out,
    )  # fmt: skip
    return measured(job, run(job, made(job, seed), found.plan, job.steps, seed), job.test), found


def row(name: str, seed: int, arm: str) -> dict[str, Any]:
    """One seed of one job under one arm."""
    began = time.process_time()
    job = JOBS[name](seed)
    own = {"default": _default, "probed": _advised, "tuned": _single}[arm](job, seed)
    return {"job": name, "seed": seed, "arm": arm, "unit": job.unit, **own, "seconds": time.process_time() - began}


def _default(job: Job, seed: int) -> dict[str, Any]:
    return {"error": measured(job, run(job, made(job, seed), job.plan, job.steps, seed), job.test)}


def _single(job: Job, seed: int) -> dict[str, Any]:
    error, rate = tuned(job, seed)
    return {"error": error, "lr": rate}


def _advised(job: Job, seed: int) -> dict[str, Any]:
    error, found = probed(job, seed)
    rates = found.rates
    return {
        "error": error, "verdict": rates.verdict, "advised": rates.advised, "best": rates.best,
        "single": rates.single, "weights": dict(found.weights), "cost": found.cost, "words": list(found.words),
    }  # fmt: skip


def sign(differences: Sequence[float]) -> float:
    """The p of a two-sided sign test; ties are left out."""
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    n, k = up + down, min(up, down)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The published table, of the seeds that have all arms."""
    lines = [
        "| job | seeds | default | probed | tuned | probed - default | p | probed - tuned | p | advice |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    by = {(each["job"], each["seed"], each["arm"]): each for each in rows}
    for name in [name for name in JOBS if any(each["job"] == name for each in rows)]:
        seeds = sorted({seed for job, seed, _ in by if job == name and all((name, seed, arm) in by for arm in ARMS)})
        if not seeds:
            continue
        errors = {arm: [by[name, seed, arm]["error"] for seed in seeds] for arm in ARMS}
        medians = [f"{median(errors[arm]):.3g}" for arm in ARMS]
        pairs = []
        for other in ("default", "tuned"):
            both = zip(errors["probed"], errors[other], strict=True)
            differences = [round(a - b, 9) for a, b in both]  # a tie is one
            pairs += [f"{median(differences):+.2g}", f"{sign(differences):.3f}"]
        advice = _advice([by[name, seed, "probed"] for seed in seeds])
        unit = by[name, seeds[0], "default"]["unit"]
        lines.append(f"| {name} ({unit}) | {len(seeds)} | {' | '.join([*medians, *pairs])} | {advice} |")
    return "\n".join(lines)


def _advice(own: Sequence[Mapping[str, Any]]) -> str:
    changed = [each["advised"] for each in own if each["verdict"] == "change" and not each["single"]]
    said = [f"{len(changed)} change (x{min(changed):g} to x{max(changed):g})"] if changed else []
    singles = [each["single"] for each in own if each["single"]]
    said += [f"{len(singles)} one AdamW ({min(singles):g} to {max(singles):g})"] if singles else []
    said += [f"{n} {what}" for what in ("keep", "withheld") if (n := sum(each["verdict"] == what for each in own))]
    weighted = sum(bool(each["weights"]) for each in own)
    return ", ".join([*said, *([f"{weighted} weights"] if weighted else [])])


def write(text: str) -> None:
    """Put the table into the page, in the place of the one that is there."""
    page = Path(__file__).parents[1] / "docs/probe.md"
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """Read the arguments, run what the file does not have yet, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=[*JOBS])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("probe_rows.jsonl"))
    parser.add_argument("--write", action="store_true", help="put the table of all rows into docs/probe.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(each["job"], each["seed"], each["arm"]) for each in rows}
    seeds = range(given.first, given.first + given.seeds)
    left = [
        each for each in itertools.product(seeds, given.jobs, given.arms) if (each[1], each[0], each[2]) not in done
    ]
    for number, (seed, name, arm) in enumerate(left, 1):
        rows.append(row(name, seed, arm))
        with given.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        sys.stderr.write(f"{number}/{len(left)} {name}, seed {seed}, {arm}: {rows[-1]['error']:.4g}\n")
    sys.stdout.write(table(rows) + "\n")
    if given.write:
        write(table(rows))


if __name__ == "__main__":
    main()
