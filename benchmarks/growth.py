"""How cost grows:  python -m benchmarks --only growth

The processor's time of resolving a plan as tensors, groups and rules grow, of an optimizer's step as groups grow, and
of a scheduler's step as scheduled numbers grow; everything else stays. Each size is measured as often as the others, in
turns, and the exponent is the slope of a straight line through the logarithms of the larger half of the sizes: 1 is
linear. `docs/img/growth.png` shows all of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.measure import Scale, Table, Timing, Work, milliseconds, race
from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, layer_decay, scale
from groupwise.optim import resolve
from groupwise.schedules import linear

PICTURE = Path(__file__).parent.parent / "docs/img/growth.png"
SIZES = (10, 30, 100, 300, 1000, 3000)
BASE = Rule("*", optimizer="SGD", lr=0.1)


@dataclass(frozen=True)
class Course:
    """What grows, what is done, and the work at one size."""

    of: str
    work: Callable[[int], Work]
    sizes: Sequence[int] = SIZES


def layers(count: int, device: str = "meta") -> nn.Module:
    """So many tensors, one in each layer."""
    made = nn.ModuleList(nn.Linear(2, 2, bias=False, device=device) for _ in range(count))
    return nn.ModuleDict({"layers": made})


def of_tensors(count: int) -> Work:
    """Resolving one rule."""
    model = layers(count)
    return lambda: resolve(model, Plan([BASE]))


def of_groups(count: int) -> Work:
    """Resolving a rate for each of so many layers."""
    model, plan = layers(count), Plan([BASE, Rule("*", lr=layer_decay(0.999))])
    return lambda: resolve(model, plan)


def of_rules(count: int) -> Work:
    """Resolving so many rules for a hundred tensors; each names one."""
    model = layers(100)
    plan = Plan([BASE, *(Rule(f"layers.{i % 100}.*", lr=scale(0.999)) for i in range(count))])
    return lambda: resolve(model, plan)


def of_steps(count: int) -> Work:
    """A step with so many groups."""
    model = layers(count, "cpu")
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    return GroupedOptimizer(model, Plan([BASE, Rule("*", lr=layer_decay(0.999))])).step


def of_numbers(count: int) -> Work:
    """A step of a scheduler that writes so many numbers, two in each group."""
    moving = {"momentum": linear(0.8, 0.9), "weight_decay": linear(0.0, 0.1)}
    plan = Plan([BASE, Rule("*", lr=layer_decay(0.999), **moving)])
    optimizer = GroupedOptimizer(layers(count // 2, "cpu"), plan)
    optimizer.step()
    return PlanScheduler(optimizer, total_steps=10**6).step


COURSES = {
    "resolve": Course("tensors", of_tensors),
    "resolve, a group for each tensor": Course("groups", of_groups),
    "resolve, 100 tensors": Course("rules", of_rules, SIZES[:-1]),
    "GroupedOptimizer.step": Course("groups", of_steps),
    "PlanScheduler.step": Course("scheduled numbers", of_numbers),
}


def tables(thorough: Scale) -> Iterator[Table]:
    """A row for each course; the picture is drawn where the numbers mean something."""
    found: dict[str, dict[int, Timing]] = {}
    for name, course in COURSES.items():
        sizes = course.sizes[:2] if thorough.quick else course.sizes
        works = {str(size): course.work(size) for size in sizes}
        times = race(works, str(sizes[-1]), thorough.seconds(6.0))
        found[name] = {size: times[str(size)] for size in sizes}
    rows = []
    for name, times in found.items():
        first, *_, last = times.items()
        ends = [f"{milliseconds(timing.seconds)} at {size:,}" for size, timing in (first, last)]
        rows.append([name, COURSES[name].of, *ends, f"{exponent(times):.2f}"])
    if not thorough.quick:
        draw(found, PICTURE)
    yield Table("Growth", ["what", "with", "smallest", "largest", "exponent"], rows)


def exponent(times: Mapping[int, Timing]) -> float:
    """The slope in the logarithms, over the larger half of the sizes."""
    chosen = [*times.items()][len(times) // 2 - (len(times) == 2) :]
    x, y = [math.log(size) for size, _ in chosen], [math.log(timing.seconds) for _, timing in chosen]
    return statistics.linear_regression(x, y).slope


def draw(found: Mapping[str, Mapping[int, Timing]], path: Path) -> None:
    """Seconds over sizes, both logarithmic, beside the slope of linear growth."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for (name, times), marker in zip(found.items(), "os^Dv", strict=True):
        label = f"{name}, {COURSES[name].of}: {exponent(times):.2f}"
        axes.loglog([*times], [1e3 * timing.seconds for timing in times.values()], marker=marker, ms=4, label=label)
    low, high = min(SIZES), max(SIZES)
    axes.loglog([low, high], [0.02, 0.02 * high / low], color="0.6", linestyle="--", label="linear: 1")
    axes.set(xlabel="tensors, groups, rules or scheduled numbers", ylabel="ms")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, title="exponent over the larger half", title_fontsize=8)
    FigureCanvasAgg(figure).print_png(str(path))
