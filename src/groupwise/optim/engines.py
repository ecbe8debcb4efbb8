"""The engines of a plan, and one step of them all.

Groups are gathered by algorithm as they stand now, so edited, replaced or added groups are obeyed. Arguments that a
class keeps on itself instead of in its groups set engines apart, too, and so do those that it does not read group by
group (`apart`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import torch

from groupwise import _torch
from groupwise._shards import is_sharded
from groupwise.errors import OptimizerError, unknown
from groupwise.optim.algorithms import TorchAlgorithms
from groupwise.optim.borrowed import Groups, run_on, unhooked_step
from groupwise.optim.extra import construct, values_of
from groupwise.optim.fresh_state import FreshState
from groupwise.optim.gradients import Present
from groupwise.optim.kernels import FusableCache, with_fused
from groupwise.optim.late_entries import LateEntries
from groupwise.optim.measured_rates import measured_rates
from groupwise.optim.parts import PartedSteps
from groupwise.optim.probe import ProbeResult
from groupwise.optim.separable import separable
from groupwise.optim.shards import any_sharded, one_by_one, with_local_tensors
from groupwise.optim.step_program import StepProgram, has_program
from groupwise.plan import Resolution

State: TypeAlias = MutableMapping[torch.Tensor, Any]
Call: TypeAlias = Callable[[Groups, State], None]

_MANY = 64  # trainers that step group after group show a few lists of groups in turn


class _Bucket(NamedTuple):
    """Groups that one engine steps together, by their places in a list of groups."""

    algorithm: str
    own: object
    places: list[int]
    program: StepProgram

    def of(self, groups: Groups) -> Groups:
        """The groups of the bucket."""
        return groups if len(self.places) == len(groups) else [groups[i] for i in self.places]


class Engines:
    """Lazily built engines, one for each algorithm (and each set of values that its class keeps on itself)."""

    def __init__(self, algorithms: TorchAlgorithms, probed: Mapping[str, ProbeResult], resolution: Resolution) -> None:
        self._algorithms = algorithms
        self._engines: dict[object, torch.optim.Optimizer] = {}
        self._apart: dict[object, bool] = {}
        self._known: dict[tuple[object, ...], list[_Bucket]] = {}
        self._probed: dict[str, ProbeResult] = {}
        self._constructor_only: dict[str, set[str]] = {}
        self._parted = PartedSteps(resolution) if any(group.parts for group in resolution.groups) else None
        self._parts: dict[object, int] = {name: result.part for name, result in probed.items() if result.part}
        self._measured = measured_rates(resolution)
        self._late = LateEntries(FreshState(algorithms))
        for group in resolution.groups:
            if group.algorithm is not None:
                self._probed.setdefault(group.algorithm, probed[group.name])
                self._constructor_only.setdefault(group.algorithm, {"differentiable"}).update(
                    probed[group.name].constructor_only
                )
        self._fusable = _caches(self._probed)
        self._deciding = "algorithm", "name", *sorted(set().union(*self._constructor_only.values()))

    def step(
        self, groups: Groups, state: State, route: str, everything: Groups, present: Present | None = None
    ) -> None:
        """One update of `groups` (frozen ones already left out); those that name no algorithm take `route`.

        `everything` are the live groups of all networks: rates that follow measurements may compare them. `present` is
        what `present_in(groups)` would find, if that is known already.
        """
        if self._measured is None:
            self._step_all(groups, state, route, present)
        else:
            call = functools.partial(self._step_all, groups, state, route)
            self._measured.step(groups, everything, state, call)

    def _step_all(self, groups: Groups, state: State, route: str, present: Present | None = None) -> None:
        for bucket in self._arranged(groups, route):
            algorithm, own, members = bucket.algorithm, bucket.own, bucket.of(groups)
            if not self._runs_directly(bucket, members, state, present):
                if not torch.compiler.is_compiling():
                    self._late.add(members, state)
                call: Call = functools.partial(self._step, algorithm, own)
                call = call if self._parted is None else self._parted.around(call, members)
                self._plainly(algorithm, own, members, state, call)

    def _runs_directly(self, bucket: _Bucket, members: Groups, state: State, present: Present | None) -> bool:
        """Step these groups by a program; False where it is the class's own step that has to do it."""
        cls = self._algorithms.class_of(bucket.algorithm)
        if torch.compiler.is_compiling() or not has_program(cls):
            return False
        if self._parted is not None and self._parted.takes_apart(members):
            return False
        return bucket.program.run(cls, members, state, None if present is None else present.of(bucket.places))

    def _arranged(self, groups: Groups, route: str) -> list[_Bucket]:
        """The buckets of some groups; known from an earlier step if nothing that decides it is another."""
        if torch.compiler.is_compiling():  # before a look at what is kept, which would be traced as a constant
            return self._buckets(groups, route)
        try:
            key = (route, *map(itemgetter(*self._deciding), groups))
        except KeyError:  # of a class that has not all of the keys
            key = (route, *(tuple(group.get(name, route) for name in self._deciding) for group in groups))
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MANY:
                self._known.clear()
            found = self._known[key] = self._buckets(groups, route)
        return found

    def switch(self, mode: str, groups: Groups, state: State) -> None:
        """Call `train` or `eval` of every engine that has it, on the live groups and state."""
        for bucket in self._buckets(groups, next(iter(self._probed))):
            members = bucket.of(groups)
            engine = self._engine(bucket.algorithm, bucket.own, members[0])
            if callable(getattr(engine, mode, None)):
                call = functools.partial(_switch, engine, mode)
                self._plainly(bucket.algorithm, bucket.own, members, state, call)

    def loaded(self, groups: Groups, state: State, route: str, saved: Mapping[str, Any]) -> None:
        """Let every class finish the loading of its part of `saved`, the checkpoint laid out for `groups`.

        Classes bring old checkpoints up to date in `__setstate__`, and have a `load_state_dict` of their own to keep
        what torch's would cast (half-precision moments, masks, queues).
        """
        self._late.forget()
        ids = {p: i for i, p in enumerate(p for group in groups for p in group["params"])}
        for bucket in self._buckets(groups, route):
            members = bucket.of(groups)
            held = [ids[p] for group in members for p in group["params"] if p in state]
            part = {
                "state": {i: saved["state"][i] for i in held if i in saved["state"]},
                "param_groups": [group | {"params": [ids[p] for p in group["params"]]} for group in members],
            }
            engine = self._engine(bucket.algorithm, bucket.own, members[0])
            run_on(engine, members, state, functools.partial(_load, part))

    def _step(self, algorithm: str, own: object, members: Groups, state: State) -> None:
        cls, probed = self._algorithms.class_of(algorithm), self._probed[algorithm]
        if probed.allocates_in_init:
            _make_state(cls, self._algorithms[algorithm].defaults, members, state)
        engine, cache = self._engine(algorithm, own, members[0]), self._fusable[algorithm]
        with contextlib.nullcontext() if probed.takes_dense else _sparse_zeros(members):
            run_on(engine, with_fused(cls, members, state, cache), state, unhooked_step)

    def _plainly(self, algorithm: str, own: object, members: Groups, state: State, call: Call) -> None:
        """`call(members, state)` on plain tensors: sharded parameters as this rank's parts, or whole."""
        if not any_sharded(members):
            call(members, state)
            return
        whole = not self._separable(algorithm, own, members)
        apart = whole and ":" not in algorithm  # torch's classes keep nothing that ties parameters together
        extra_state = {key: value for key, value in state.items() if not isinstance(key, torch.Tensor)}
        for part in one_by_one(members) if apart else [members]:
            with_local_tensors(part, state, extra_state, whole, call)

    def _separable(self, algorithm: str, own: object, members: Groups) -> bool:
        """Whether the algorithm may step the shards of these groups where they are.

        Tried out once for each rank of the tensors and each way in which the groups switch the class.
        """
        cls, arguments = self._algorithms.engine_of(algorithm), self._algorithms[algorithm].defaults
        for group in members:
            held = values_of(group, arguments)
            switches = {k: v for k, v in held.items() if k not in arguments or isinstance(v, bool | str | None)}
            values = {k: v for k, v in self._values(algorithm, group).items() if k in arguments} | switches
            for rank in {p.ndim for p in group["params"] if is_sharded(p)}:
                key = algorithm, own, rank, tuple(switches.items())
                if key not in self._apart:
                    self._apart[key] = separable(cls, values, rank)
                if not self._apart[key]:
                    return False
        return True

    def _buckets(self, groups: Groups, route: str) -> list[_Bucket]:
        places: dict[tuple[str, object], list[int]] = {}
        for i, group in enumerate(groups):
            algorithm = group.get("algorithm", route)
            if algorithm not in self._probed:
                raise OptimizerError(f"group {group.get('name')!r}: {unknown('algorithm', algorithm, self._probed)}")
            own = self._parts.get(group.get("name")), *map(group.get, self._constructor_only[algorithm])
            places.setdefault((algorithm, own), []).append(i)
        return [_Bucket(algorithm, own, held, StepProgram()) for (algorithm, own), held in places.items()]

    @_torch.untraced
    def _engine(self, algorithm: str, own: object, group: Mapping[str, Any]) -> torch.optim.Optimizer:
        if (algorithm, own) not in self._engines:
            cls, placeholder = self._algorithms.engine_of(algorithm), torch.nn.Parameter(torch.zeros((2, 2)))
            self._engines[algorithm, own] = construct(cls, [placeholder], self._values(algorithm, group))
            self._engines[algorithm, own].state.clear()
        return self._engines[algorithm, own]

    def _values(self, algorithm: str, group: Mapping[str, Any]) -> dict[str, Any]:
        """What to build the class with: the probe's values, since what the group holds now may be an lr of 0."""
        probed, arguments = self._probed[algorithm], self._algorithms[algorithm].defaults
        kept = {name: group[name] for name in self._constructor_only[algorithm] if name in group}
        values = {name: value for name, value in probed.hyperparameters.items() if name in arguments}
        return {**values, **{name: probed.hyperparameters[name] for name in probed.extra}, **kept}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}, "_fusable": _caches(self._probed), "_known": {}}


