"""The central object: one `torch.optim.Optimizer` that runs a plan.

It is the only owner of `param_groups` and `state`. The algorithms are borrowed engines: at each step the current groups
are gathered by algorithm, and the class's own step runs on them and on the owner's state. So hooks fire once, a
checkpoint holds everything, an in-place edit or a replacement of `param_groups` is obeyed, and whatever drives a plain
optimizer (a torch scheduler, GradScaler, DCP, Accelerate, Lightning) drives this one.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from groupwise.errors import GroupwiseWarning, OptimizerError, unknown
from groupwise.optim.added import completed
from groupwise.optim.clipping import Measured
from groupwise.optim.freezing import drop_gradients, freeze, is_wrapped, may_flip
from groupwise.optim.live import START
from groupwise.optim.loading import load
from groupwise.optim.only import NetworkView
from groupwise.optim.regroup import check_foreign_schedulers, current, snapshot
from groupwise.optim.resolve import Model
from groupwise.optim.runtime import Runtime
from groupwise.optim.state import LoadReport, Values, transfer
from groupwise.optim.watch import Watch
from groupwise.plan import Plan, Resolution

if TYPE_CHECKING:
    from groupwise.optim.plan_scheduler import PlanScheduler


class GroupedOptimizer(torch.optim.Optimizer):
    """Optimise every part of a model its own way.

    Args:
        model: a module, a mapping of names to modules or parameters (names are then prefixed by the key), or what
            `parameters_of` returned.
        plan: a `Plan`, or the path of a plan file.

    Attributes:
        measured: what the last step's clipping found, by scope.
        load_report: what the last load or `regroup` did.

    Raises:
        PlanError, ResolutionError, OptimizerError: the plan cannot be read, breaks a law of the cascade on this model,
            or names a class that cannot run in it.
    """

    def __init__(self, model: Model, plan: Plan | str | os.PathLike[str]) -> None:
        self._runtime = Runtime.of(model, plan if isinstance(plan, Plan) else Plan.load(plan))
        self.measured: dict[str, Measured] = {}
        self.load_report: LoadReport | None = None
        self._views: dict[tuple[int, tuple[str, ...]], NetworkView] = {}
        self._itself = weakref.ref(self)
        self._watch = Watch(self.resolution.scheduled)
        self._wrapped = is_wrapped(model)
        super().__init__(self._runtime.live_groups(), self._runtime.shared_defaults())
        self._freeze()

    @property
    def plan(self) -> Plan:
        """The plan that runs."""
        return self._runtime.plan

    @property
    def resolution(self) -> Resolution:
        """What the plan means for the model."""
        return self._runtime.resolution

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every group: the closure (once, with gradients), clipping, then each algorithm on its groups.

        Returns what the closure returned. Schedules do not tick here: that is `PlanScheduler.step`.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._watch.stepped(self.param_groups)
        measured = self._runtime.clipper.clip(self.param_groups)
        self.measured.clear()  # in place: what a compiled step assigns to an optimizer is lost (torch 2.13)
        self.measured.update(measured)
        self._runtime.engines.step(drop_gradients(self.param_groups), self.state, self._runtime.route)
        return loss

    def only(self, *networks: str) -> NetworkView:
        """The view of these networks: it steps and zeroes their groups alone.

        The same object each time, since GradScaler knows optimizers by identity. As a context manager it also switches
        off the other networks' gradients. Raises `OptimizerError` for a network that does not exist.
        """
        known = sorted({group["network"] for group in self.param_groups if group.get("network")})
        for network in networks or ("",):
            if network not in known:
                raise OptimizerError(unknown("network", network, known))
        key = (id(self), tuple(sorted(set(networks))))
        return self._views.setdefault(key, NetworkView(self._owner, key[1], door=self))

    def regroup(self, plan: Plan | None = None) -> Resolution:
        """Resolve the plan again, or a new one, and move parameters between groups.

        State follows each parameter as long as its algorithm stays the same; a change of algorithm starts its state
        afresh and warns. For rules on statistics, and for plans edited in mid-run. `load_report` says what moved.

        Raises:
            OptimizerError: a scheduler other than `PlanScheduler` is attached and the number of groups would change.
        """
        if self._owner is not self:
            return self._owner.regroup(plan)
        runtime = Runtime.of(current(self.resolution, self.param_groups), plan or self.plan)
        planned = {group.name for group in self.resolution.groups}
        scheduler = self._watch.scheduler
        groups = runtime.live_groups(scheduler.moment if scheduler is not None else START)
        groups += [group for group in self.param_groups if group.get("name") not in planned]
        check_foreign_schedulers(self, len(groups), attached=scheduler is not None)
        layout, report = transfer(snapshot(self.param_groups, self.state), groups, runtime.claims())
        params = [p for group in groups for p in group["params"]]
        self.state = defaultdict(dict, {params[k] if isinstance(k, int) else k: v for k, v in layout["state"].items()})
        self.param_groups = [
            new | {"params": old["params"]} for new, old in zip(layout["param_groups"], groups, strict=True)
        ]
        self._runtime, self.load_report = runtime, report
        self._freeze()
        self._watch.regrouped(runtime.resolution.scheduled)
        if report.restarted:
            warnings.warn(
                f"regroup: the algorithm changed, so state starts afresh: {report}", GroupwiseWarning, stacklevel=2
            )
        return runtime.resolution

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as on any torch optimizer. Without an "algorithm" it takes the one that `"*"` gets last."""
        super().add_param_group(completed(param_group, self._runtime, self.param_groups))

    def state_dict(self) -> dict[str, Any]:
        """In torch's layout, with names. A parameter without state has an empty entry as soon as others have any:
        DCP loads no checkpoint in which one that requires gradients is missing.
        """
        saved = super().state_dict()
        ids = (i for group in saved["param_groups"] for i in group["params"])
        for i, p in zip(ids, (p for group in self.param_groups for p in group["params"]), strict=True):
            if saved["state"] and p.requires_grad:
                saved["state"].setdefault(i, {})
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume by name, as `resume` does by default; what was moved, new, lost or restarted is in `load_report`."""
        load(self._owner, state_dict, "edited")

    def resume(self, state_dict: dict[str, Any], values: Values = "edited") -> LoadReport:
        """Resume by name: each parameter's state follows its name into whatever group it is in now.

        Args:
            state_dict: of a `GroupedOptimizer`, or of a plain `torch.optim` optimizer: by name if it has names, else
                by position, for one group.
            values: whose values stand. "edited": the checkpoint's, unless this plan schedules them or declares them
                differently from the plan that wrote the checkpoint. "checkpoint": all of the checkpoint's; what is
                scheduled holds until the next tick. "plan": none of the checkpoint's.

        Returns:
            What was moved, new, lost or restarted; a warning says it too if anything starts afresh.

        Raises:
            StateError: no optimizer's checkpoint, none of this model's, or an ambiguous one; nothing has changed then.
        """
        return load(self._owner, state_dict, values)

    def attach(self, scheduler: PlanScheduler) -> Watch:
        """Let a scheduler know of every regroup; the `Watch` tells it what the optimizer did between its ticks."""
        self._watch.attached = weakref.ref(scheduler)
        return self._watch

    def train(self) -> None:
        """Forwarded to engines that distinguish training from evaluation (schedule-free ones)."""
        self._runtime.engines.switch("train", self.param_groups, self.state)

    def eval(self) -> None:
        """Forwarded to engines that distinguish training from evaluation (schedule-free ones)."""
        self._runtime.engines.switch("eval", self.param_groups, self.state)

    @property
    def _owner(self) -> GroupedOptimizer:
        """Itself, also when asked through a trainer's wrapper that imitates the class and hands on its attributes."""
        return self._itself() or self

    def _freeze(self) -> None:
        """Bring `requires_grad` in line with what the plan says about freezing; silent plans touch nothing."""
        planned = {group.name: group for group in self.resolution.groups if group.timeline is not None}
        for live in self.param_groups:
            if live.get("name") in planned:
                timeline = planned[live["name"]].timeline
                for_good = timeline is not None and not timeline.moves and not self._wrapped
                freeze(live, live["frozen"], for_good)
        for info in (info for group in planned.values() if group.algorithm is None for info in group.parameters):
            if not self._wrapped or may_flip(info.parameter):
                info.parameter.requires_grad_(False)

    def __getstate__(self) -> dict[str, Any]:
        public = {name: value for name, value in self.__dict__.items() if not name.startswith("_") and name != "step"}
        return {**public, "_runtime": self._runtime}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_views", {})
        self.__dict__.setdefault("_itself", weakref.ref(self))
        self.__dict__.setdefault("_watch", Watch(self.resolution.scheduled))
        self.__dict__.setdefault("_wrapped", False)
