"""One law for each property of a balancing method, tried on samples that would break it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import Method
from groupwise.balance.properties import Property
from groupwise.testing.calling import NAMES, close, text, update
from groupwise.testing.law import demand
from groupwise.testing.samples import SCALES, Sample, course, regular, samples

_CLOSE = 1e-7
_ZERO = 1e-7


def _equivariant(method: Method) -> None:
    for sample in samples():
        order = list(reversed(range(len(sample.losses))))
        other = sample.rows(order)
        names = tuple(NAMES[i] for i in order)
        _equal(update(method, sample), update(method, other, tasks=names), sample, "with the tasks reversed")


def _homogeneous(method: Method) -> None:
    for sample in samples():
        expected = update(method, sample)
        for s in SCALES:
            _equal(expected, update(method, sample.scaled(s)) / s, sample, f"scaled by {s}, and back,")


def _scale_free(method: Method) -> None:
    for sample in samples():
        expected = update(method, sample)
        for s in SCALES:
            _equal(expected, update(method, sample.scaled(s)), sample, f"scaled by {s}")


def _task_scale_free(method: Method) -> None:
    for sample in regular():
        expected = update(method, sample)
        for low, high in ((0.5, 4.0), (2.0**-12, 2.0**12)):
            by = torch.logspace(0, 1, len(sample.losses), dtype=torch.float64) * low
            by[-1] = high
            _equal(expected, update(method, sample.scaled(by)), sample, f"with tasks scaled by {by.tolist()}")


def _non_conflicting(method: Method) -> None:
    for sample in samples():
        made = update(method, sample)
        rises = sample.jacobian @ made
        limit = -_CLOSE * sample.scale * max(sample.scale, float(made.norm()))
        demand(bool((rises >= limit).all()), f"on {sample} the update {text(made)} has products {text(rises)}")


def _duplicable(method: Method) -> None:
    for sample in samples():
        twice = sample.rows([*range(len(sample.losses)), 0])
        _equal(update(method, sample), update(method, twice), sample, "with the first task given twice")


def _single(method: Method) -> None:
    for scale in (1.0, *SCALES):
        alone = next(sample for sample in regular() if len(sample.losses) == 1).scaled(scale)
        _equal(alone.jacobian[0], update(method, alone), alone, "alone")


def _strongly_stationary(method: Method) -> None:
    for sample in samples():
        made = update(method, sample)
        zero = float(made.norm()) <= _ZERO * sample.scale
        demand(not zero or sample.cancels, f"on {sample} the update is zero, and no positive weights make them cancel")


def _memoryless(method: Method) -> None:
    memory = Memory()
    for number, sample in enumerate(course(3, 4)):
        _equal(update(method, sample, step=number), update(method, sample, memory, number), sample, "with a past")


def _deterministic(method: Method) -> None:
    for sample in samples():
        _equal(update(method, sample), update(method, sample, Memory(seed=5)), sample, "with another seed")


def _separate(method: Method) -> None:
    """Two runs that differ in nothing but the other tasks and the losses of the moment."""
    past = list(course(3, 4))
    for chosen in range(3):
        whole, alone = Memory(), Memory()
        for number, sample in enumerate(past):
            update(method, sample, whole, number)
            update(method, sample.rows([chosen]), alone, number, (NAMES[chosen],))
        now = past[-1].rows([chosen])
        later = Sample("other losses of the moment", now.jacobian, 3 * now.losses)
        expected = update(method, now, whole, len(past), (NAMES[chosen],))
        _equal(expected, update(method, later, alone, len(past), (NAMES[chosen],)), now, "by itself")


def _equal(expected: Tensor, made: Tensor, sample: Sample, how: str) -> None:
    within = _CLOSE * max(float(expected.abs().max()), sample.scale)
    demand(close(made, expected, within), f"on {sample} the update is {text(expected)}; {how} {text(made)}")


BY_PROPERTY: Mapping[Property, Callable[[Method], None]] = {
    Property.EQUIVARIANT: _equivariant,
    Property.HOMOGENEOUS: _homogeneous,
    Property.SCALE_FREE: _scale_free,
    Property.TASK_SCALE_FREE: _task_scale_free,
    Property.NON_CONFLICTING: _non_conflicting,
    Property.DUPLICABLE: _duplicable,
    Property.SINGLE: _single,
    Property.STRONGLY_STATIONARY: _strongly_stationary,
    Property.MEMORYLESS: _memoryless,
    Property.DETERMINISTIC: _deterministic,
    Property.SEPARATE: _separate,
}
