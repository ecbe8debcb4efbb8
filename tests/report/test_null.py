"""Where nothing is the matter, every sentence that rests on measurements is silent in 99 of 100 runs.

Sentences on losses, conflicts and updates that hurt tasks have their laws in test_trend and test_verdict. Those on
settings, events and sizes against a constant of the arithmetic (rates, betas, routers, eps, rounding, what never moved,
values that are not finite) state facts: no chance is in them.
"""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groupwise.records import Clip, Event, Group, Header, Step
from tests.report.runs import run_of, said

DRAWS = 100
TOLERATED = 4
"""Of 100 runs with one chance in a hundred each, more speak in 0.3 % of all cases."""

Sampler = Callable[[random.Random], Iterator[Step | Event]]
LAYERS = tuple(f"layer {i}" for i in range(8))
GROUPS = ("a", "b")


def remembering(chance: random.Random, memory: float) -> Iterator[float]:
    """Noise of variance 1 whose successive values have a correlation."""
    value = chance.gauss(0, 1)
    while True:
        yield value
        value = memory * value + math.sqrt(1 - memory**2) * chance.gauss(0, 1)


def norms_that_vary_by_a_factor(chance: random.Random) -> Iterator[Step]:
    """A gradient whose logarithm varies by 1, that is by a factor of 2.7."""
    noise = remembering(chance, chance.choice([0.0, 0.5]))
    for step in range(chance.choice([30, 100, 300])):
        yield Step(step, groups={"a": {"grad_norm": math.exp(next(noise))}})


def norms_of_batches(chance: random.Random) -> Iterator[Step]:
    """Norms that differ by some per cent from batch to batch, no clip recorded."""
    spread = chance.choice([0.02, 0.1, 0.3])
    for step in range(chance.choice([20, 60])):
        yield Step(step, groups={group: {"grad_norm": math.exp(chance.gauss(0, spread))} for group in GROUPS})


def gradients_of_any_size_by_layer(chance: random.Random) -> Iterator[Step]:
    """Layers whose gradients have sizes that differ by a factor of five or so, in no order."""
    sizes = {layer: chance.gauss(0, 1.5) for layer in LAYERS[: chance.choice([4, 6, 8])]}
    for step in range(30):
        yield Step(
            step, groups={name: {"grad_norm": math.exp(chance.gauss(size, 0.3))} for name, size in sizes.items()}
        )


def cosines_around_nothing(chance: random.Random) -> Iterator[Step]:
    """Successive gradients that know nothing of each other."""
    noise, spread = remembering(chance, 0.3), chance.choice([0.1, 0.5])
    for step in range(chance.choice([10, 15, 40])):
        yield Step(step, groups={"a": {"gradient_cosine": max(-1.0, min(1.0, spread * next(noise)))}})


def units_that_seldom_fire(chance: random.Random) -> Iterator[Step]:
    """Sixteen units each of which fires for one entry in ten, on batches of 32."""
    for step in range(20):
        dead = sum(all(chance.random() > 0.1 for _ in range(32)) for _ in range(16))
        yield Step(step, groups={"layer 0": {"dead_units": dead / 16, "activation_rms": 1.0}})


def gradients_with_zeros(chance: random.Random) -> Iterator[Step]:
    """A loss that stands still, and a gradient of which a changing part is exactly 0."""
    noise, share = remembering(chance, 0.5), chance.uniform(0.2, 0.7)
    for step in range(60):
        zero = min(max(share + 0.1 * next(noise), 0.0), 1.0)
        yield Step(step, scalars={"loss": 1 + 0.1 * chance.gauss(0, 1)}, groups={"a": {"zero": zero, "grad_norm": 1.0}})


def weights_that_hold_their_own(chance: random.Random) -> Iterator[Step]:
    """A loss that stands still under a strong decay, and weights that go up and down by a tenth."""
    noise = remembering(chance, 0.9)
    values = {"a": {"lr": 0.1, "weight_decay": 1.0}}
    for step in range(60):
        norm = math.exp(0.1 * next(noise))
        numbers = {"a": {"weight_norm": norm, "update_ratio": 0.01, "grad_norm": 1.0}}
        yield Step(step, 0.0, values, numbers, {"loss": 1 + 0.1 * chance.gauss(0, 1)})


