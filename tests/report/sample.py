"""A run that never was, but could have been: 8 groups, 3 tasks, 400 steps, and a few things to find in it.

`embed` is frozen; `head.depth` moves too fast; `trunk` is owned by the loud task `depth`, which conflicts with `edges`
in most of the records; the clip of `base` acts on nearly every step, that of `heads` seldom; `head.edges` works against
the loss. `seg` and `depth` learn, `edges` does not.
"""

import math
import random
from pathlib import Path

from groupwise.records import Clip, Event, Group, Header, Step, Writer

TASKS = ("seg", "depth", "edges")
TRUNK = ("stem", "trunk.low", "trunk.high", "norms")
HEADS = tuple(f"head.{task}" for task in TASKS)
GROUPS = ("embed", *TRUNK, *HEADS)
STEPS = 400
PEAK = {"embed": 0.0, "stem": 1e-4, "trunk.low": 2e-4, "trunk.high": 4e-4, "norms": 4e-4} | dict.fromkeys(HEADS, 3e-3)
RATIO = {
    "stem": 2e-4,
    "trunk.low": 5e-4,
    "trunk.high": 9e-4,
    "norms": 6e-4,
    "head.seg": 3e-3,
    "head.depth": 8e-2,
    "head.edges": 2e-3,
}
SIZE = {
    "stem": 0.3,
    "trunk.low": 1.2,
    "trunk.high": 4.0,
    "norms": 0.1,
    "head.seg": 0.02,
    "head.depth": 0.08,
    "head.edges": 0.01,
}
BOUND = {"base": 1.0, "heads": 0.12}
EVERY = {"values": 1, "gradients": 1, "weights": 10, "updates": 20, "tasks": 5}


def groups() -> tuple[Group, ...]:
    """The groups of the header."""
    made = []
    for i, name in enumerate(GROUPS):
        scope = "heads" if name in HEADS else "base"
        algorithm = "SGD" if name == "embed" else "AdamW"
        made.append(Group(name, algorithm, 4 + i, 1000 * (i + 1) ** 3, None, None, Clip("norm", BOUND[scope], scope)))
    return tuple(made)


def rate(step: int) -> float:
    """Warm-up over 20 steps, then a cosine."""
    return min((step + 1) / 20, 1.0) * 0.5 * (1 + math.cos(math.pi * step / STEPS))


def step_of(step: int, chance: random.Random) -> Step:
    """One line."""
    done = step / STEPS
    norms = {g: SIZE[g] * (1.5 - done) * math.exp(chance.gauss(0, 0.25)) for g in SIZE} | {"embed": 0.0}
    joint = {
        scope: math.hypot(*(norms[g] for g in names))
        for scope, names in (("base", ("embed", *TRUNK)), ("heads", HEADS))
    }
    numbers: dict[str, dict[str, float]] = {}
    for name in GROUPS:
        scope = "heads" if name in HEADS else "base"
        factor = min(1.0, BOUND[scope] / joint[scope])
        numbers[name] = {"grad_norm": norms[name], "clip_factor": factor, "no_grad": 0 if name != "embed" else 4}
        if step % 20 == 0:
            ratio = RATIO.get(name, 0.0) * rate(step) * math.exp(chance.gauss(0, 0.1))
            gain = {"head.edges": -0.006, "head.depth": 0.02}.get(name, 0.004) * (name != "embed")
            numbers[name] |= {
                "weight_norm": 10.0, "update_ratio": ratio, "update_norm": 10 * ratio,
                "contribution": gain * (1.2 - done),
                "step_size": (name != "embed") * (0.4 + 0.2 * chance.random()),
            }  # fmt: skip
        if step % 10 == 0:
            numbers[name]["gradient_cosine"] = (
                -0.5 + chance.gauss(0, 0.1) if name == "head.depth" else chance.gauss(0.1, 0.1)
            )
    losses = {"seg": 2.3 * math.exp(-2 * done), "depth": 40 * math.exp(-1.2 * done), "edges": 0.69}
    losses = {task: loss * math.exp(chance.gauss(0, 0.04)) for task, loss in losses.items()}
    shared = step % 25 == 0
    shares = {"seg": 0.03, "depth": 0.96, "edges": 0.01} if shared else {}
    cosine = 0.25 * math.sin(step / 9) - 0.15 + chance.gauss(0, 0.05)
    return Step(
        step, 0.05 * step,
        values={name: {"lr": PEAK[name] * rate(step), "weight_decay": 0.05 * (name != "norms")} for name in GROUPS},
        groups=numbers,
        scalars={"loss": math.fsum(losses.values())},
        tasks={task: {"loss": loss, "weight": 1.0} for task, loss in losses.items()},
        cosines=[("seg", "depth", 0.4 + chance.gauss(0, 0.05)), ("depth", "edges", cosine)] if step % 5 == 0 else (),
        shares={t: dict.fromkeys(TRUNK, s) | {f"head.{t}": 1.0} for t, s in shares.items()},
        conflicting=("edges",) if step % 5 == 0 and cosine < 0 else (),
    )  # fmt: skip


TABLE = "\n".join(
    [
        "group      algorithm  lr",
        *(f"{name:<10} {'SGD' if name == 'embed' else 'AdamW':<9}  cosine({PEAK[name]:.0e})" for name in GROUPS),
    ]
)


def write(folder: Path, steps: int = STEPS, seed: int = 0) -> Path:
    """The run, in `folder`."""
    chance = random.Random(seed)
    header = Header("group", EVERY, groups(), TASKS, "groupwise 0.1.0, torch 2.13.0", TABLE, STEPS, 100)
    with Writer(folder, header) as writer:
        for step in range(steps):
            writer.write(step_of(step, chance))
        if steps == STEPS:
            writer.write(Event(3, "skipped", "the scaler found an infinite gradient"))
            writer.write(Event(STEPS - 1, "finished"))
    return folder


def write_many(folder: Path, count: int, steps: int, prefix: str = "block") -> Path:
    """A run of many groups, whose update ratios lie on a ladder."""
    names = [f"{prefix}.{i:03}" for i in range(count)]
    header = Header("group", EVERY, tuple(Group(name, "AdamW", 1, 10) for name in names), total_steps=steps)
    with Writer(folder, header) as writer:
        for step in range(steps):
            statistics = {
                n: {"grad_norm": 1.0 + i, "update_ratio": 1e-4 * (1 + i) * (1 + step % 7)} for i, n in enumerate(names)
            }
            writer.write(Step(step, 0.1 * step, {n: {"lr": 1e-3 / (1 + i)} for i, n in enumerate(names)}, statistics))
    return folder
