"""Draw the pictures of the schedules' page:  python docs/make_pictures.py

Each is one small SVG: the values that the library itself gives, over a run of 200 updates in 10 epochs. No date, no
random number and no drawing library goes into them, so the same code gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from groupwise.schedules import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    exponential,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    piecewise,
    plateau,
    polynomial,
    reduced,
    step_decay,
    triangular,
    warmup_stable_decay,
)

PICTURES = Path(__file__).parent / "pictures"
STEPS, EPOCH = 200, 20
WIDTH, HEIGHT, EDGE = 200, 60, 5

SCHEDULES: Mapping[str, Schedule] = {
    "constant": constant(1.0),
    "linear": linear(1.0),
    "cosine": cosine(1.0, warmup="10%"),
    "polynomial": polynomial(1.0, power=2.0),
    "exponential": exponential(1.0, 0.75),
    "inverse_sqrt": inverse_sqrt(1.0, warmup="10%"),
    "step_decay": step_decay(1.0, 0.6, every="2 epochs"),
    "multi_step": multi_step(1.0, 0.3, at=["50%", "75%"]),
    "warmup_stable_decay": warmup_stable_decay(1.0, warmup="10%", decay="30%"),
    "one_cycle": one_cycle(1.0),
    "triangular": triangular(0.2, 1.0, up="1 epoch", mode="triangular2"),
    "cosine_restarts": cosine_restarts(1.0, first="2 epochs", factor=2),
    "piecewise": piecewise([("0%", 0.2), ("20%", 1.0), ("60%", 0.6), ("60%", 0.3), ("100%", 0.0)]),
    "then": constant(1.0).then(linear(1.0), at="70%"),
    "scaled": cosine(1.0).scaled(triangular(1.0, 0.7, up="10 steps")),
    "clamped": cosine(1.0).clamped(low=0.3, high=0.8),
}


def plateau_values() -> list[float]:
    """A plateau that sees one metric an epoch, which gets better until the fourth and is stuck from then on."""
    schedule = plateau(1.0, factor=0.4, patience=1)
    state, values = schedule.initial, []
    for epoch in range(STEPS // EPOCH):
        now = reduced(schedule, {schedule: state})
        values += [now.at(step) for step in range(epoch * EPOCH, (epoch + 1) * EPOCH)]
        state = schedule.observe(state, 1.0 / (1 + min(epoch, 3)))
    return [*values, values[-1]]


def picture(values: Sequence[float]) -> str:
    """An SVG of values between 0 and 1, one a step."""
    across, down = (WIDTH - 2 * EDGE) / (len(values) - 1), HEIGHT - 2 * EDGE
    points = [(EDGE + across * step, HEIGHT - EDGE - down * value) for step, value in enumerate(values)]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in _corners(points))
    floor = f"M{EDGE} {HEIGHT - EDGE}H{WIDTH - EDGE}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">\n'
        f'<path d="{floor}" stroke="#999" stroke-width="1"/>\n'
        f'<polyline points="{drawn}" fill="none" stroke="#3b7dd8" stroke-width="2" stroke-linejoin="round"/>\n'
        "</svg>\n"
    )


def _corners(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points without those that lie on a straight line between their neighbours."""
    kept = [points[0]]
    for (_, before), here, (_, after) in zip(points, points[1:], points[2:], strict=False):
        if abs(before + after - 2 * here[1]) > 1e-6:
            kept.append(here)
    return [*kept, points[-1]]


def draw() -> dict[str, str]:
    """Every picture, by file name."""
    curves = {name: [s.at(step, STEPS, EPOCH) for step in range(STEPS + 1)] for name, s in SCHEDULES.items()}
    return {f"{name}.svg": picture(values) for name, values in {**curves, "plateau": plateau_values()}.items()}


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for file, text in draw().items():
        (PICTURES / file).write_text(text, encoding="utf-8")