def _caches(algorithms: Iterable[str]) -> dict[str, FusableCache]:
    """One for each algorithm, empty. They are there before a step, which may be compiled."""
    return {algorithm: FusableCache() for algorithm in algorithms}


def _switch(engine: torch.optim.Optimizer, mode: str, groups: Groups, state: State) -> None:
    """Call `train` or `eval` of an algorithm, on these groups and their state."""
    run_on(engine, groups, state, lambda borrowed: getattr(borrowed, mode)())


def _load(part: dict[str, Any], engine: torch.optim.Optimizer) -> None:
    """Load `part` into these groups and their state as the algorithm's class would."""
    groups, state = engine.param_groups, engine.state
    if type(engine).load_state_dict is torch.optim.Optimizer.load_state_dict:
        engine.__setstate__({})
        return
    engine.load_state_dict(part)
    state.update(engine.state)
    for group, loaded in zip(groups, engine.param_groups, strict=True):
        group.update(loaded | {"params": group["params"]})


def _make_state(
    cls: type[torch.optim.Optimizer], arguments: Mapping[str, object], groups: Groups, state: State
) -> None:
    """For a class whose constructor makes the state: have it made for the parameters that have none yet."""
    for group in groups:
        bare = [p for p in group["params"] if p.grad is not None and not state.get(p)]
        if bare:
            state.update(construct(cls, bare, values_of(group, arguments)).state)


@contextlib.contextmanager
def _sparse_zeros(groups: Groups) -> Iterator[None]:
    """Let a sparse-only algorithm pass over dense zeros at lr 0: what DCP hands out to have the state made."""
    idle = (
        p for group in groups if not isinstance(lr := group["lr"], torch.Tensor) and lr == 0 for p in group["params"]
    )
    dense = [(p, p.grad) for p in idle if p.grad is not None and p.grad.layout == torch.strided and not p.grad.any()]
    try:
        for p, _ in dense:
            p.grad = torch.zeros_like(p).to_sparse(1)
        yield
    finally:
        for p, gradient in dense:
            p.grad = gradient
