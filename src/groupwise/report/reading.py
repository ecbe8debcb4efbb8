"""A run as the panels and the verdict ask of it: what was recorded of every group, task or pair, by name.

Groups stand in one order wherever they are shown: that of the run's own list, then any that only a step knows.
"""

from __future__ import annotations

import functools
import math
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

from groupwise.records import Clip, Group, Run, Series
from groupwise.report.numbers import median
from groupwise.report.plan_table import Rows, rows_of
from groupwise.report.usual_updates import Algorithm, algorithm

ByName: TypeAlias = Mapping[str, Series]
Pair: TypeAlias = tuple[str, str]
Section: TypeAlias = Literal["groups", "values", "tasks"]

WARM_UP: Final = 0.2
"""The share of a run at its start that thresholds leave out."""

FITS: Final = 0.02
"""A factor is that of a norm if it lies within 2 % of bound over norm."""

_JUDGE: Final = re.compile(r"(?:^|[^a-z])(?:d|disc|discriminator|critic)(?:$|[^a-z])")
_MAKER: Final = re.compile(r"(?:^|[^a-z])(?:g|gen|generator)(?:$|[^a-z])")
_LOSS: Final = re.compile(r"(?:^|[^a-z])(?:loss|nll|nelbo)(?:$|[^a-z])")


def is_loss(name: str) -> bool:
    """Whether a name says that it is of a loss."""
    return _LOSS.search(name.lower()) is not None


@final
class Reading:
    """What the report reads from `run`, each series once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        known = (group.name for group in run.groups)
        self.groups = list(dict.fromkeys([*known, *run.names("groups"), *run.names("values")]))
        self.steps = run.steps
        self._known: dict[tuple[str, str], ByName] = {}

    @property
    def of_keras(self) -> bool:
        """Whether a Keras fit wrote it, whose observer has no options but its cadence."""
        return self.run.header.writer.startswith("groupwise, keras ")

    def no_record(self, what: str, how: str) -> str:
        """What a panel says that has nothing to draw: `how` to record it, where that is possible.

        no_record("hold no `noise_scale`", ". Accumulate …")
        """
        return f"The records {what}{': an observed fit of Keras does not tell it.' if self.of_keras else how}"

    @functools.cached_property
    def hyperparameters(self) -> list[str]:
        """The hyperparameters of any group, `lr` first."""
        names = dict.fromkeys(key for group in self.run.names("values") for key in self.run.names("values", group))
        return sorted(names, key=lambda name: name != "lr")

    @functools.cached_property
    def described(self) -> Mapping[str, Group]:
        """What the run says of each group."""
        return {group.name: group for group in self.run.groups}

    def algorithm(self, group: str) -> Algorithm:
        """The family of algorithms that a group is run by."""
        return algorithm(self.described[group].algorithm if group in self.described else "")

    @functools.cached_property
    def networks(self) -> Mapping[str, list[str]]:
        """The groups of each network, where networks have names."""
        found: dict[str, list[str]] = {}
        for group in self.run.groups:
            if group.network:
                found.setdefault(group.network, []).append(group.name)
        return found

    @functools.cached_property
    def rivals(self) -> bool:
        """Whether the losses are of networks that work against each other: by the run's networks, or their names."""
        names = [name.lower() for name in (*self.run.tasks, *self.losses)]
        against = any(map(_JUDGE.search, names)) and any(map(_MAKER.search, names))
        return len(self.networks) > 1 or against

    @functools.cached_property
    def planned(self) -> Rows:
        """The rows of the plan's table, unless the groups were changed since."""
        changed = any(event.event == "groups" for event in self.run.events)
        return {} if changed else rows_of(self.run.header.table)

    def typical(self, statistic: str) -> Mapping[str, float]:
        """The median of a statistic of every group that has it, without the beginning of the run."""
        return {group: median(later(series)) for group, series in self.statistic(statistic).items()}

    def statistic(self, name: str) -> ByName:
        """A statistic of every group that has it."""
        return self._once("groups", self.groups, name)

    def values(self, hyperparameter: str) -> ByName:
        """A hyperparameter of every group that has it, as it was used: up to the last step, whenever it was written."""
        last = self.steps[-1] if len(self.steps) else 0
        return {
            group: _held(series, last) for group, series in self._once("values", self.groups, hyperparameter).items()
        }

    def tasks(self, number: str) -> ByName:
        """A number of every task that has it: "loss", "weight"."""
        return self._once("tasks", self.run.tasks, number)

    @functools.cached_property
    def scalars(self) -> ByName:
        """What was logged by name."""
        return _recorded({name: self.run.series("scalars", name) for name in self.run.names("scalars")})

    @functools.cached_property
    def losses(self) -> ByName:
        """What was logged by a name that says it is a loss, `loss` itself first."""
        names = sorted((name for name in self.scalars if is_loss(name)), key=lambda name: name != "loss")
        return {name: self.scalars[name] for name in names}

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
            task: _recorded({group: self.run.series("shares", task, group) for group in self._ordered(task)})
            for task in self.run.names("shares")
        }
        return weighted(raw, self.tasks("weight")) if self.weighted else raw

    def _ordered(self, task: str) -> list[str]:
        known = self.run.names("shares", task)
        return [*(group for group in self.groups if group in known), *(g for g in known if g not in self.groups)]

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
        """The groups that are clipped by one norm; those whose scope is not known, by their factors (`_alike`).

        A scope is several where the header says that a norm is each network's, or else where the records show it: the
        networks that it is clipped by, or its groups, if their factors are those of their own norms and not of the
        joint one.
        """
        clipped = [group for group in self.groups if group in self.statistic("clip_factor")]
        scopes: dict[str, list[str]] = {}
        for group in clipped:
            if group in self.clips:
                scopes.setdefault(self.clips[group].scope, []).append(group)
        scopes |= self._alike([group for group in clipped if group not in self.clips])
        return {name: groups for scope, members in scopes.items() for name, groups in self._parts(scope, members)}

    def is_joint(self, scope: str) -> bool:
        """Whether the recorded factors are those of the scope's joint norm (clipped by parts, they are not)."""
        return self._fits(self.scopes[scope])

    def _alike(self, groups: Sequence[str]) -> dict[str, list[str]]:
        """Groups that some clip outside a plan has multiplied by the same factors: several have one norm."""
        factors, scopes = self.statistic("clip_factor"), list[list[str]]()
        for group in groups:
            acted = any(value < 1 for value in factors[group].values)
            like = (scope for scope in scopes if acted and _same([factors[scope[0]], factors[group]], tolerance=1e-4))
            if (found := next(like, None)) is not None:
                found.append(group)
            else:
                scopes.append([group])
        return {_title(scope, len(self.groups)): scope for scope in scopes}

    def _parts(self, scope: str, members: list[str]) -> list[tuple[str, list[str]]]:
        networks: dict[str, list[str]] = {}
        for group in members:
            network = self.described[group].network if group in self.described else None
            networks.setdefault(network or group, []).append(group)
        per = self.clips[members[0]].per if members[0] in self.clips else None
        if per == "network" and len(networks) > 1:
            return [(f"{scope} of {name}", groups) for name, groups in networks.items()]
        several = "per network" in self.planned.get(members[0], {}).get("clip", "") and len(networks) > 1
        for parts in ({} if several else {"": members}, networks, {group: [group] for group in members}):
            if parts and all(map(self._fits, parts.values())):
                return [(f"{scope} of {name}" if name else scope, groups) for name, groups in parts.items()]
        return [(scope, members)]

    def _fits(self, groups: Sequence[str]) -> bool:
        """Whether groups were all multiplied by the factor that their joint norm gives."""
        factors = [self.statistic("clip_factor")[group] for group in groups]
        clip = self.clips.get(groups[0])
        if not _same(factors) or (clip is not None and clip.kind != "norm"):
            return False
        norms = dict(zip(*self.joint_norm(groups), strict=True))
        pairs = ((f, norms[t]) for f, t in zip(factors[0].values, factors[0].steps, strict=True) if norms.get(t, 0) > 0)
        known = [(f, norm) for f, norm in pairs if math.isfinite(f * norm)]
        return clip is None or all(_near(f, min(1.0, clip.bound / norm)) for f, norm in known)

    @property
    def finished(self) -> bool:
        """Whether the run says that it came to its end."""
        return any(event.event == "finished" for event in self.run.events)

    @property
    def length(self) -> int:
        """The steps that the run has covered."""
        return self.steps[-1] - self.steps[0] + 1 if len(self.steps) else 0

    def _once(self, section: Section, names: Sequence[str], key: str) -> ByName:
        if (section, key) not in self._known:
            self._known[section, key] = _recorded({name: self.run.series(section, name, key) for name in names})
        return self._known[section, key]

    def clipped(self, scope: str) -> Series:
        """At each step, the factor of the groups of a scope that was clipped most."""
        return _combined([self.statistic("clip_factor")[group] for group in self.scopes[scope]], min)

    def norm(self, scope: str) -> Series:
        """At each step, the joint norm of a scope's gradients before clipping."""
        return self.joint_norm(self.scopes[scope])

    def joint_norm(self, groups: Sequence[str]) -> Series:
        """At each step, the joint norm of some groups' gradients before clipping."""
        norms = [self.statistic("grad_norm")[group] for group in groups if group in self.statistic("grad_norm")]
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


