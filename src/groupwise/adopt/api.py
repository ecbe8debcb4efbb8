"""The public function: read a program, look for the rules, check them, say what is missing."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from groupwise._spelling import counted, printable_lines
from groupwise.adopt.checking import compared
from groupwise.adopt.composing import drafts
from groupwise.adopt.curves import Unit
from groupwise.adopt.program import Program, read
from groupwise.audit.describing import named
from groupwise.errors import GroupwiseError, PlanError, ResolutionError, listed
from groupwise.look import Example, parameters_of
from groupwise.optim.grouped_optimizer import GroupedOptimizer
from groupwise.plan import Plan

Model: TypeAlias = "torch.nn.Module | Mapping[str, torch.nn.Module | torch.Tensor]"

_WIDTH = 118


@dataclass(frozen=True)
class Adopted:
    """A program as a plan.

    Args:
        plan: what comes to the same groups, values and schedules.
        lost: what could not be carried over, a sentence each; empty where everything was.
        told: what is worth knowing besides.
        summary: what was read.
    """

    plan: Plan
    lost: tuple[str, ...]
    told: tuple[str, ...]
    summary: str

    @property
    def allow(self) -> tuple[str, ...]:
        """The packages besides torch that the plan's classes are from: `Plan.load(path, allow=…)`."""
        specs = (rule.optimizer for rule in self.plan.rules if rule.optimizer is not None and ":" in rule.optimizer)
        return tuple(dict.fromkeys(spec.partition(":")[0].partition(".")[0] for spec in specs))

    def text(self, source: str = "") -> str:
        """The plan file, with what it could not carry over in comments at its head.

        Args:
            source: where the program is from, for the first line.

        Raises:
            PlanError: a class that no file can name, since it is made inside a function or a session.
        """
        for rule in self.plan.rules:
            if rule.algorithm_class is not None:
                _check_importable(rule.algorithm_class, str(rule.optimizer))
        lines = [f"Adopted from {source}: {self.summary}." if source else f"Adopted: {self.summary}."]
        if self.allow:
            lines.append(f"Read it with allow = [{listed(map(repr, self.allow))}], on the command line --allow.")
        if self.lost:
            lines += ["Not carried over:", *(f"- {sentence}" for sentence in self.lost)]
        if self.told:
            lines += ["Worth knowing:", *(f"- {sentence}" for sentence in self.told)]
        return "".join(f"{_comment(line)}\n" for line in lines) + "\n" + self.plan.dumps()


def adopt(
    model: Model,
    optimizers: Any,
    schedulers: Any = (),
    *,
    schedulers_step: Unit = "update",
    example: Example | None = None,
) -> Adopted:
    """The shortest plan that was found for an existing program; nothing in the program is changed.

    Read it before the program's first step: what has been trained since is state, which a plan does not hold.

    Args:
        model: a module, or a mapping of names to modules or parameters, such as {"net": net, "temperature": t}.
        optimizers: an optimizer of torch, several, or a mapping of names to them. Where they have several, one
            GroupedOptimizer will step them together.
        schedulers: likewise; those of `torch.optim.lr_scheduler` that have a twin, transformers' warmups included.
        schedulers_step: what the program calls `scheduler.step()` after, "update" or "epoch": the unit of all lengths.
        example: what the model is run on once, to see roles and depth in place of guessing them.

    Raises:
        AuditError: something that is no optimizer or no scheduler.
        OptimizerError: a class that no plan can use, such as LBFGS.
        ResolutionError: a tensor that the model does not have, or that two groups have.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> print(adopt(model, optimizer).text())
        # Adopted: SGD, 1 group, 2 parameters.
        <BLANKLINE>
        [[rule]]
        match = "*"
        optimizer = "SGD"
        lr = 0.1
        momentum = 0.9
        <BLANKLINE>
    """
    if schedulers_step not in ("update", "epoch"):
        raise PlanError(f'schedulers_step is "update" or "epoch", not {schedulers_step!r}')
    given = named(optimizers, "optimizer")
    if len(given) == 1 and isinstance(own := next(iter(given.values())), GroupedOptimizer):
        return Adopted(own.plan, (), ("it had a plan already, which is this one",), "GroupedOptimizer")
    infos = parameters_of(model, example=example)
    program = read(infos, given, named(schedulers, "scheduler") if schedulers else {}, schedulers_step)
    plan = _shortest(program)
    _say_what_changes(program, len(given))
    owned = sum(target is not None for target in program.targets)
    summary = f"{program.summary}, {counted(owned, 'parameter')}"
    return Adopted(plan, tuple(program.lost), tuple(program.told), summary)


def _shortest(program: Program) -> Plan:
    """The first draft, from the shortest, that comes to what the program does; one that warns nobody and has
    the form of a file, if there is.
    """
    reason, equal = "there is no parameter in it", None
    for draft in drafts(program):
        try:
            plan = Plan(draft.rules)
            reason, cautions = compared(plan, program)
        except GroupwiseError as error:
            reason = str(error)
        else:
            if not reason and not cautions and _is_writable(plan):
                return plan
            equal = equal or (None if reason else plan)
    if equal is not None:
        return equal
    raise ResolutionError(f"no plan was found that equals the program: {reason}")


def _is_writable(plan: Plan) -> bool:
    """Whether a file can hold a plan: not where a rule gives None back to what another has set."""
    try:
        plan.dumps()
    except PlanError:
        return False
    return True


def _say_what_changes(program: Program, optimizers: int) -> None:
    """What the plan does otherwise than the program, though nothing that trains is trained otherwise."""
    unowned = [i.name for i, t in zip(program.infos, program.targets, strict=True) if t is None and i.requires_grad]
    if unowned:
        program.told.append(
            f"no optimizer has {listed(unowned, 5)}: trainable = false says so, and they get no gradient any more"
        )
    if optimizers > 1:
        program.told.append(
            f"the {optimizers} optimizers become one, which steps all; optimizer.only(…) steps networks of a mapping"
        )


def _check_importable(cls: type, spec: str) -> None:
    """Raise `PlanError` if the name of a class does not lead to it."""
    module = cls.__module__
    if ":" in spec and module != "__main__" and "." not in cls.__qualname__:
        found = getattr(importlib.import_module(module), cls.__qualname__, None)
    else:
        found = getattr(torch.optim, cls.__qualname__, None) if ":" not in spec else None
    if found is not cls:
        raise PlanError(
            f"no file can name the class {spec}, which no import finds: move it to the top of a module; in Python, "
            "Plan.from_optimizer(…) works with the class itself"
        )


def _comment(line: str) -> str:
    return textwrap.fill(
        printable_lines(line), _WIDTH, initial_indent="# ", subsequent_indent="#   " if line.startswith("- ") else "# ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
