"""Trying a group out before the first step.

The class itself knows best what it refuses: a negative lr, a bias under Muon, a sparse gradient under AdamW. So each
distinct group is built once on a tiny tensor of its parameters' rank, with its values at their start, peak and end, and
takes one step; what the class complains about is raised with the group's rules and a parameter named. The same probe
tells what a live group dict of the class holds, and how the class behaves (`Habits`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, TypeAlias

import torch

from groupwise.errors import OptimizerError, ResolutionError
from groupwise.optim.algorithms import TorchAlgorithms
from groupwise.optim.borrowed import unhooked_step
from groupwise.plan import Group, Resolution, Setting

_UNBOUNDED = ("lr", "weight_decay")

OURS: Final = ("params", "param_names", "name", "algorithm", "network", "frozen", "declared")
"""The keys of a live group that are no hyperparameters."""

Shape: TypeAlias = tuple[int | None, ...]
"""A shape made from a parameter's: for each size the axis whose size it is, None for 1."""


@dataclass(frozen=True)
class ProbeResult:
    """What a class makes of a group: the hyperparameters that its group dict holds, all plain values, at their peak.

    `constructor_only` are the declared ones that the class keeps on itself instead. `takes_dense` is whether it takes
    dense gradients; `allocates_in_init` whether its constructor makes the state (Adagrad).
    """

    hyperparameters: Mapping[str, Any]
    constructor_only: frozenset[str]
    takes_dense: bool
    allocates_in_init: bool


def probe(resolution: Resolution, algorithms: TorchAlgorithms) -> dict[str, ProbeResult]:
    """One `ProbeResult` for each group that has an algorithm, by group name. Raises `ResolutionError` naming the group.

    Groups that differ alone in constant factors of lr or weight_decay, which are bounded below only, are tried once: a
    factor is never negative.
    """
    probed: dict[str, ProbeResult] = {}
    seen: dict[object, ProbeResult] = {}
    for group in resolution.groups:
        if group.algorithm is None:
            continue
        cls = algorithms.engine_of(group.algorithm)
        unscaled = {name: s.unscaled if name in _UNBOUNDED else s for name, s in group.settings.items()}
        with _refused_for(resolution, group, group.parameters[0].name):
            own = _peaks({name: s for name, s in group.settings.items() if s != unscaled[name]})
        examples: dict[tuple[int, bool], str] = {}
        for info in group.parameters:
            examples.setdefault((info.ndim, info.sparse), info.name)
        for (rank, sparse), example in examples.items():
            key = (group.algorithm, tuple(unscaled.items()), rank, sparse)
            if key not in seen:
                with _refused_for(resolution, group, example):
                    seen[key] = _probe(cls, unscaled, rank, sparse)
            probed[group.name] = replace(seen[key], hyperparameters={**seen[key].hyperparameters, **own})
    return probed


def _peaks(settings: Mapping[str, Setting]) -> dict[str, Any]:
    peaks: dict[str, Any] = {name: setting.peak for name, setting in settings.items()}
    for name, peak in peaks.items():
        if peak == math.inf:
            raise OptimizerError(f"{name} = {settings[name]} is too large for a float")
    return peaks


def _probe(cls: type[torch.optim.Optimizer], settings: Mapping[str, Setting], rank: int, sparse: bool) -> ProbeResult:
    for values in _key_values(settings):
        cls([_tiny(rank)], **values)
    peak: dict[str, Any] = {name: setting.peak for name, setting in settings.items()}
    parameter = _tiny(rank)
    engine = cls([parameter], **peak)
    held = {name: value for name, value in engine.param_groups[0].items() if name not in ("params", "param_names")}
    lost = [name for name, setting in settings.items() if setting.schedules and name not in held]
    if lost:
        raise OptimizerError(f"{cls.__name__} reads {lost[0]} once, when it is built, so it cannot be scheduled")
    ours = [name for name in OURS if name in held]
    if ours:
        raise OptimizerError(f"{cls.__name__} keeps {ours[0]!r} in its groups, where groupwise keeps another thing")
    allocates_in_init = bool(engine.state)
    _step(engine, parameter, sparse)
    constructor_only = frozenset(peak) - frozenset(held)
    return ProbeResult(
        {**peak, **held},
        constructor_only,
        takes_dense=not sparse or _takes_dense(cls, peak, rank),
        allocates_in_init=allocates_in_init,
    )