def shares_of_equal_tasks(chance: random.Random) -> Iterator[Step]:
    """Two to four tasks of one strength, whose norms differ by a factor of two or so from batch to batch."""
    tasks = ["x", "y", "z", "u"][: chance.choice([2, 3, 4])]
    for step in range(chance.choice([3, 5, 20])):
        norms = {task: math.exp(chance.gauss(0, 0.7)) for task in tasks}
        whole = sum(norms.values())
        losses = {task: {"loss": 1 + 0.2 * chance.gauss(0, 1)} for task in tasks}
        yield Step(step, tasks=losses, shares={task: {"a": norm / whole} for task, norm in norms.items()})


def losses_of_equal_tasks(chance: random.Random) -> Iterator[Step]:
    """Two or three tasks of one size that learn nothing, without shares."""
    tasks = ["x", "y", "z"][: chance.choice([2, 3])]
    for step in range(60):
        yield Step(step, tasks={task: {"loss": math.exp(chance.gauss(0, 0.3))} for task in tasks})


def a_game_that_goes_to_and_fro(chance: random.Random) -> Iterator[Step]:
    """Two networks that work against each other, neither of which wins."""
    noises = {task: remembering(chance, chance.choice([0.0, 0.8])) for task in ("generator", "discriminator")}
    for step in range(chance.choice([30, 100])):
        yield Step(step, tasks={task: {"loss": math.exp(0.4 * next(noise))} for task, noise in noises.items()})


def contributions_of_nothing(chance: random.Random) -> Iterator[Step]:
    """Updates that lower the loss as often as they raise it."""
    noises = {group: remembering(chance, chance.choice([0.0, 0.5])) for group in GROUPS}
    for step in range(chance.choice([10, 40])):
        yield Step(step, scalars={"loss": 1.0}, groups={g: {"contribution": next(n)} for g, n in noises.items()})


def networks_of_one_pace(chance: random.Random) -> Iterator[Step]:
    """Two networks whose update ratios differ by a factor of three or so."""
    ratios = {group: math.exp(chance.gauss(-7, 0.7)) for group in GROUPS}
    for step in range(30):
        numbers = {g: {"update_ratio": r * math.exp(chance.gauss(0, 0.3)), "grad_norm": 1.0} for g, r in ratios.items()}
        yield Step(step, groups=numbers)


def a_resume_that_changed_nothing(chance: random.Random) -> Iterator[Step | Event]:
    """Noise, and a resume in its middle."""
    loss, size = remembering(chance, chance.choice([0.0, 0.5])), remembering(chance, 0.5)
    for step in range(60):
        if step == 30:
            yield Event(step, "resumed", "goes on at step 30")
        numbers = {"a": {"step_size": 0.2 * math.exp(0.3 * next(size))}}
        yield Step(step, 0.0, {"a": {"lr": 1e-3}}, numbers, {"loss": math.exp(0.3 * next(loss))})


def a_loss_that_goes_on_falling(chance: random.Random) -> Iterator[Step]:
    """A slow fall by 3 to 15 %, evenly over the run."""
    fall, spread = chance.uniform(0.03, 0.15), chance.choice([0.002, 0.01])
    for step in range(200):
        yield Step(step, scalars={"loss": 2 * (1 - fall * step / 200) + spread * chance.gauss(0, 1)})


def units_that_were_never_many(chance: random.Random) -> Iterator[Step]:
    """Weights whose norm wanders by a tenth while the loss stands still."""
    walk = 0.0
    for step in range(80):
        walk += chance.gauss(0, 0.02)
        numbers = {"a": {"weight_norm": math.exp(walk), "update_ratio": 0.01, "grad_norm": 1.0}}
        yield Step(step, scalars={"loss": 1 + 0.1 * chance.gauss(0, 1)}, groups=numbers)


