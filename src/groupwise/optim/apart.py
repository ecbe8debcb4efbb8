"""Settings that a class does not read group by group.

Prodigy takes betas and `d_coef` from its first group for all of them; others take the largest lr, or refuse groups that
differ. Nobody declares it, so it is tried out: with two values a and b of one setting, a class that reads it group by
group moves a tensor otherwise under a than under b, in the first group and in the second, whatever the other group has.
Where alone the value matters and in company it does not, the groups that differ in it get engines of their own: they
are stepped as by an optimizer each, and what the table shows is what is done. torch's own classes read all of theirs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch

from groupwise.errors import OptimizerError, ResolutionError, listed
from groupwise.optim.algorithms import TorchAlgorithms, hyperparameters_of
from groupwise.optim.borrowed import unhooked_step
from groupwise.optim.extra import construct
from groupwise.optim.probe import ProbeResult, Refusal, make_ready, trains
from groupwise.plan import Group, Resolution
from groupwise.plan.algorithm import PERFORMANCE
from groupwise.plan.mistakes import Mistakes

_STEPS = 4

Probed = dict[str, ProbeResult]
Values = Mapping[str, Any]


def set_apart(
    resolution: Resolution, algorithms: TorchAlgorithms, probed: Probed, mistakes: Mistakes
) -> tuple[Probed, list[str]]:
    """The probe results with the part that each group belongs to, and a remark for each algorithm that has parts.

    Collects a `ResolutionError` for groups that differ in what the class refuses to have differ.
    """
    remarks = []
    for algorithm in dict.fromkeys(group.algorithm for group in resolution.groups if group.algorithm is not None):
        cls = algorithms.engine_of(algorithm)
        groups = [g for g in resolution.groups if g.algorithm == algorithm and g.name in probed and trains(g)]
        if cls.__module__.startswith("torch.optim.") or len(groups) < 2:
            continue
        shared = [
            name for name in _differing(groups, probed) if _is_shared(cls, name, groups, probed, algorithm, mistakes)
        ]
        if shared:
            parts = _parts(groups, shared, probed)
            for i, part in enumerate(parts):
                probed |= {group.name: replace(probed[group.name], part=i) for group in part}
            apart = "; ".join(listed((group.name for group in part), 4) for part in parts)
            remarks.append(
                f"{algorithm} does not read {listed(shared)} group by group, so groups that differ in it are stepped "
                f"apart, as by an optimizer each: {apart}"
            )
    return probed, remarks


def _differing(groups: Sequence[Group], probed: Probed) -> list[str]:
    """The hyperparameters of the groups' dicts in which the groups differ."""
    declared = dict.fromkeys(chain.from_iterable(group.settings for group in groups))
    return [
        name
        for name in declared
        if name not in PERFORMANCE
        and not any(name in probed[group.name].constructor_only for group in groups)
        and len(_distinct(groups, name, probed)) > 1
    ]


def _distinct(groups: Iterable[Group], name: str, probed: Probed) -> list[object]:
    """The different settings of one name, by group; a class default where a group has none."""
    return list(dict.fromkeys(_setting(group, name, probed) for group in groups))


def _setting(group: Group, name: str, probed: Probed) -> object:
    setting = group.settings.get(name)
    constant = setting is None or not setting.schedules
    return _hashable(probed[group.name].hyperparameters.get(name)) if constant else setting


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _parts(groups: Sequence[Group], names: Sequence[str], probed: Probed) -> list[list[Group]]:
    parts: dict[object, list[Group]] = {}
    for group in groups:
        parts.setdefault(tuple(_setting(group, name, probed) for name in names), []).append(group)
    return list(parts.values())


def _is_shared(
    cls: type[torch.optim.Optimizer],
    name: str,
    groups: Sequence[Group],
    probed: Probed,
    algorithm: str,
    mistakes: Mistakes,
) -> bool:
    """Whether groups of a class that differ in `name` have to be stepped apart; refused if it refuses them."""
    groups = [group for group in groups if name in probed[group.name].hyperparameters]  # an extra key is not in all
    if len(groups) < 2:
        return False
    first = probed[groups[0].name]
    arguments = {*hyperparameters_of(cls), *first.extra}
    base = {key: value for key, value in first.hyperparameters.items() if key in arguments}
    one, other = _two_values([probed[group.name].hyperparameters[name] for group in groups])
    rank = 2 if any(info.ndim == 2 for group in groups for info in group.pieces) else groups[0].pieces[0].ndim
    verdicts = []
    with mistakes.collecting(), _refused_for(algorithm, name, groups):
        verdicts.append(is_shared(cls, base, name, (one, other), rank))
    return any(verdicts)


@contextlib.contextmanager
def _refused_for(algorithm: str, name: str, groups: Sequence[Group]) -> Iterator[None]:
    try:
        yield
    except OptimizerError as error:
        names = listed(repr(group.name) for group in groups)
        raise ResolutionError(
            f"{algorithm} refuses groups that differ in {name}, as {names} do: {error}; give all of them one {name}, "
            "or each part a class of its own, an empty subclass"
        ) from error


def _two_values(values: Sequence[Any]) -> tuple[Any, Any]:
    """Two of the values that differ; where only their schedules do, the value and its half."""
    other = next((value for value in values if value != values[0]), None)
    return values[0], values[0] / 2 if other is None and isinstance(values[0], float) else other


def is_shared(cls: type[torch.optim.Optimizer], base: Values, name: str, values: tuple[Any, Any], rank: int) -> bool:
    """Whether a group's value of `name` can go unread beside another group's, though it matters to the class alone.

    Args:
        base: the other hyperparameters, as a group dict holds them.
        values: two different values.
        rank: the number of dimensions of the tensors.

    Raises:
        OptimizerError: the class takes two groups with either value, and not one with each.
    """
    a, b = values
    alone = [_moved(cls, base, name, [value], rank)[0] for value in values]
    same = [_moved(cls, base, name, [value, value], rank)[0] for value in values]
    if not all(alone) or not all(same) or torch.equal(alone[0][0], alone[1][0]):
        return False
    (first, refusal), (second, other) = (_moved(cls, base, name, pair, rank) for pair in ((a, b), (b, a)))
    if refusal or other:
        raise OptimizerError(refusal or other)
    of_a, of_b = same
    unread = ((of_a[0], second[0]), (first[0], of_b[0]), (of_a[1], first[1]), (second[1], of_b[1]))
    return any(torch.equal(one, two) for one, two in unread)


def _moved(
    cls: type[torch.optim.Optimizer], base: Values, name: str, values: Sequence[Any], rank: int
) -> tuple[list[torch.Tensor], str]:
    """A tensor for each of these values of `name`, after some steps as groups of one engine; or why not."""
    tensors = [torch.nn.Parameter(_start(rank) + 0.1 * i) for i in range(len(values))]
    with torch.random.fork_rng(devices=[]), torch.no_grad(), Refusal() as attempt:
        torch.manual_seed(0)
        engine, *others = [construct(cls, [t], {**base, name: value}) for t, value in zip(tensors, values, strict=True)]
        for other in others:
            engine.param_groups += other.param_groups
            engine.state.update(other.state)
        make_ready(engine)
        for step in range(_STEPS):
            for tensor in tensors:
                tensor.grad = torch.cos(tensor) + 1 + step
            unhooked_step(engine)
    return ([], attempt.reason) if attempt.refused else ([t.detach() for t in tensors], "")


def _start(rank: int) -> torch.Tensor:
    return torch.sin(torch.arange(2.0**rank, dtype=torch.float64) + 1).reshape((2,) * rank)
