"""The silent mistakes of a compiled Keras model, in the words of `groupwise.audit`.

    for finding in groupwise.keras.audit(model):
        print(finding)

Keras warns of little: of a layer that is unfrozen after `compile`, a normalisation that goes on averaging in a frozen
part, a pattern that matches nothing. What it does may be meant, so a finding says what comes of it, and the way out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType
from typing import Any

import keras

from groupwise._finding import SEVERITIES, Finding, Inspection, Severity
from groupwise._spelling import counted, number
from groupwise.errors import listed
from groupwise.keras._keras import excluded_names, map_of, path_of
from groupwise.keras.compiled import Compiled, compiled
from groupwise.keras.grouped_optimizer import GroupedOptimizer
from groupwise.select import ParameterInfo

_SHOWN = 4
_LINES = 12


def is_model(made: object) -> bool:
    """Whether something is a model of Keras."""
    return isinstance(made, keras.Model)


def audit(model: Any) -> list[Finding]:
    """Find the silent mistakes of a compiled model; nothing in it is changed.

        audit(model)   # [] for a healthy one

    Args:
        model: built and compiled, with any optimizer of Keras.

    Returns:
        The findings, worst first; `inspect` says as well what trains, and at which rates.

    Raises:
        AuditError: not a model, not built, or not compiled.
    """
    return inspect(model).findings


def inspect(model: Any) -> Inspection:
    """As `audit`, with the names of the checks, and in sentences what trains and how; it prints as a whole."""
    program = compiled(model)
    found = [finding for check in CHECKS.values() for finding in check(program)]
    findings = sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
    return Inspection(findings, tuple(CHECKS), facts=tuple(_facts(program)))


def _facts(program: Compiled) -> Iterator[str]:
    """What trains, what does not, the rates in force."""
    still = [info for info in program.variables if info not in set(program.trained)]
    sizes = sum(info.numel for info in program.trained), sum(info.numel for info in program.variables)
    yield (
        f"{len(program.trained)} of {counted(len(program.variables), 'variable')} train "
        f"({sizes[0]:,} of {sizes[1]:,} parameters)" + (f"; frozen: {_brief(still)}" if still else "")
    )
    groups = [(each, program.of(each)) for each in program.treatments]
    shown_groups = [(each, held) for each, held in groups if held]
    for each, held in shown_groups[:_LINES]:
        rate = "a rate of its own" if each.rate is None else f"lr {number(each.rate)}"
        decay = f", weight decay {number(each.decay)}" if each.decay else ", no weight decay"
        when = f", {each.when}" if each.when else ""
        yield f"{each.name} ({each.algorithm}): {counted(len(held), 'variable')} at {rate}{decay}{when}"
    if len(shown_groups) > _LINES:
        yield f"and {counted(len(shown_groups) - _LINES, 'more group')}"


def _nothing(program: Compiled) -> Iterator[Finding]:
    if program.variables and not program.trained:
        yield _finding(
            "nothing-trains", "error", (), "every variable of the model is frozen: fit changes nothing",
            "layer.trainable = True where it is to train, then compile again; a plan says it with trainable=",
        )  # fmt: skip


def _unowned(program: Compiled) -> Iterator[Finding]:
    if program.owned is None:
        return
    own = {id(info.parameter) for info in program.variables}
    if program.owned and not program.owned & own:
        yield _finding(
            "foreign-optimizer", "error", (), "the optimizer was made for the variables of another model",
            "give each model an optimizer of its own: model.compile(…)",
        )  # fmt: skip
        return
    lost = [i for i in program.variables if program.differentiated(i) and id(i.parameter) not in program.owned]
    if lost:
        yield _finding(
            "unowned", "error", lost,
            f"the optimizer was made before {_brief(lost)} were unfrozen or added, and does not know them: a step that "
            "is compiled already leaves them as they are, and a new one raises",
            "compile again, with a new optimizer, after layers were unfrozen or added",
        )  # fmt: skip


def _frozen(program: Compiled) -> Iterator[Finding]:
    owned = program.owned or frozenset()
    held = [i for i in program.variables if not program.differentiated(i) and id(i.parameter) in owned]
    if held and program.model.train_function is not None:
        yield _finding(
            "frozen-owned", "warning", held,
            f"{_brief(held)} were frozen after the step was compiled: it goes on training them on tensorflow, and "
            "raises on jax",
            "model.compile(…) again after layer.trainable is changed",
        )  # fmt: skip


def _averaging(program: Compiled) -> Iterator[Finding]:
    if layers := program.averaging:
        yield _finding(
            "averaging-frozen", "warning", (),
            f"{listed(layers, _SHOWN)}: their scale and shift are frozen, and their moving statistics still move with "
            "every batch, so the part does not stay as it is",
            "layer.trainable = False before compile, which also has BatchNormalization use its averages",
        )  # fmt: skip


def _decayed(program: Compiled) -> Iterator[Finding]:
    found = [
        (info, each.decay)
        for each in program.treatments
        for info in program.of(each)
        if each.decay > 0 and not each.still and info.roles & {"norm", "bias"}
    ]
    if found:
        values = " and ".join(number(decay) for decay in sorted({decay for _, decay in found}))
        ours = isinstance(program.optimizer, GroupedOptimizer)
        yield _finding(
            "decayed-norm", "note", [info for info, _ in found],
            f"weight decay {values} pulls norms and biases towards 0: {_brief(info for info, _ in found)}",
            'Rule(role("norm") | role("bias"), weight_decay=0.0)' if ours
            else "optimizer.exclude_from_weight_decay(var_list=[…]) before compile",
        )  # fmt: skip


def _excluded(program: Compiled) -> Iterator[Finding]:
    looked_for = excluded_names(program.optimizer)
    if looked_for is not None and not any(looked_for.search(info.parameter.name) for info in program.trained):
        yield _finding(
            "idle-exclusion", "warning", (),
            f"exclude_from_weight_decay(var_names=[{looked_for.pattern!r}]) matches no variable of "
            "the model: on torch and jax it is compared with names such as 'kernel', not with paths",
            "var_list=[v for v in model.trainable_variables if … in v.path]",
        )  # fmt: skip


def _idle_rate(program: Compiled) -> Iterator[Finding]:
    for each in program.treatments:
        still = program.of(each)
        if each.still and still:
            yield _finding(
                "zero-lr", "warning", still, f"{each.name} ({each.algorithm}): lr is 0 for {_brief(still)}",
                "optimizer.learning_rate = … (of a plan: lr=…); to freeze a part, layer.trainable = False",
            )  # fmt: skip


def _patterns(program: Compiled) -> Iterator[Finding]:
    paths = [path_of(info.parameter) for info in program.variables]
    patterns = map_of(program.optimizer) or ()
    idle = [each for each in patterns if each not in paths and not any(re.fullmatch(each, path) for path in paths)]
    if idle:
        yield _finding(
            "idle-pattern", "warning", (),
            f"MultiOptimizer: {listed(map(repr, idle))} matches no variable, so that what it was for has the default "
            "optimizer",
            "print what is matched: [v.path for v in model.trainable_variables]",
        )  # fmt: skip


def _spent(program: Compiled) -> Iterator[Finding]:
    optimizer = program.optimizer
    for each in program.treatments:
        if each.ended and (held := program.of(each)):
            yield _finding(
                "spent-schedule", "warning", held,
                f"{each.name} ({each.algorithm}): {int(optimizer.iterations)} updates are done, and its schedule has "
                f"come to 0: further updates change nothing of {_brief(held)}",
                "for another run, compile with a new optimizer and a schedule as long as that run",
            )  # fmt: skip
    if not isinstance(optimizer, GroupedOptimizer) or not optimizer.built or optimizer.lengths.total_steps is None:
        return
    done, total = int(optimizer.iterations), optimizer.lengths.total_steps
    scheduled = [g for g in optimizer.resolution.groups if any(s.schedules for s in g.settings.values())]
    if scheduled and done >= total and any(optimizer.rates.get(group.name) == 0 for group in scheduled):
        yield _finding(
            "spent-schedule", "warning", (),
            f"{done} updates of total_steps={total} are done, and a scheduled rate has come to 0: further updates "
            "change nothing there",
            "for another run, a new optimizer with its own total_steps",
        )  # fmt: skip


CHECKS: MappingProxyType[str, Callable[[Compiled], Iterable[Finding]]] = MappingProxyType(
    {
        "nothing-trains": _nothing,
        "unowned": _unowned,
        "frozen-owned": _frozen,
        "averaging-frozen": _averaging,
        "decayed-norm": _decayed,
        "idle-exclusion": _excluded,
        "zero-lr": _idle_rate,
        "idle-pattern": _patterns,
        "spent-schedule": _spent,
    }
)
"""What is looked for, by name."""


def _finding(check: str, severity: Severity, infos: Iterable[ParameterInfo], message: str, remedy: str) -> Finding:
    return Finding(check, severity, tuple(info.name for info in infos), message, remedy)


def _brief(infos: Iterable[ParameterInfo]) -> str:
    return listed((info.name for info in infos), _SHOWN)
