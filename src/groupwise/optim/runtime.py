"""A plan made ready to run on one model: everything that a change of plan replaces, replaced in one assignment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from groupwise.errors import OptimizerError
from groupwise.optim.algorithms import TorchAlgorithms
from groupwise.optim.clipping import Clipper
from groupwise.optim.engines import Engines
from groupwise.optim.fresh_state import FreshState
from groupwise.optim.live import START, StepInfo, live_group
from groupwise.optim.plan_values import Driver, PlanValues, Prefer
from groupwise.optim.probe import ProbeResult
from groupwise.optim.resolving import Model, resolve_with
from groupwise.plan import Plan, Resolution


@dataclass(frozen=True, eq=False)
class Runtime:
    """A plan, its resolution, probe results, engines and clipper. `route` is the algorithm of groups that name none."""

    plan: Plan
    algorithms: TorchAlgorithms
    resolution: Resolution
    probed: Mapping[str, ProbeResult]
    engines: Engines
    clipper: Clipper
    route: str

    @staticmethod
    def of(model: Model, plan: Plan) -> Runtime:
        """Resolve `plan` on `model`. Raises what `resolve` raises, and `OptimizerError` if nothing could ever train."""
        algorithms = TorchAlgorithms(plan)
        resolution, probed = resolve_with(model, plan, algorithms)
        if not probed:
            raise OptimizerError("nothing to optimise: every parameter is frozen and no rule gives any an optimizer")
        engines = Engines(algorithms, probed, resolution)
        clipper, route = Clipper(resolution), _default_route(plan, resolution)
        return Runtime(plan, algorithms, resolution, probed, engines, clipper, route)

    def without(self, gone: Collection[str]) -> Runtime:
        """The same, holding no tensor of the parameters named `gone`: their infos say what they were."""
        groups = tuple(group.without_tensors(gone) for group in self.resolution.groups)
        return replace(self, resolution=replace(self.resolution, groups=groups))

    @cached_property
    def tensors(self) -> Sequence[object]:
        """Those of the groups that are stepped, in their order, as the plan was resolved."""
        groups = [group for group in self.resolution.groups if group.algorithm is not None]
        return [info.parameter for group in groups for info in group.parameters]

    def live_groups(self, step_info: StepInfo = START) -> list[dict[str, Any]]:
        """New live group dicts, as the plan declares them at `step_info`."""
        groups = [group for group in self.resolution.groups if group.algorithm is not None]
        return [live_group(group, self.probed[group.name], step_info) for group in groups]

    def shared_defaults(self) -> dict[str, Any]:
        """What every group holds, with the values of the default route's first group.

        Schedulers read `optimizer.defaults` to learn what every group holds, and `add_param_group` puts its entries
        into every new group; so it holds only what all the algorithms share.
        """
        common = set.intersection(*(set(probe_result.hyperparameters) for probe_result in self.probed.values()))
        return {name: value for name, value in self.routed(self.route).items() if name in common}

    def routed(self, algorithm: str) -> Mapping[str, Any]:
        """The hyperparameters of the first group that runs under `algorithm`, without its extra keys."""
        first = next((g.name for g in self.resolution.groups if g.algorithm == algorithm), next(iter(self.probed)))
        probed = self.probed[first]
        return {name: value for name, value in probed.hyperparameters.items() if name not in probed.extra}

    @property
    def fresh_state(self) -> FreshState:
        """What the algorithms begin with."""
        return FreshState(self.algorithms)

    def plan_values(self, prefer: Prefer = "unchanged", driver: Driver = "none") -> PlanValues:
        """What the plan has to say about the values of a checkpoint."""
        scheduled = {
            group.name: [name for name, setting in group.settings.items() if setting.schedules]
            for group in self.resolution.groups
        }
        arguments = {name: algorithm.defaults for name, algorithm in self.resolution.algorithms.items()}
        peaks = {name: probed.hyperparameters.get("lr") for name, probed in self.probed.items()}
        return PlanValues(scheduled, arguments, prefer, peaks, driver)


def _default_route(plan: Plan, resolution: Resolution) -> str:
    """The algorithm that `"*"` gets last; without such a rule, or if nobody has it, the headline group's."""
    used = [group.algorithm for group in resolution.groups if group.algorithm is not None]
    everywhere = [rule.optimizer for rule in plan.rules if str(rule.match) == "*" and rule.optimizer in used]
    return str(everywhere[-1] if everywhere else used[0])