def steps_of_half_the_size_that_is_large(chance: random.Random) -> Iterator[Step]:
    """Update ratios at half of the band of AdamW and below, which differ by a factor of two or so from step to step."""
    noises = {group: remembering(chance, chance.choice([0.0, 0.5])) for group in GROUPS}
    spread, learns = chance.choice([0.3, 0.7]), chance.choice([0.0, 0.5])
    count = chance.choice([1, 3, 10, 60])
    for step in range(count):
        numbers = {g: {"update_ratio": 0.015 * math.exp(spread * next(n)), "grad_norm": 1.0} for g, n in noises.items()}
        yield Step(step, scalars={"loss": math.exp(-learns * step / count + 0.1 * chance.gauss(0, 1))}, groups=numbers)


def weights_that_begin_at_nothing(chance: random.Random) -> Iterator[Step]:
    """Biases, adapters or a head that were initialised at 0, and a gradient that keeps its direction, or wanders."""
    power, spread = chance.choice([0.5, 1.0]), chance.choice([0.1, 0.3])
    count = chance.choice([10, 30, 100])
    for step in range(count):
        numbers = {"a": {"weight_norm": 1e-3 * step**power, "grad_norm": 1.0}}
        if step:
            numbers["a"]["update_ratio"] = math.exp(spread * chance.gauss(0, 1)) / step**power
        yield Step(step, scalars={"loss": math.exp(-0.5 * step / count + 0.1 * chance.gauss(0, 1))}, groups=numbers)


def few_large_steps_among_small_ones(chance: random.Random) -> Iterator[Step]:
    """A loss that stands still, and weights most of whose way is made by one step in ten."""
    count = chance.choice([60, 200])
    for step in range(count):
        ratio = 3e-3 if chance.random() < 0.1 else 1e-6 * math.exp(chance.gauss(0, 1))
        numbers = {"a": {"update_ratio": ratio, "grad_norm": 1.0}}
        yield Step(step, scalars={"loss": 1 + 0.1 * chance.gauss(0, 1)}, groups=numbers)


def a_fall_that_the_batches_hide(chance: random.Random) -> Iterator[Step]:
    """A loss that falls by a tenth to a third over the run, and differs by more from batch to batch."""
    fall, count, spread = chance.uniform(0.1, 0.3), chance.choice([20, 60, 100]), chance.choice([0.5, 1.0])
    for step in range(count):
        loss = math.exp(-fall * step / count + spread * chance.gauss(0, 1))
        yield Step(step, scalars={"loss": loss}, groups={"a": {"update_ratio": 1e-3, "grad_norm": 1.0}})


def zeros_that_come_and_go(chance: random.Random) -> Iterator[Step]:
    """A share of entries without gradient that differs from batch to batch, in runs of any length."""
    noise, share = remembering(chance, chance.choice([0.0, 0.5])), chance.uniform(0.1, 0.6)
    for step in range(chance.choice([1, 2, 5, 30])):
        yield Step(step, groups={"a": {"zero": min(max(share + 0.15 * next(noise), 0.0), 1.0), "grad_norm": 1.0}})


def rows_that_are_looked_up_in_turn(chance: random.Random) -> Iterator[Step]:
    """A table of which each batch asks for other rows: Adam's momentum moves every row that ever was."""
    share = chance.uniform(0.5, 0.95)
    for step in range(40):
        zero = 1 - (1 - share) * math.exp(0.05 * chance.gauss(0, 1))
        low = 0.05 * math.exp(0.3 * chance.gauss(0, 1))
        yield Step(step, groups={"a": {"zero": zero, "grad_norm": 1.0, "step_size": 0.5, "step_size_low": low}})


