"""The central object: one `torch.optim.Optimizer` that runs a plan.

It is the only owner of `param_groups` and `state`. The algorithms are borrowed engines: at each step the current groups
are gathered by algorithm, and the class's own step runs on them and on the owner's state. So hooks fire once, a
checkpoint holds everything, an in-place edit or a replacement of `param_groups` is obeyed, and whatever drives a plain
optimizer (a torch scheduler, GradScaler, DCP, Accelerate, Lightning) drives this one.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from groupwise import _torch
from groupwise._misuse import explained
from groupwise._renamed import renamed
from groupwise._spelling import shown
from groupwise._warning import warn
from groupwise.errors import OptimizerError, StateError, unknown
from groupwise.look import Example
from groupwise.optim.added import completed, rename_replaced, standing_outside
from groupwise.optim.agreement import Agreement, Run
from groupwise.optim.fitting import explain
from groupwise.optim.freezing import (
    check_unfreeze,
    drop_gradients,
    freeze,
    is_wrapped,
    may_flip,
    restore_requires_grad,
    unfrozen_by_hand,
)
from groupwise.optim.live import START, names_of
from groupwise.optim.load_report import LoadReport
from groupwise.optim.loaded_state import with_state_of, without_parameters
from groupwise.optim.loading import Layout, is_unexpected, lay_out, saved_rates, saved_standing, updates_of, with_state
from groupwise.optim.measured import Measurements
from groupwise.optim.only import NetworkView, with_all_groups
from groupwise.optim.origin import Drift, Origin, drift
from groupwise.optim.plan_values import Driver, Prefer
from groupwise.optim.rates import sentences
from groupwise.optim.regroup import Regrouped, Running, check_foreign_schedulers, has_torch_scheduler, regrouped
from groupwise.optim.resolving import Model, infos_of
from groupwise.optim.rows import RowsGiven
from groupwise.optim.runtime import Runtime
from groupwise.optim.saving import packed, with_names
from groupwise.optim.transaction import AllOrNothing, refill
from groupwise.optim.transfer import Transfer
from groupwise.optim.unique import Distinct, Savable
from groupwise.optim.usage_monitor import Scheduler, UsageMonitor
from groupwise.plan import Group, Plan, Resolution

_LOG = logging.getLogger(__name__)


class GroupedOptimizer(torch.optim.Optimizer):
    """Optimise every part of a model its own way.

    Args:
        model: a module, a mapping of names to modules or parameters (names are then prefixed by the key), or what
            `parameters_of` returned.
        plan: a `Plan`, or the path of a plan file.
        example: what the model is run on, once and without a trace, to see roles and depth in place of guessing them:
            a tensor, a tuple of arguments, a dict of keyword arguments, or a function that takes the model.

    Each group is logged at the build, a line at level INFO, by the logger `groupwise.optim.grouped_optimizer`.

    Attributes:
        measured: what the last step's clipping found, by scope.
        load_report: what the last load or `regroup` did.

    Raises:
        PlanError, ResolutionError, OptimizerError: the plan cannot be read, breaks a law of the cascade on this model,
            or names a class that cannot run in it.
    """

    @explained(
        OptimizerError,
        "GroupedOptimizer",
        dict.fromkeys(
            ("lr", "weight_decay", "betas", "momentum", "eps", "optimizer", "clip"),
            "hyperparameters are declared by rules: Plan([Rule('*', optimizer='AdamW', lr=1e-3)])",
        ),
    )
    def __init__(self, model: Model, plan: Plan | str | os.PathLike[str], example: Example | None = None) -> None:
        plan = plan if isinstance(plan, Plan) else Plan.load(plan)
        self._runtime = Runtime.of(infos_of(model, example), plan)
        self.measured = Measurements()
        self.load_report: LoadReport | None = None
        self._views: dict[tuple[int, tuple[str, ...]], NetworkView] = {}
        self._itself = weakref.ref(self)
        self._monitor = UsageMonitor(self.resolution.scheduled)
        self._distinct = Distinct()
        self._savable = Savable()
        self._wrapped = is_wrapped(model)
        super().__init__(self._runtime.live_groups(), self._runtime.shared_defaults())
        self._origin = Origin(model, self.resolution.parameters)
        self._freeze()
        self._idle_steps = 0
        self._agreement = Agreement()
        self._tell_ranks()
        for caution in self.resolution.cautions:
            warn(caution)
        if _LOG.isEnabledFor(logging.INFO):
            for line in self.resolution.lines():
                _LOG.info("%s", line)

    @property
    def plan(self) -> Plan:
        """The plan that runs."""
        return self._runtime.plan

    @property
    def resolution(self) -> Resolution:
        """What the plan means for the model."""
        return self._runtime.resolution

    @_torch.hooked_step
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every group: the closure (once, with gradients), clipping, then each algorithm on its groups.

        Returns what the closure returned. Schedules do not advance here: that is `PlanScheduler.step`.

        Raises:
            OptimizerError: at the first step among several processes, if the ranks that are replicas do not run one
                plan; or a tensor stands in two groups, or a joint clip cannot be joint, or a norm is not finite and
                its clip says "raise". Under "skip_step" such a step changes nothing, and counts as one all the same.
                Or a parameter has got another shape or dtype in place: its state is then of the one that it had.
        """
        loss = None
        if closure is not None:
            if not callable(closure):
                raise OptimizerError(f"step takes a closure, not {shown(closure)}: loss.backward(), and then step()")
            with torch.enable_grad():
                loss = closure()
        changed = self._distinct.check(self.param_groups, self._runtime.tensors)
        if changed and not any(view.stepping for view in self._views.values()):
            self._let_go()
        if self._agreement.open:
            self._agreement.check(self._as_run())
        self._monitor.stepped(self.param_groups)
        clipped = self._runtime.clipper.clip(self.param_groups)
        self.measured.replace(clipped.found, clipped.dtype)
        if clipped.skipped:
            return loss
        active, unfrozen = drop_gradients(self.param_groups)
        self._monitor.note(unfrozen_by_hand(unfrozen))
        self._look_where_idle(active)
        try:
            self._runtime.engines.step(active, self.state, self._runtime.route, self._all_groups, clipped.present)
        except Exception as error:
            explain(active, self.state, error)
            raise
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of every group, or fill them with zeros."""
        if not set_to_none or _torch.is_profiling() or torch.compiler.is_compiling():
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:  # as torch does, without a label that nobody sees
            for p in group["params"]:
                p.grad = None

    def only(self, *networks: str) -> NetworkView:
        """The view of these networks: it steps and zeroes their groups alone.

        The same object each time, since GradScaler knows optimizers by identity. As a context manager it also switches
        off the other networks' gradients. Raises `OptimizerError` for a network that does not exist.
        """
        known = sorted({group["network"] for group in self.param_groups if group.get("network")})
        for network in networks or ("",):
            if network not in known:
                way_out = "" if known else "; networks are the keys of a mapping: GroupedOptimizer({…: module}, plan)"
                raise OptimizerError(unknown("network", network, known) + way_out)
        key = (id(self), tuple(sorted(set(networks))))
        return self._views.setdefault(key, NetworkView(self._owner, key[1], wrapper=self))

    def regroup(
        self,
        plan: Plan | str | os.PathLike[str] | None = None,
        model: Model | None = None,
        rows: Mapping[str, RowsGiven] | None = None,
        example: Example | None = None,
    ) -> Resolution:
        """Resolve the plan again, or a new one, and move parameters between groups; state follows each parameter.

        For plans edited in mid-run, for rules on statistics, and with `model=` for a model that has changed: a new
        head, an adapter, a table with more rows, a parametrization. Then the model is walked again. A tensor that is
        still there keeps its state under whatever name; another one under the same name takes it over; what has come
        untied gets a copy; what is new starts afresh; what is gone is dropped. State starts afresh as well where the
        algorithm changes, or the shape. A table with another number of rows keeps the state of the rows that it kept,
        if these are its first, or if `rows` says which they are. `load_report` says all of it.

        Args:
            plan: the plan from now on; by default the one that runs.
            model: as for the constructor. By default the parameters that the groups hold.
            rows: by glob, which rows of a table are which: a mask over the old rows (those kept come first, in their
                order, and new ones after them), or for each new row the old one that it was, or -1.
            example: with `model`, as for the constructor.

        Raises:
            PlanError, ResolutionError, OptimizerError: as for the constructor; `rows` do not fit; a scheduler other
                than `PlanScheduler` is attached and groups would change their number or place; or this is inside
                `with optimizer.only(...)`. Nothing has changed then.
        """
        if self._owner is not self:
            return self._owner.regroup(plan, model, rows, example)
        if any(view.entered for view in self._views.values()):
            raise OptimizerError(
                "regroup inside `with optimizer.only(…)`, where the others' gradients are off: leave it first"
            )
        with with_all_groups(self._views.values()):
            self._regroup(plan, model, {} if rows is None else rows, example)
        return self.resolution

    def _regroup(
        self,
        plan: Plan | str | os.PathLike[str] | None,
        model: Model | None,
        rows: Mapping[str, RowsGiven],
        example: Example | None,
    ) -> None:
        scheduler = self._monitor.scheduler
        step_info = scheduler.step_info if scheduler else START
        now = Running(self.resolution, self.param_groups, self.state, step_info, self._driver)
        infos = None if model is None else infos_of(model, example)
        after = regrouped(now, _plan_of(plan, self.plan), infos, rows)
        if self._monitor.attached is None:
            check_foreign_schedulers(self, after.groups)
        known = (info for each in (self.resolution, after.runtime.resolution) for info in each.parameters)
        tensors = (info.parameter for info in known if info.parameter is not None)
        with AllOrNothing(self, [self._monitor, *([scheduler] if scheduler else [])], tensors):
            self._run(after, model)
            for sentence in after.messages:
                warn(sentence)
            self._monitor.edited(after.edits)
            found = self._look_at_model()
            self.load_report = replace(after.report, unowned=found.unowned, stale=found.stale)
        self._tell_ranks()

    def _run(self, after: Regrouped, model: Model | None) -> None:
        """Put a regrouping in place."""
        refill(self, self.param_groups, self.state, after.groups, after.state)
        self._runtime = after.runtime
        if model is not None:
            self._origin, self._wrapped = Origin(model, self.resolution.parameters), is_wrapped(model)
        self._distinct.forget()
        self._freeze()
        begun = {*after.report.new, *after.report.reset}
        fresh = {group["name"] for group in after.groups if begun.issuperset(names_of(group))}
        self._monitor.regrouped(after.runtime.resolution.scheduled, fresh)

    def _look_at_model(self) -> Drift:
        """Say it, once, if the model is not any more what the plan was resolved on."""
        found = drift(self._origin, self.resolution, self.param_groups)
        sentence = str(found)
        if sentence and sentence not in self._origin.said:
            warn(sentence)
            self._origin.said.add(sentence)
        return found

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as on any torch optimizer. Without an "algorithm" it takes the one that `"*"` gets last.

        It stands outside the plan; a warning says so if that means a rule, a schedule or a clip less. Raises
        `OptimizerError` for the name of a group, or of another parameter, that there is already.
        """
        if "_origin" not in vars(self):  # the plan's own groups, which the base class adds while it is built
            before, self.param_groups = self.param_groups, []  # no two share a parameter, and torch would look at all
            super().add_param_group(param_group)
            before += self.param_groups
            self.param_groups = before
            return
        with with_all_groups(self._views.values()), AllOrNothing(self):
            super().add_param_group(completed(param_group, self._runtime, self.param_groups, self._origin))
            rename_replaced(self.param_groups)
            self._monitor.note(standing_outside(self.param_groups[-1], self.resolution))
            self._look_at_model()

    def state_dict(self) -> dict[str, Any]:
        """In torch's layout, with names. A parameter without state has an empty entry as soon as others have any:
        DCP loads no checkpoint in which one that requires gradients is missing.

        Raises `StateError` for what no load could take: two tensors of one name, or state of a tensor in no group.
        """
        with with_all_groups(self._views.values()):
            return self._state_dict()

    def _state_dict(self) -> dict[str, Any]:
        self._savable.check(self.param_groups, self.state)
        self._look_at_model()
        saved = None if _torch.has_save_hooks(self) else packed(self.param_groups, self.state)
        return with_names(super().state_dict(), self.param_groups) if saved is None else saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume by name, as `resume` does by default; what was moved, new, lost or restarted is in `load_report`."""
        self._owner._load(state_dict, "unchanged")

    @renamed(StateError, {"values": "prefer"})
    def resume(self, state_dict: dict[str, Any], prefer: Prefer = "unchanged") -> LoadReport:
        """Resume by name: each parameter's state follows its name into whatever group it is in now.

        Args:
            state_dict: of a `GroupedOptimizer`, or of a plain `torch.optim` optimizer: by name if it has names, else
                by position, for one group.
            prefer: which values stand. "unchanged": the checkpoint's, unless this plan schedules them or declares
                them differently from the plan that wrote the checkpoint; of scheduled ones those that something else
                has written over, by hand or as a later scheduler. "checkpoint": all of the checkpoint's; what is
                scheduled holds until the scheduler's next step. "plan": none of the checkpoint's.

        Returns:
            What was moved, new, lost or restarted; a warning says it too if anything starts afresh.

        Raises:
            StateError: no optimizer's checkpoint, none of this model's, or an ambiguous one; nothing has changed then.
        """
        return self._owner._load(state_dict, prefer)

    def check_loadable(self, state_dict: dict[str, Any], prefer: Prefer = "unchanged") -> None:
        """Raise the `StateError` that `resume` would raise for this checkpoint; nothing is changed."""
        lay_out(self._runtime, self.param_groups, state_dict, prefer)

    def _load(self, state_dict: dict[str, Any], prefer: Prefer) -> LoadReport:
        """Load a checkpoint, or change nothing."""
        if not isinstance(state_dict, Mapping):
            raise StateError(
                f"a state_dict is a mapping, not {type(state_dict).__name__}: load a file first, "
                "torch.load(path, weights_only=True)"
            )
        scheduler = self._monitor.scheduler if prefer != "checkpoint" else None
        overwritten = [] if scheduler is None or prefer == "plan" else scheduler.overwritten()
        with (
            with_all_groups(self._views.values()),
            AllOrNothing(self, [self._monitor, *([scheduler] if scheduler else [])]),
        ):
            transfer = self._load_laid_out(state_dict, prefer)
            if scheduler is not None and scheduler.last_epoch >= 0:  # scheduled values may be edited by hand since
                scheduler.write(saved_standing(self.param_groups, state_dict, overwritten))
            report, edits = transfer.report, transfer.edits
            unexpected = [f"load_state_dict: {report}"] if is_unexpected(report, self.param_groups) else []
            for sentence in [*unexpected, *sentences(edits)]:
                warn(sentence)
            found = self._look_at_model()
            self.load_report = replace(report, unowned=found.unowned, stale=found.stale)
        self._tell_ranks()
        rates = saved_rates(self.param_groups, state_dict)
        self._monitor.loaded(updates_of(self.state), with_state(self.param_groups, self.state), rates)
        self._monitor.edited(edits)
        return self.load_report

    def _load_laid_out(self, state_dict: dict[str, Any], prefer: Prefer) -> Transfer:
        """Torch's own `load_state_dict`, so that every hook fires as ever: the last before it gives it the checkpoint
        laid out, the first after it puts in the state of parameters and does what the algorithms' classes do at the end
        of a load.
        """
        done: list[tuple[Transfer, Layout]] = []
        held: list[Any] = []

        def laid_out(_: torch.optim.Optimizer, given: dict[str, Any]) -> Layout:
            held[:] = self.param_groups, self.state
            transfer = lay_out(self._runtime, self.param_groups, given, prefer, self._driver)
            done.append((transfer, transfer.in_torchs_layout()))
            return without_parameters(done[-1][1])

        def finish(_: torch.optim.Optimizer) -> None:
            runtime, layout = self._runtime, done[-1][1]
            refill(self, held[0], held[1], self.param_groups, with_state_of(self.param_groups, self.state, layout))
            runtime.engines.loaded(self.param_groups, self.state, runtime.route, layout)

        before = self.register_load_state_dict_pre_hook(laid_out)
        after = self.register_load_state_dict_post_hook(finish, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()
        return done[-1][0]

    def attach(self, scheduler: Scheduler) -> UsageMonitor:
        """Let a scheduler know of every regroup; the `UsageMonitor` passes on what happened between its steps."""
        is_new = "last_epoch" not in vars(scheduler)  # and no copy
        self._monitor.attach(scheduler, beside=is_new and has_torch_scheduler(self))
        return self._monitor

    def train(self) -> None:
        """Forwarded to algorithms that distinguish training from evaluation (schedule-free ones)."""
        self._runtime.engines.switch("train", self.param_groups, self.state)

    def eval(self) -> None:
        """Forwarded to algorithms that distinguish training from evaluation (schedule-free ones)."""
        self._runtime.engines.switch("eval", self.param_groups, self.state)

    def _look_where_idle(self, active: list[dict[str, Any]]) -> None:
        """Look at the model where a group that trains has no gradient at all: its part may have been replaced, or left
        for an adapter. At the first such step, and at the 2nd, 4th, 8th, …; a model that has not changed says nothing.
        """
        doubtful = [group for group in active if not group["params"] or group["params"][0].grad is None]
        if all(map(_has_gradient, doubtful)) and (active or not self.param_groups):
            return
        self._idle_steps += 1
        first_of_octave = self._idle_steps & (self._idle_steps - 1) == 0
        if first_of_octave and not any(view.stepping for view in self._views.values()):
            self._look_at_model()

    def _let_go(self) -> None:
        """Keep no tensor alive that has left both the groups and the model, as after sharding or a part dropped."""
        gone = self._origin.let_go(self.param_groups)
        if gone:
            self._runtime = self._runtime.without(gone)

    @property
    def _all_groups(self) -> list[dict[str, Any]]:
        """The groups of every network, in the middle of a view's step as well."""
        if not self._views:
            return self.param_groups
        with with_all_groups(self._views.values()):
            return self.param_groups

    @property
    def _driver(self) -> Driver:
        """Who writes the learning rates now; a `PlanScheduler` in a SequentialLR waits at update -1 for its turn."""
        scheduler = self._monitor.scheduler
        if scheduler is not None and scheduler.last_epoch >= 0:
            return "plan"
        return "other" if has_torch_scheduler(self) else "none"

    def _tell_ranks(self) -> None:
        """Let the other ranks know what this one runs from now on; they compare it at the next step."""
        self._agreement.state(self._as_run())

    def _as_run(self) -> Run:
        scheduler = self._monitor.scheduler
        return Run(self.resolution, self._all_groups, scheduler.step_info if scheduler is not None else None)

    @property
    def _owner(self) -> GroupedOptimizer:
        """Itself, also when asked through a trainer's wrapper that imitates the class and hands on its attributes."""
        return self._itself() or self

    def _freeze(self) -> None:
        """Bring `requires_grad` in line with what the plan says about freezing; silent plans touch nothing."""
        planned = {group.name: group for group in self.resolution.groups}
        for live in self.param_groups:
            group = planned.get(live.get("name", ""))
            if group is not None and group.timeline is not None and not live["frozen"] and not self._for_good(group):
                check_unfreeze(live)  # before anything changes
        for live in self.param_groups:
            group = planned.get(live.get("name", ""))
            if group is not None and group.timeline is not None:
                freeze(live, live["frozen"], self._for_good(group))
            elif group is not None:
                restore_requires_grad(group.parameters)
        held = {id(p) for live in self.param_groups for p in live["params"]}
        for info in (info for group in planned.values() if group.timeline is not None for info in group.parameters):
            if id(info.parameter) not in held and (not self._wrapped or may_flip(info.parameter)):
                info.parameter.requires_grad_(False)

    def _for_good(self, group: Group) -> bool:
        return group.timeline is not None and not group.timeline.moves and not self._wrapped

    def __getstate__(self) -> dict[str, Any]:
        public = {name: value for name, value in self.__dict__.items() if not name.startswith("_") and name != "step"}
        return {**public, "_runtime": self._runtime}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_views", {})
        self.__dict__.setdefault("_itself", weakref.ref(self))
        self.__dict__.setdefault("_monitor", UsageMonitor(self.resolution.scheduled))
        self.__dict__.update(_distinct=Distinct(), _savable=Savable())
        self.__dict__.setdefault("_origin", Origin(None))
        self.__dict__.setdefault("_wrapped", False)
        self.__dict__.setdefault("_idle_steps", 0)
        self.__dict__.setdefault("_agreement", Agreement())


def _has_gradient(group: Mapping[str, Any]) -> bool:
    return not group["params"] or any(p.grad is not None for p in group["params"])


def _plan_of(given: object, running: Plan) -> Plan:
    """What `regroup` was given as a plan: a plan, the path of a file, or nothing."""
    if given is None or isinstance(given, Plan):
        return given or running
    if isinstance(given, str | os.PathLike):
        return Plan.load(given)
    way_out = ": a model is given as regroup(model=…)" if isinstance(given, torch.nn.Module | Mapping) else ""
    raise OptimizerError(f"regroup takes a plan or the path of a plan file, not {type(given).__name__}{way_out}")
