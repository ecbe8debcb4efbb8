"""Hypothesis strategies for lengths and schedules: one strategy per shape, one for them all.

Runs are 2 to 60 steps with 1 to 9 steps an epoch; lengths are drawn around those sizes, zero included.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from groupwise.schedules import (
    Length,
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    epochs,
    exponential,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    percent,
    piecewise,
    plateau,
    polynomial,
    step_decay,
    steps,
    triangular,
    warmup_stable_decay,
)

Strategy = st.SearchStrategy[Any]

numbers = st.floats(-10, 10, allow_subnormal=False)
positives = st.floats(1e-3, 10)
gammas = st.floats(0, 1.2, allow_subnormal=False)
fractions = st.floats(0, 1, allow_subnormal=False)
totals = st.integers(0, 60)
epoch_sizes = st.integers(1, 9)


def lengths(zero: bool = True) -> st.SearchStrategy[Length]:
    least = 0 if zero else 1
    return st.one_of(
        st.integers(least, 40).map(steps),
        st.floats(0 if zero else 0.01, 8, allow_subnormal=False).map(epochs),
        st.floats(0 if zero else 0.01, 100, allow_subnormal=False).map(percent),
    )


periods = lengths(zero=False)
spellings = st.one_of(lengths(), lengths().map(str))


def _sorted_points(draw: st.DrawFn) -> list[tuple[Length, float]]:
    unit = draw(st.sampled_from([steps, percent]))
    whens = sorted(draw(st.lists(st.integers(0, 60), min_size=1, max_size=5)))
    return [(unit(when), draw(numbers)) for when in whens]


points = st.composite(_sorted_points)()


def _with(strategy: Any, *positional: Strategy, **named: Strategy) -> st.SearchStrategy[Schedule]:
    """`strategy(*positional, **named)`, each name given or left to its default, `warmup` among them."""
    required = {name[1:]: arguments for name, arguments in named.items() if name.startswith("_")}
    optional = {name: arguments for name, arguments in named.items() if not name.startswith("_")}
    optional.setdefault("warmup", spellings)
    keywords = st.fixed_dictionaries(required, optional=optional)
    return st.builds(lambda first, rest: strategy(*first, **rest), st.tuples(*positional), keywords)


STRETCHES: dict[str, st.SearchStrategy[Schedule]] = {
    "linear": _with(linear, numbers, end=numbers, over=spellings),
    "cosine": _with(cosine, numbers, end=numbers, over=spellings),
    "polynomial": _with(polynomial, numbers, end=numbers, over=spellings, power=st.floats(0.1, 4)),
    "one_cycle": _with(
        one_cycle,
        numbers,
        rise=fractions,
        shape=st.sampled_from(["linear", "cosine"]),
        start_divisor=positives,
        end_divisor=positives,
        three_phase=st.booleans(),
        over=spellings,
    ),
    "warmup_stable_decay": _with(
        warmup_stable_decay,
        numbers,
        _decay=spellings,
        end=numbers,
        shape=st.sampled_from(["linear", "cosine", "sqrt"]),
        over=spellings,
    ),
}
OPEN: dict[str, st.SearchStrategy[Schedule]] = {
    "constant": _with(constant, numbers),
    "exponential": _with(exponential, numbers, gammas, every=periods),
    "step_decay": _with(step_decay, numbers, gammas, _every=periods),
    "multi_step": _with(multi_step, numbers, gammas, _at=st.lists(spellings, min_size=1, max_size=4)),
    "inverse_sqrt": _with(inverse_sqrt, numbers, timescale=periods),
    "triangular": _with(
        triangular,
        numbers,
        numbers,
        _up=periods,
        down=spellings,
        mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
        gamma=st.floats(0.5, 1),
    ),
    "cosine_restarts": _with(cosine_restarts, numbers, end=numbers, _first=periods, factor=st.integers(1, 3)),
    "piecewise": _with(piecewise, points, shape=st.sampled_from(["linear", "held"])),
    "plateau": _with(
        plateau,
        numbers,
        factor=st.floats(0, 0.9),
        patience=st.integers(0, 5),
        threshold=st.floats(0, 1),
        threshold_mode=st.sampled_from(["rel", "abs"]),
        mode=st.sampled_from(["min", "max"]),
        cooldown=st.integers(0, 5),
        floor=numbers,
        eps=st.floats(0, 1),
    ),
}
SHAPES = STRETCHES | OPEN
WITHIN_LANDMARKS = [*STRETCHES, "constant", "multi_step", "triangular", "cosine_restarts", "piecewise", "plateau"]

shapes = st.one_of(*SHAPES.values())


def _combined(inner: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    low, high = st.floats(-5, 0), st.floats(0, 5)
    return st.one_of(
        st.builds(lambda a, b, at: a.then(b, at=at), inner, inner, spellings),
        st.builds(lambda s, by: s.scaled(by), inner, st.one_of(numbers, inner)),
        st.builds(lambda s, low, high: s.clamped(low, high), inner, low, high),
        st.builds(lambda s, low: s.clamped(low=low), inner, low),
    )


schedules = st.recursive(shapes, _combined, max_leaves=5)
