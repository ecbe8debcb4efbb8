"""The laws of every balancing method, whatever its properties."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch

from groupwise.balance.memory import Memory
from groupwise.balance.method import Method
from groupwise.testing.calling import NAMES, close, run, text, update
from groupwise.testing.law import demand
from groupwise.testing.samples import SCALES, course, samples

STEPS = 6
_ROUNDING = 1e-9


def pure(method: Method) -> None:
    """Two fresh memories, two equal updates; the method is a value that no call changes."""
    for sample in samples():
        before = repr(method)
        first, second = update(method, sample), update(method, sample)
        demand(torch.equal(first, second), f"on {sample} it gave {text(first)}, then {text(second)}")
        demand(repr(method) == before, f"it changed into {method!r}")


def finite(method: Method) -> None:
    """Gradients of every size, together and apart."""
    for sample in samples():
        apart = torch.logspace(-6, 6, len(sample.losses), dtype=torch.float64)
        for loud in (sample, sample.scaled(apart), *map(sample.scaled, SCALES)):
            made = update(method, loud)
            demand(made.shape == loud.jacobian.shape[1:], f"the update has the shape {tuple(made.shape)}")
            demand(bool(torch.isfinite(made).all()), f"on {loud} the update is {text(made)}")


def along(method: Method) -> None:
    """Alone, a task goes where it wants: the update is a positive multiple of its gradient."""
    for scale in (1.0, *SCALES):
        alone = next(sample for sample in samples() if len(sample.losses) == 1).scaled(scale)
        made, gradient = update(method, alone), alone.jacobian[0]
        length = float(made @ gradient / (gradient @ gradient))
        demand(length > 0, f"the gradient {text(gradient)} gave {text(made)}")
        demand(
            close(made, length * gradient, _ROUNDING * length * alone.scale),
            f"{text(made)} is not along {text(gradient)}",
        )


def absent(method: Method) -> None:
    """What is remembered of a task that is not there makes no difference to those that are."""
    for gone in (1, 2):
        there = [i for i in range(3) if i != gone]
        kept, forgotten = Memory(), Memory()
        for memory in (kept, forgotten):
            run(method, course(3, STEPS), memory)
        forgotten.forget(NAMES[gone])
        demand(NAMES[gone] not in forgotten.tasks(), f"a forgotten task is still known: {sorted(forgotten.tasks())}")
        later, names = [sample.rows(there) for sample in course(3, STEPS, seed=10)], tuple(NAMES[i] for i in there)
        for one, other in zip(*(run(method, later, m, STEPS, names) for m in (kept, forgotten)), strict=True):
            demand(torch.equal(one, other), f"an absent task turned {text(other)} into {text(one)}")


def resumes(method: Method) -> None:
    """Saved at some step, loaded elsewhere: every later update is equal, bit by bit."""
    whole = run(method, course(3, STEPS), Memory())
    for stop in (0, 1, STEPS - 2):
        memory, loaded = Memory(), Memory(seed=1)
        run(method, list(course(3, STEPS))[:stop], memory)
        loaded.load_state_dict(through_a_file(memory.state_dict()))
        rest = run(method, list(course(3, STEPS))[stop:], loaded, stop)
        for number, (one, other) in enumerate(zip(rest, whole[stop:], strict=True), start=stop):
            demand(
                torch.equal(one, other),
                f"saved before step {stop}, step {number} is {text(one)}, not {text(other)}",
            )


def through_a_file(state: Mapping[str, object]) -> dict[str, object]:
    """What a file gives back that was written and read as plain data."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, object] = torch.load(file, weights_only=True)
    return loaded