def _key_values(settings: Mapping[str, Setting]) -> list[dict[str, Any]]:
    """The values at their first, second, … key value together; a setting with fewer stays at its last."""
    key_values = {name: setting.key_values for name, setting in settings.items()}
    if "lr" in key_values:  # a schedule may end at 0, which SparseAdam's constructor refuses and its step does not
        key_values["lr"] = tuple(rate for rate in key_values["lr"] if rate != 0) or key_values["lr"]
    longest = max((len(values) for values in key_values.values()), default=1)
    return [{name: values[min(i, len(values) - 1)] for name, values in key_values.items()} for i in range(longest)]


def _step(engine: torch.optim.Optimizer, parameter: torch.nn.Parameter, sparse: bool) -> None:
    """One step with a gradient of the layout that training will bring; refuse what hides its progress, or fires hooks.

    The step is taken on the CPU, where `capturable` kernels do not exist, so it is taken with the others.
    """
    gradient, fired = torch.ones_like(parameter), list[object]()
    parameter.grad = gradient.to_sparse(1) if sparse else gradient
    make_ready(engine)
    with contextlib.suppress(AttributeError):  # of a class that never called torch's constructor
        engine.register_step_pre_hook(lambda *_: fired.append(None))
    before = _outside(engine)
    with torch.no_grad():
        unhooked_step(engine)
    changed = sorted(name for name, now in _outside(engine).items() if not _is_same(before.get(name, engine), now))
    if changed:
        raise OptimizerError(
            f"{type(engine).__name__} keeps progress in its attribute {changed[0]!r}, outside state and param_groups, "
            "where no checkpoint and no regrouping can follow it"
        )
    if fired:
        raise OptimizerError(
            f"{type(engine).__name__}.step calls a parent's step by the parent's name, which fires every step hook a "
            "second time: let it call super().step() instead"
        )


def make_ready(engine: torch.optim.Optimizer) -> None:
    """Let an engine step on the CPU at once: without `capturable`, and with schedule-free classes set to train."""
    for group in engine.param_groups:
        group.update({"capturable": False} if "capturable" in group else {})
    if callable(getattr(engine, "train", None)):
        engine.train()  # type: ignore[attr-defined]


def _outside(engine: torch.optim.Optimizer) -> dict[str, object]:
    """What an engine keeps on itself besides state and groups."""
    ours = type(engine).__module__.startswith("torch.optim.")
    return (
        {} if ours else {name: value for name, value in vars(engine).items() if name not in ("state", "param_groups")}
    )


def _is_same(before: object, now: object) -> bool:
    plain = (bool, int, float, str)
    return before is now or (isinstance(before, plain) and isinstance(now, plain) and before == now)


def _takes_dense(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], rank: int) -> bool:
    """Whether a class that took a sparse gradient takes a dense one as well; SparseAdam does not."""
    parameter = _tiny(rank)
    engine = cls([parameter], **values)
    parameter.grad = torch.ones_like(parameter)
    make_ready(engine)
    with torch.no_grad(), Refusal() as dense:
        unhooked_step(engine)
    return not dense.refused


def shapes_of_state(cls: type[torch.optim.Optimizer], rank: int) -> dict[str, Shape]:
    """What a class keeps for a parameter of a rank: by entry its shape, each size as the axis that it is taken from.

    Seen at a step on a tensor whose sizes all differ. Nothing is known of a class that refuses the step, nor of ranks
    above 8, where such a tensor would be large.
    """
    if rank > 8:
        return {}
    parameter = torch.nn.Parameter(torch.ones(tuple(range(2, rank + 2)), device="cpu"))
    parameter.grad = torch.ones_like(parameter)
    build: Callable[..., torch.optim.Optimizer] = cls
    with torch.no_grad(), Refusal():
        engine = build([parameter])
        make_ready(engine)
        unhooked_step(engine)
        held = {key: value for key, value in engine.state[parameter].items() if isinstance(value, torch.Tensor)}
        axes = dict(zip(parameter.shape, range(rank), strict=True))
        return {key: tuple(axes.get(size) if size > 1 else None for size in t.shape) for key, t in held.items()}
    return {}  # refused


def _tiny(rank: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones((2,) * rank, device="cpu"))


class Refusal:
    """Notes whether the code inside raised, whatever it raised: the classes tried are anyone's."""

    refused = False

    def __enter__(self) -> Refusal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.refused = isinstance(error, Exception)
        return self.refused


@contextlib.contextmanager
def _refused_for(resolution: Resolution, group: Group, example: str) -> Iterator[None]:
    """Raise what a class complains about as a `ResolutionError` that names the group, its rules and a parameter."""
    try:
        yield
    except Exception as error:
        rules = ", ".join(f"{i + 1} {resolution.rules[i].label!r}" for i in group.rules)
        where = f"group {group.name!r} (rules {rules}), parameter {example!r}: {group.algorithm} refuses"
        raise ResolutionError(f"{where}: {error}") from error
