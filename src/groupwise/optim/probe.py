"""Trying a group out before the first step.

The class itself knows best what it refuses: a negative lr, a bias under Muon, a sparse gradient under AdamW. So each
distinct group is built once on a small likeness of each kind of parameter in it (`likeness`), with its values at their
start, peak and end, and takes one step; what the class complains about is raised with the group's rules and a parameter
named. The same probe shows what a live group dict of the class holds, and how the class behaves.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, TypeAlias

import torch

from groupwise._torch import without_dynamo
from groupwise.errors import OptimizerError, ResolutionError
from groupwise.optim.algorithms import TorchAlgorithms
from groupwise.optim.borrowed import unhooked_step
from groupwise.optim.extra import AskedGroup, construct, extra_of
from groupwise.optim.likeness import LARGEST, Likeness, likenesses
from groupwise.plan import Group, Resolution, Setting
from groupwise.plan.mistakes import Mistakes
from groupwise.select import ParameterInfo

_UNBOUNDED = ("lr", "weight_decay")
_STEPS_MORE = 2  # after which an attribute that no step makes anew shows

RATE_FACTOR: Final = "rate_factor"
"""The key of what measured factors multiplied a live group's rate by in its last step: of no dimension."""

OURS: Final = ("params", "param_names", "name", "algorithm", "network", "frozen", "declared", RATE_FACTOR)
"""The keys of a live group that are no hyperparameters."""

Build: TypeAlias = Callable[[torch.nn.Parameter], torch.optim.Optimizer]
Shape: TypeAlias = tuple[int | None, ...]
"""A shape made from a parameter's: for each size the axis whose size it is, None for 1."""


@dataclass(frozen=True)
class ProbeResult:
    """What a class makes of a group: the hyperparameters that its group dict holds, all plain values, at their peak.

    `constructor_only` are the declared ones that the class keeps on itself instead. `takes_dense` is whether it takes
    dense gradients; `allocates_in_init` whether its constructor makes the state (Adagrad). Groups of another `part` get
    an engine of their own (`apart`). `extra` are the declared keys that its constructor does not take, `asked` those
    that it asked the group for.
    """

    hyperparameters: Mapping[str, Any]
    constructor_only: frozenset[str]
    takes_dense: bool
    allocates_in_init: bool
    part: int = 0
    extra: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()


def probe(resolution: Resolution, algorithms: TorchAlgorithms, mistakes: Mistakes) -> dict[str, ProbeResult]:
    """One `ProbeResult` for each group that has an algorithm and is not refused, by group name.

    Groups that differ alone in constant factors of lr or weight_decay, which are bounded below only, are tried once: a
    factor is never negative. Refusals go to `mistakes`, each as a `ResolutionError` that names group and parameter.
    """
    probed: dict[str, ProbeResult] = {}
    known: dict[object, ProbeResult] = {}
    classes: dict[str, type[torch.optim.Optimizer]] = {}
    given: dict[object, int] = {}  # what classes are given besides parameters, numbered
    built: set[object] = set()  # the shapes that a constructor has seen, with what it was given
    extra: dict[object, frozenset[str]] = {}
    for group in resolution.groups:
        if group.algorithm is None:
            continue
        if group.algorithm not in classes:
            classes[group.algorithm] = without_dynamo(algorithms.engine_of(group.algorithm))
        cls = classes[group.algorithm]
        unscaled = {name: s.unscaled if name in _UNBOUNDED else s for name, s in group.settings.items()}
        own: dict[str, Any] = {}
        with _refused_for(resolution, group, group.parameters, mistakes):
            own = _peaks({name: s for name, s in group.settings.items() if s is not unscaled[name]})
        number = given.setdefault((group.algorithm, trains(group), *unscaled.items()), len(given))
        for likeness, (infos, shapes) in _kinds(group).items():
            key = number, likeness
            with _refused_for(resolution, group, infos, mistakes):
                if key not in known:
                    known[key] = _probe_parameter(cls, unscaled, likeness, next(iter(shapes)), trains(group))
                if not known[key].allocates_in_init:
                    new = {whole: of_shape for whole, of_shape in shapes.items() if (number, whole) not in built}
                    built.update((number, whole) for whole in new)
                    if new:
                        _check_shapes(resolution, group, new, cls, mistakes)
                names = group.algorithm, *group.settings
                if names not in extra:
                    extra[names] = frozenset(extra_of(group, algorithms))
                before = probed.get(group.name)
                probed[group.name] = replace(
                    known[key],
                    hyperparameters=_of_group(known[key].hyperparameters, own),
                    extra=extra[names],
                    asked=known[key].asked if before is None else known[key].asked | before.asked,
                )
    return probed


