"""A run as the panels and the verdict ask of it: what was recorded of every group, task or pair, by name."""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

from groupwise.records import Clip, Run, Series

ByName: TypeAlias = Mapping[str, Series]
Pair: TypeAlias = tuple[str, str]
Section: TypeAlias = Literal["groups", "values", "tasks"]

WARM_UP: Final = 0.2
"""The share of a run at its start that thresholds for clipping leave out."""


@final
class Reading:
    """What the report reads from `run`, each series once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.groups = list(dict.fromkeys([*(group.name for group in run.groups), *run.names("groups")]))
        self.steps = run.steps
        self._kept: dict[tuple[str, str], ByName] = {}

    @functools.cached_property
    def hyperparameters(self) -> list[str]:
        """The hyperparameters of any group, `lr` first."""
        names = dict.fromkeys(key for group in self.run.names("values") for key in self.run.names("values", group))
        return sorted(names, key=lambda name: name != "lr")

    def statistic(self, name: str) -> ByName:
        """A statistic of every group that has it."""
        return self._once("groups", self.groups, name)

    def values(self, hyperparameter: str) -> ByName:
        """A hyperparameter of every group that has it."""
        return self._once("values", self.run.names("values"), hyperparameter)

    def tasks(self, number: str) -> ByName:
        """A number of every task that has it: "loss", "weight"."""
        return self._once("tasks", self.run.tasks, number)

    @functools.cached_property
    def scalars(self) -> ByName:
        """What was logged by name."""
        return _told({name: self.run.series("scalars", name) for name in self.run.names("scalars")})

    @functools.cached_property
    def cosines(self) -> Mapping[Pair, Series]:
        """The cosine of every pair of tasks."""
        pairs: list[Pair] = self.run.names("cosines")
        found = {pair: self.run.series("cosines", *pair) for pair in pairs}
        return {pair: series for pair, series in found.items() if len(series.steps)}

    @functools.cached_property
    def shares(self) -> Mapping[str, ByName]:
        """Of every task, its share of the gradient norm in each group, weighted where task weights were recorded."""
        raw = {
            task: _told({group: self.run.series("shares", task, group) for group in self.run.names("shares", task)})
            for task in self.run.names("shares")
        }
        return weighted(raw, self.tasks("weight")) if self.weighted else raw

    @property
    def weighted(self) -> bool:
        """Whether every task with shares has a weight at some step."""
        return set(self.run.names("shares")) <= set(self.tasks("weight"))

    @functools.cached_property
    def noise(self) -> Series | None:
        """The gradient noise scale of the whole model, where it was recorded."""
        return self.scalars.get("noise_scale")

    @functools.cached_property
    def clips(self) -> Mapping[str, Clip]:
        """How each group is clipped, where the run says so."""
        return {group.name: group.clip for group in self.run.groups if group.clip is not None}

    @functools.cached_property
    def scopes(self) -> Mapping[str, list[str]]:
        """The groups of every clip scope; a group whose scope is not told is one of its own, if it has a factor."""
        scopes: dict[str, list[str]] = {}
        for group in self.statistic("clip_factor"):
            scopes.setdefault(self.clips[group].scope if group in self.clips else group, []).append(group)
        return scopes

    @property
    def finished(self) -> bool:
        """Whether the run says that it came to its end."""
        return any(event.event == "finished" for event in self.run.events)

    def _once(self, section: Section, names: Sequence[str], key: str) -> ByName:
        if (section, key) not in self._kept:
            self._kept[section, key] = _told({name: self.run.series(section, name, key) for name in names})
        return self._kept[section, key]

    def clipped(self, scope: str) -> Series:
        """At each step, the factor of the groups of a scope that was clipped most."""
        return _combined([self.statistic("clip_factor")[group] for group in self.scopes[scope]], min)

    def norm(self, scope: str) -> Series:
        """At each step, the joint norm of a scope's gradients before clipping."""
        norms = [self.statistic("grad_norm")[g] for g in self.scopes[scope] if g in self.statistic("grad_norm")]
        return _combined(norms, lambda found: math.hypot(*found))


def weighted(shares: Mapping[str, ByName], weights: ByName) -> Mapping[str, ByName]:
    """Shares times the size of their step's weights, made to sum to 1 again; 1 stands where there is no weight."""
    sizes = {task: {step: abs(weight) for step, weight in zip(*weights[task], strict=True)} for task in shares}
    pulls = {
        task: {
            group: Series(found.steps, array("d", (v * sizes[task].get(t, 1.0) for t, v in zip(*found, strict=True))))
            for group, found in groups.items()
        }
        for task, groups in shares.items()
    }
    totals: dict[tuple[str, int], float] = {}
    for groups in pulls.values():
        for group, found in groups.items():
            for step, pull in zip(*found, strict=True):
                totals[group, step] = totals.get((group, step), 0.0) + pull
    return {
        task: {
            group: Series(
                found.steps, array("d", (v / (totals[group, t] or math.nan) for t, v in zip(*found, strict=True)))
            )
            for group, found in groups.items()
        }
        for task, groups in pulls.items()
    }


def _told(series: ByName) -> ByName:
    return {name: found for name, found in series.items() if len(found.steps)}


def _combined(many: Sequence[Series], combine: Callable[[list[float]], float]) -> Series:
    """One series from several, over the steps of any of them."""
    at: dict[int, list[float]] = {}
    for series in many:
        for step, value in zip(*series, strict=True):
            at.setdefault(step, []).append(value)
    steps = sorted(at)
    values = (combine(at[step]) for step in steps)
    return Series(array("q", steps), array("d", values))
