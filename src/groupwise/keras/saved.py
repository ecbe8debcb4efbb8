"""What a saved model keeps of a resolution, so that loading it never groups anew.

The names of Keras variables change when a model is loaded, and so may those of auto-named layers, so rules that matched
once may match something else, or nothing. What is kept is therefore not the groups' names but what led to them: for
each variable, by its position, the rules that matched it and the few facts that the cascade asks for (depth, network,
module). The cascade is a pure function of these and of the plan, so it comes to the same groups and tables.

On loading, positions and shapes must agree. Where they do not, `misfit` names the first variable that does not, and the
optimizer makes no step: a model's weights can be used whatever became of its optimizer.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from groupwise.keras._keras import path_of
from groupwise.plan import Algorithm, Plan, Resolution
from groupwise.plan.group import groups_of
from groupwise.plan.ladder import ladders_of
from groupwise.plan.mistakes import Mistakes
from groupwise.plan.resolve import matches_of, resolve_parameters
from groupwise.select import ParameterInfo
from groupwise.select.info import Occurrence

_OWN = (
    ": the model was changed after the optimizer had met it (enable_lora, quantize, other layers), or is another "
    "architecture. To train it, give it an optimizer of its own: "
    "model.compile(GroupedOptimizer(plan, …).bind(model), …)"
)


@final
@dataclass(frozen=True)
class Described:
    """A variable as the cascade knew it, and the rules that matched it.

    Args:
        position: its place in the build; None where it is not in it.
        order: its place among all variables of the model, which stays when layers are frozen or unfrozen.
    """

    info: ParameterInfo
    rules: tuple[int, ...]
    position: int | None = None
    order: int | None = None

    @property
    def trains_now(self) -> bool:
        """Whether Keras differentiates it at present; as far as is known, where the variable itself is not here."""
        variable = self.info.parameter
        return self.position is not None if variable is None else bool(getattr(variable, "trainable", True))

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for a config."""
        info = self.info
        return {
            "names": list(info.names),
            "shape": list(info.shape),
            "roles": info.reasons,
            "trainable": info.requires_grad,
            "network": info.network,
            "depth": info.depth,
            "module": info.occurrences[0].module,
            "rules": list(self.rules),
            "position": self.position,
            "order": self.order,
            "trains_now": self.trains_now,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Described:
        """What `to_dict` wrote."""
        facts = {"module": data["module"], "network": data["network"], "depth": data["depth"]}
        reasons = tuple(data["roles"].items())
        occurrences = tuple(Occurrence(name, reasons=reasons, **facts) for name in data["names"])
        info = ParameterInfo(occurrences, tuple(data["shape"]), data["trainable"])
        return Described(info, tuple(data["rules"]), data["position"], data["order"])


def repositioned(kept: Sequence[Described], trains_now: Sequence[bool]) -> tuple[Described, ...]:
    """`kept` with the positions that a build has when those train that trained when the model was saved.

    Where the order of the variables is not known, positions stay as they are.
    """
    if [one.position is not None for one in kept] == list(trains_now) or any(one.order is None for one in kept):
        return tuple(kept)
    trained = sorted((one.order or 0) for one, trains in zip(kept, trains_now, strict=True) if trains)
    places = {order: place for place, order in enumerate(trained)}
    return tuple(
        replace(one, position=places[one.order or 0] if trains else None)
        for one, trains in zip(kept, trains_now, strict=True)
    )


def described(plan: Plan, infos: Sequence[ParameterInfo]) -> tuple[Described, ...]:
    """Variables with the rules of `plan` that match them now."""
    matches = matches_of(plan.rules, infos)
    return tuple(Described(info, matching) for info, matching in zip(infos, matches, strict=True))


def resolution_of(plan: Plan, kept: Sequence[Described], algorithms: Mapping[str, Algorithm]) -> Resolution:
    """The resolution that `kept` came from; no selector is asked."""
    known = {rule.optimizer: algorithms[rule.optimizer] for rule in plan.rules if rule.optimizer is not None}
    infos, matches = [one.info for one in kept], [one.rules for one in kept]
    mistakes = Mistakes()
    ladders = ladders_of(plan.rules, infos, matches)
    resolved = resolve_parameters(plan.rules, infos, matches, ladders, known, mistakes)
    mistakes.raise_all()
    by_name = {info.name: decided for info, decided in zip(infos, resolved, strict=True)}
    groups = groups_of(plan.rules, infos, resolved)
    return Resolution(plan.rules, plan.clip, dict(plan.values), groups, known, by_name)


def misfit(kept: Sequence[Described], variables: Sequence[Any]) -> str:
    """Why the groups of a saved optimizer are not those of `variables`; empty if they are."""
    expected = sorted((one for one in kept if one.position is not None), key=lambda one: one.position or 0)
    if len(expected) != len(variables):
        return f"the saved optimizer groups {len(expected)} variables, while this model trains {len(variables)}{_OWN}"
    for i, (one, variable) in enumerate(zip(expected, variables, strict=True)):
        if tuple(variable.shape) != one.info.shape:
            return (
                f"variable {i} of the saved optimizer was {one.info.name!r} with shape {one.info.shape}, while this "
                f"model's is {path_of(variable)!r} with shape {tuple(variable.shape)}{_OWN}"
            )
    return ""


def fitted(kept: Sequence[Described], variables: Sequence[Any]) -> tuple[Described, ...]:
    """`kept` with the variables of a loaded model in their places, which they fit."""
    held = dict(enumerate(variables))
    return tuple(
        one if one.position is None else replace(one, info=replace(one.info, parameter=held[one.position]))
        for one in kept
    )


def fingerprint(facts: Iterable[object]) -> list[int]:
    """One number for each fact, to tell whether a state belongs to these groups."""
    return [zlib.crc32(repr(fact).encode()) & 0x7FFFFFFF for fact in facts]