def _of_group(held: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What a class holds, with a group's own values in the form that it gives them: some keep a rate in a tensor."""
    made = {**held, **own}
    for name, value in held.items():
        if isinstance(value, torch.Tensor):
            made[name] = torch.full_like(value, own[name]) if name in own else value.clone()
    return made


def _kinds(group: Group) -> dict[Likeness, tuple[list[ParameterInfo], dict[Likeness, list[ParameterInfo]]]]:
    """The parameters of a group by what a class may tell apart: those of each kind, and the same by their own shape."""
    kinds: dict[Likeness, tuple[list[ParameterInfo], dict[Likeness, list[ParameterInfo]]]] = {}
    train = trains(group)
    for info in group.pieces:
        small, whole = likenesses(info, train)
        infos, shapes = kinds.setdefault(small, ([], {}))
        infos.append(info)
        shapes.setdefault(whole, []).append(info)
    return kinds


def trains(group: Group) -> bool:
    """Whether it trains at any time, as far as the plan says."""
    return group.parameters[0].requires_grad if group.timeline is None else not group.timeline.never


def _probe_parameter(
    cls: type[torch.optim.Optimizer],
    settings: Mapping[str, Setting],
    likeness: Likeness,
    own: Likeness,
    trains: bool,
) -> ProbeResult:
    """Probe a likeness; if it is refused, ask the parameter's own shape, whose answer counts.

    What never trains gets no gradient, so it may stand under a class that takes no sparse one.
    """
    with Refusal():
        return _probe(cls, settings, likeness)
    if likeness.sparse and not trains:
        return _probe_parameter(cls, settings, likeness.dense(), own.dense(), trains)
    if own.shape == likeness.shape:
        return _probe(cls, settings, likeness)
    peak: dict[str, Any] = {name: setting.peak for name, setting in settings.items()}
    construct(cls, [own.without_memory()], peak)
    return _probe(cls, settings, own if math.prod(own.shape) <= LARGEST else likeness)


def _check_shapes(
    resolution: Resolution,
    group: Group,
    shapes: Mapping[Likeness, Sequence[ParameterInfo]],
    cls: type[torch.optim.Optimizer],
    mistakes: Mistakes,
) -> None:
    """Let the constructor see these shapes, each with its parameters, of a kind of parameter."""
    first = next(iter(shapes.values()))[0]
    peak: dict[str, Any] = {name: setting.peak for name, setting in group.settings.items()}
    for own, of_shape in shapes.items():
        with _refused_for(resolution, group, of_shape, mistakes, alike=f"{group.name}, as {first.name}"):
            construct(cls, [own.without_memory()], peak)


def _peaks(settings: Mapping[str, Setting]) -> dict[str, Any]:
    peaks: dict[str, Any] = {name: setting.peak for name, setting in settings.items()}
    for name, peak in peaks.items():
        if peak == math.inf:
            raise OptimizerError(f"{name} = {settings[name]} is too large for a float")
    return peaks


def _probe(cls: type[torch.optim.Optimizer], settings: Mapping[str, Setting], likeness: Likeness) -> ProbeResult:
    for values in _key_values(settings):
        construct(cls, [likeness.parameter()], values)
    peak: dict[str, Any] = {name: setting.peak for name, setting in settings.items()}
    parameter, sparse = likeness.parameter(), likeness.sparse
    engine = construct(cls, [parameter], peak)
    held = {name: value for name, value in engine.param_groups[0].items() if name not in ("params", "param_names")}
    lost = [name for name, setting in settings.items() if setting.schedules and name not in held]
    if lost:
        raise OptimizerError(f"{cls.__name__} reads {lost[0]} once, when it is built, so it cannot be scheduled")
    ours = [name for name in OURS if name in held]
    if ours:
        raise OptimizerError(f"{cls.__name__} keeps {ours[0]!r} in its groups, where groupwise keeps another thing")
    allocates_in_init = bool(engine.state)
    asked = engine.param_groups[0] = _asked(engine.param_groups[0])
    _step(engine, parameter, sparse, lambda own: construct(cls, [own], peak))
    constructor_only = frozenset(peak) - frozenset(held)
    return ProbeResult(
        {**peak, **held},
        constructor_only,
        takes_dense=not sparse or _takes_dense(cls, peak, likeness),
        allocates_in_init=allocates_in_init,
        asked=frozenset(asked.asked),
    )


def _asked(group: dict[str, Any]) -> AskedGroup:
    return group if isinstance(group, AskedGroup) else AskedGroup(group)


def _key_values(settings: Mapping[str, Setting]) -> list[dict[str, Any]]:
    """The values at their first, second, … key value together; a setting with fewer stays at its last."""
    key_values = {name: setting.key_values for name, setting in settings.items()}
    if "lr" in key_values:  # a schedule may end at 0, which SparseAdam's constructor refuses and its step does not
        key_values["lr"] = tuple(rate for rate in key_values["lr"] if rate != 0) or key_values["lr"]
    longest = max((len(values) for values in key_values.values()), default=1)
    return [{name: values[min(i, len(values) - 1)] for name, values in key_values.items()} for i in range(longest)]


def _step(engine: torch.optim.Optimizer, parameter: torch.nn.Parameter, sparse: bool, anew: Build) -> None:
    """One step with a gradient of the layout that training will bring; refuse what hides its progress, or fires hooks.

    The step is taken on the CPU, where `capturable` kernels do not exist, so it is taken with the others.
    """
    fired = list[object]()
    _give_gradient(parameter, sparse)
    make_ready(engine)
    with contextlib.suppress(AttributeError):  # of a class that never called torch's constructor
        engine.register_step_pre_hook(lambda *_: fired.append(None))
    before = _outside(engine)
    with torch.no_grad():
        unhooked_step(engine)
    changed = sorted(name for name, now in _outside(engine).items() if not _is_same(before.get(name, engine), now))
    if changed and not _is_remade(changed, engine, parameter, sparse, anew):
        raise OptimizerError(
            f"{type(engine).__name__} keeps progress in its attribute {changed[0]!r}, outside state and param_groups, "
            "where no checkpoint and no regrouping can follow it"
        )
    if fired:
        raise OptimizerError(
            f"{type(engine).__name__}.step calls a parent's step by the parent's name, which fires every step hook a "
            "second time: let it call super().step() instead"
        )


def _give_gradient(parameter: torch.nn.Parameter, sparse: bool) -> None:
    gradient = torch.ones_like(parameter)
    parameter.grad = gradient.to_sparse(1) if sparse else gradient


def _is_remade(
    names: Sequence[str], engine: torch.optim.Optimizer, parameter: torch.nn.Parameter, sparse: bool, anew: Build
) -> bool:
    """Whether each step makes these attributes anew from state and group: an engine that was built since, and given
    both, goes on as this one does."""
    with Refusal():
        own = torch.nn.Parameter(parameter.detach().clone())
        other = anew(own)
        state, group = copy.deepcopy((dict(engine.state[parameter]), _without_params(engine.param_groups[0])))
        other.state[own] = state
        other.param_groups[0].update(group)
        make_ready(other)
        for stepped, held in [(engine, parameter), (other, own)] * _STEPS_MORE:
            _give_gradient(held, sparse)  # some classes take it away
            with torch.no_grad():
                unhooked_step(stepped)
        here, there = _outside(engine), _outside(other)
        return torch.equal(parameter, own) and all(_is_same(here.get(name), there.get(name)) for name in names)
    return False  # refused


def _without_params(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


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


def _takes_dense(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], likeness: Likeness) -> bool:
    """Whether a class that took a sparse gradient takes a dense one as well; SparseAdam does not."""
    parameter = likeness.parameter()
    engine = construct(cls, [parameter], values)
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


class Refusal:
    """Notes whether the code inside raised, and what it said, whatever it raised: the classes tried are anyone's."""

    refused = False
    reason = ""

    def __enter__(self) -> Refusal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.refused = isinstance(error, Exception)
        self.reason = (str(error) or type(error).__name__) if self.refused else ""
        return self.refused


@contextlib.contextmanager
def _refused_for(
    resolution: Resolution, group: Group, infos: Sequence[ParameterInfo], mistakes: Mistakes, alike: str = ""
) -> Iterator[None]:
    """Collect what a class complains about as a `ResolutionError` that names the group, its rules and a parameter."""
    try:
        yield
    except Exception as error:
        rules = ", ".join(f"{i + 1} {resolution.rules[i].label!r}" for i in group.rules)
        where = f"group {group.name!r} (rules {rules}), parameter {infos[0].name!r}: {group.algorithm} refuses"
        with mistakes.collecting(*(info.name for info in infos), alike=alike or f"{group.name}: {error}"):
            raise ResolutionError(f"{where}: {error} ({_kind(infos[0])}){_as_matrices(infos[0], error)}") from error


def _as_matrices(info: ParameterInfo, error: Exception) -> str:
    """The way out for a class that takes matrices alone, and is given more dimensions."""
    if info.ndim < 3 or "2D" not in str(error).replace("-", ""):
        return ""
    return (
        "; the plan can read it as matrices: parts=[Parts(…, stack=True)] for a batch of them, "
        "Parts(…, flatten=1) for the kernel of a convolution"
    )


def _kind(info: ParameterInfo) -> str:
    """The shape of a parameter, and its dtype where that is not the usual one."""
    dtype = "" if info.parameter is None else str(info.parameter.dtype).removeprefix("torch.")
    return f"its shape is {info.shape}" + (f", of {dtype}" if dtype not in ("", "float32") else "")