def _recorded(series: ByName) -> ByName:
    return {name: found for name, found in series.items() if len(found.steps)}


def later(series: Series) -> list[float]:
    """The values after the warm-up."""
    return list(series.values[int(WARM_UP * len(series.values)) :])


def _near(factor: float, wanted: float) -> bool:
    return abs(factor - wanted) <= FITS * abs(wanted)


def _held(series: Series, last: int) -> Series:
    """A series that stays at its last value up to a step."""
    if not len(series.steps) or series.steps[-1] >= last:
        return series
    return Series(array("q", [*series.steps, last]), array("d", [*series.values, series.values[-1]]))


def _title(scope: Sequence[str], groups: int) -> str:
    """What to call a scope that no plan has named."""
    if len(scope) == 1:
        return scope[0]
    return f"all {groups} groups" if len(scope) == groups else f"{scope[0]} and {len(scope) - 1} more"


def _same(many: Sequence[Series], tolerance: float = 1e-6) -> bool:
    """Whether series agree wherever they have the same step."""
    first = dict(zip(*many[0], strict=True))
    pairs = ((value, first[step]) for series in many[1:] for step, value in zip(*series, strict=True) if step in first)
    return all(abs(a - b) <= tolerance * max(abs(a), abs(b)) for a, b in pairs if math.isfinite(a) and math.isfinite(b))


def _combined(many: Sequence[Series], combine: Callable[[list[float]], float]) -> Series:
    """One series from several, over the steps of any of them."""
    at: dict[int, list[float]] = {}
    for series in many:
        for step, value in zip(*series, strict=True):
            at.setdefault(step, []).append(value)
    steps = sorted(at)
    values = (combine(at[step]) for step in steps)
    return Series(array("q", steps), array("d", values))
