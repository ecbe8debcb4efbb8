"""Weights of losses that do nothing: Adam divides a gradient by its own size.

Where all terms that reach a parameter have one weight, its gradient is theirs times the weight. An optimizer whose
update does not depend on the scale of the gradients (Adam and its kin, but for eps and a decay that is added to the
gradient) makes the same update for any weight. Weights settle the balance on what is shared, and nowhere else; the pace
of a head is its learning rate. A clip over the joint norm is the one thing that couples a head to the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from groupwise._spelling import number
from groupwise.audit.checks.check import Check
from groupwise.audit.finding import Finding
from groupwise.audit.graph import Term
from groupwise.audit.inspected import Group, Program, names
from groupwise.errors import listed
from groupwise.select import ParameterInfo

INVARIANT = {
    "Adam", "AdamW", "Adamax", "NAdam", "SparseAdam", "RMSprop", "Rprop", "Adagrad", "Adadelta", "Adafactor", "Muon",
    "Lion", "LAMB", "Lamb",
}  # fmt: skip
"""Algorithms whose update is the same at any scale of the gradients; not RAdam, whose first steps are not adaptive."""

_COUPLED = {"Adam", "Adamax", "NAdam", "RMSprop", "Adagrad", "Adadelta"}


def _idle(program: Program) -> Iterator[Finding]:
    terms = [term for term in program.reach.terms if term.weight] if program.reach is not None else []
    weights = dict.fromkeys(term.weight for term in terms)
    for weight in weights if len(weights) > 1 else ():
        heads = [i for i in program.parameters if weight != 1 and _only(weight, i, terms) and _invariant(program, i)]
        if heads:
            tasks = dict.fromkeys(repr(term.task) for term in terms if term.weight == weight)
            kinds = sorted({program.owners[id(info.parameter)][0].kinds[0] for info in heads})
            yield Finding(
                "idle-weight", "note", names(heads),
                f"the weight {number(weight)} in {listed(tasks)} does nothing to {program.brief(heads)}: every term "
                f"that reaches them has it, and {' and '.join(kinds)} makes the same update at any scale",
                "to slow a head down, lower its learning rate: a group of its own",
            )  # fmt: skip


def _only(weight: float, info: ParameterInfo, terms: Iterable[Term]) -> bool:
    """Whether the terms that reach a parameter, and there are some, all have this weight."""
    return {term.weight for term in terms if id(info.parameter) in term.leaves} == {weight}


def _invariant(program: Program, info: ParameterInfo) -> bool:
    groups = program.owners.get(id(info.parameter), ())
    return info.requires_grad and bool(groups) and all(map(_ignores_scale, groups))


def _ignores_scale(group: Group) -> bool:
    coupled = _COUPLED & set(group.kinds) and not group.settings.get("decoupled_weight_decay", "AdamW" in group.kinds)
    added = bool(coupled) and group.number("weight_decay") > 0
    return bool(INVARIANT & set(group.kinds)) and not added


WEIGHTS: Iterable[Check] = (
    Check(
        "idle-weight", "note", ("losses",), "a loss's weight that does nothing to a head under Adam",
        "the loss in the log shrinks by the weight; the head's updates stay as large",
        "a learning rate of its own for the head", _idle,
    ),
)  # fmt: skip
