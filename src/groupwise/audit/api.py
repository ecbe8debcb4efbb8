"""The public functions: describe the program, run every check that what was given allows, worst findings first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import TracebackType
from typing import Any, final

from groupwise._finding import SEVERITIES, Inspection
from groupwise._spelling import shown
from groupwise.audit.checks import CHECKS
from groupwise.audit.describing import (
    Losses,
    Model,
    OneOrMore,
    described_optimizers,
    described_parameters,
    described_reach,
    described_schedulers,
    named,
)
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Program
from groupwise.audit.running_statistics import Statistics
from groupwise.audit.watching import Recorder
from groupwise.errors import AuditError
from groupwise.look import Example


def audit(
    model: Model,
    optimizers: OneOrMore,
    schedulers: OneOrMore = (),
    losses: Losses | None = None,
    batch: object = None,
    example: Example | None = None,
) -> list[Finding]:
    """Find the silent mistakes of a training program; nothing in it is changed.

    Args:
        model: a module, or a mapping of names to modules or parameters.
        optimizers: an optimizer, several, or a mapping of names to them; anything with `param_groups`.
        schedulers: likewise; anything with an `.optimizer`.
        losses: a scalar tensor with its graph, or a mapping of task to such tensors; the graph is read, not consumed.
            Or a function that returns either, called once: buffers, `.grad`, modes and random states are put back.
        batch: what that function is called with; without it the function is called without arguments.
        example: what the model is run on, once and without a trace, to see what is used and which layer stands where,
            as for `groupwise.optim.parameters_of`.

    Returns:
        The findings, worst first. `inspect` says as well which checks ran, and what the others would have needed.

    Raises:
        AuditError: what was given is no model, no optimizer, no scheduler or no loss.
    """
    return inspect(model, optimizers, schedulers, losses, batch, example).findings


def inspect(
    model: Model,
    optimizers: OneOrMore,
    schedulers: OneOrMore = (),
    losses: Losses | None = None,
    batch: object = None,
    example: Example | None = None,
) -> Inspection:
    """As `audit`, with the names of the checks that ran and of those that could not; it prints as a whole."""
    program = _described(model, named(optimizers, "optimizer"), named(schedulers, "scheduler"), example)
    reach, drifting = described_reach(losses, batch, model, program.parameters)
    return _checked(dataclasses.replace(program, reach=reach, drifting=drifting))


@final
class watch:
    """Watch a few steps of a training loop, then audit with what was seen.

        with watch(model, optimizer, scheduler) as seen:
            train_for_a_while()
        print(seen)

    The loop runs as ever. After `steps` steps of every optimizer nothing is noted any more, so the block may hold the
    whole training. Findings are there at any time; those about the program as such describe it as it is then.

    Watches may overlap, be left in any order and from any thread; a watch that is dropped is left. What goes wrong in a
    watch ends it with a `GroupwiseWarning`, and not the loop. Entered again, it begins anew.

    Args:
        model, optimizers, schedulers: as for `audit`.
        steps: how many steps of each optimizer to watch.

    Raises:
        AuditError: as `audit`; `steps` is not a positive whole number; an optimizer whose steps run no hooks of torch;
            a watch is entered that has not been left.
    """

    def __init__(self, model: Model, optimizers: OneOrMore, schedulers: OneOrMore = (), steps: int = 5) -> None:
        if not isinstance(steps, int) or steps < 1:
            raise AuditError(f"steps = {shown(steps)}: watch at least one step of each optimizer")
        self._model = model
        self._optimizers = named(optimizers, "optimizer")
        self._schedulers = named(schedulers, "scheduler")
        self._steps, self._entered = steps, False
        _described(model, self._optimizers, self._schedulers)
        self._recorder = Recorder(self._optimizers, self._schedulers, steps)
        self._statistics = Statistics(model)
        self._drifting: tuple[str, ...] = ()

    def __enter__(self) -> watch:
        if self._entered:
            raise AuditError("this watch has been entered and not been left: make another one")
        self._entered, self._recorder = True, Recorder(self._optimizers, self._schedulers, self._steps)
        self._statistics = Statistics(self._model)
        self._recorder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.stop()
        self._drifting = self._statistics.moved()
        self._entered = False

    @property
    def inspection(self) -> Inspection:
        """What `inspect` returns, of the loop as it was recorded and of the program as it is now."""
        program = _described(self._model, self._optimizers, self._schedulers)
        drifting = self._statistics.moved() if self._entered else self._drifting
        return _checked(dataclasses.replace(program, record=self._recorder.record, drifting=drifting))

    @property
    def findings(self) -> list[Finding]:
        """The findings, worst first."""
        return self.inspection.findings

    def __str__(self) -> str:
        return str(self.inspection)


def _described(
    model: Model, optimizers: Mapping[str, Any], schedulers: Mapping[str, Any], example: Example | None = None
) -> Program:
    owners = described_optimizers(optimizers)
    return Program(described_parameters(model, example), owners, described_schedulers(schedulers, optimizers))


def _checked(program: Program) -> Inspection:
    missing = {check.name: check.missing(program) for check in CHECKS}
    found = [finding for check in CHECKS if not missing[check.name] for finding in check.find(program)]
    findings = sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
    ran = tuple(name for name, need in missing.items() if not need)
    return Inspection(findings, ran, {name: need for name, need in missing.items() if need})