def clipped_together(chance: random.Random) -> Iterator[Step]:
    """Two groups under one clip that acts on every step; the gradient of one is ten to thirty times the other's, whose
    weights move by 1e-4 to 1e-3 a step.
    """
    times, ratio = chance.uniform(10, 30), math.exp(chance.uniform(math.log(1e-4), math.log(1e-3)))
    for step in range(chance.choice([3, 5, 10, 60])):
        norms = {g: 300 * size * math.exp(chance.gauss(0, 0.3)) for g, size in (("a", 1.0), ("b", times))}
        factor = 1 / math.hypot(*norms.values())
        moved = {"a": ratio, "b": 10 * ratio}
        numbers = {
            g: {"clip_factor": factor, "grad_norm": n, "update_ratio": moved[g] * math.exp(chance.gauss(0, 0.3))}
            for g, n in norms.items()
        }
        yield Step(step, groups=numbers)


def inputs_that_are_often_0_under_a_clip(chance: random.Random) -> Iterator[Step]:
    """A summed loss whose clip acts on every step, and weights a fifth to a half of which have no gradient."""
    share = chance.uniform(0.2, 0.5)
    for step in range(40):
        norm = 1e5 * math.exp(chance.gauss(0, 0.3))
        numbers = {"clip_factor": 1 / norm, "grad_norm": norm, "zero": share, "step_size": 0.8, "step_size_low": 0.0}
        yield Step(step, groups={"a": numbers})


SILENT: list[tuple[Sampler, tuple[str, ...]]] = [
    (norms_that_vary_by_a_factor, ("spike",)),
    (norms_of_batches, ("clip-before",)),
    (gradients_of_any_size_by_layer, ("depth",)),
    (cosines_around_nothing, ("turning",)),
    (units_that_seldom_fire, ("dead",)),
    (gradients_with_zeros, ("died",)),
    (weights_that_hold_their_own, ("decay", "grown")),
    (shares_of_equal_tasks, ("owner", "drowned")),
    (losses_of_equal_tasks, ("drowned",)),
    (a_game_that_goes_to_and_fro, ("outrun",)),
    (contributions_of_nothing, ("contribution", "contribution-negative")),
    (networks_of_one_pace, ("networks",)),
    (a_resume_that_changed_nothing, ("resume-loss", "resume-state", "resume-rate")),
    (a_loss_that_goes_on_falling, ("settled",)),
    (units_that_were_never_many, ("grown", "died", "still")),
    (steps_of_half_the_size_that_is_large, ("fast",)),
    (weights_that_begin_at_nothing, ("fast",)),
    (few_large_steps_among_small_ones, ("slow", "fast")),
    (a_fall_that_the_batches_hide, ("works",)),
    (zeros_that_come_and_go, ("zeros",)),
    (rows_that_are_looked_up_in_turn, ("zeros",)),
    (clipped_together, ("starved",)),
    (inputs_that_are_often_0_under_a_clip, ("starved",)),
]


GROUPS_OF: dict[Sampler, tuple[Group, ...]] = {
    networks_of_one_pace: tuple(Group(name, "AdamW", 1, 100, network=f"net {name}") for name in GROUPS),
    gradients_of_any_size_by_layer: tuple(Group(name, "AdamW", 1, 100) for name in LAYERS),
    units_that_seldom_fire: (Group("layer 0", "AdamW", 1, 100),),
    clipped_together: tuple(Group(name, "SGD", 1, 100, clip=Clip("norm", 1.0, "base")) for name in GROUPS),
    inputs_that_are_often_0_under_a_clip: (Group("a", "AdamW", 1, 100, clip=Clip("norm", 1.0, "base")),),
}
"""Of samplers whose groups are not two of AdamW."""


@pytest.mark.parametrize(("sampler", "rules"), SILENT, ids=lambda value: getattr(value, "__name__", ""))
def test_a_sentence_is_silent_in_99_of_100_runs_of_chance(
    tmp_path: Path, sampler: Sampler, rules: tuple[str, ...]
) -> None:
    groups = GROUPS_OF.get(sampler, tuple(Group(name, "AdamW", 1, 100) for name in GROUPS))
    spoke = dict.fromkeys(rules, 0)
    for seed in range(DRAWS):
        run = run_of(tmp_path / str(seed), sampler(random.Random(seed)), Header(groups=groups))
        for rule in rules:
            spoke[rule] += bool(said(run, rule))
    assert all(count <= TOLERATED for count in spoke.values()), spoke
