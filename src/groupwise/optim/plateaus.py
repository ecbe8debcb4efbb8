"""The memories of plateaus over a resume or a regroup: found by the rule that a plateau stands in, not by its text.

So a plateau can be edited, as everything else in a plan can: it keeps its reductions, its count and its best metric,
and goes on by its new settings. A plateau takes the memory of the one that the same rule declared for the same
hyperparameter (of the one of the same text, if there are several); else of one of the same text elsewhere; else of the
one that its parameters had; else of the only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from groupwise._spelling import shown
from groupwise.errors import ScheduleError, StateError, listed
from groupwise.optim.scheduled_values import ScheduledValues
from groupwise.plan import Resolution
from groupwise.plan.preview import holds
from groupwise.schedules import PlateauState, Schedule, decode, encode, plateau, plateaus


@dataclass(frozen=True)
class Standing:
    """Where a plateau stands in a plan: `rule: hyperparameter`, and `parameter: hyperparameter`."""

    rules: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """What a plateau remembers, the plateau that made it (None if that is not known), and where it stood."""

    state: PlateauState
    of: plateau | None
    standing: Standing

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        table = {} if self.of is None else encode(self.of)
        stood = {name: list(getattr(self.standing, name)) for name in _STANDING}
        return {**self.state.to_dict(), "plateau": table, **stood}

    @staticmethod
    def from_dict(data: object) -> Memory:
        """What `to_dict` wrote. Raises `StateError` for anything else."""
        if not isinstance(data, Mapping):
            raise StateError(f"a plateau's state is a mapping, not {type(data).__name__}")
        table = data.get("plateau", {})
        state = PlateauState.from_dict({key: data[key] for key in data if key not in ("plateau", *_STANDING)})
        try:
            made_by = decode(table) if table else None
        except ScheduleError as error:
            raise StateError(f"a plateau's state: {error}") from None
        standing = Standing(*(_texts(data.get(name, [])) for name in _STANDING))
        return Memory(state, made_by if isinstance(made_by, plateau) else None, standing)


_STANDING: Final = ("rules", "parameters")


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise StateError(f"where a plateau stood is a list of texts, not {shown(value)}")
    return tuple(value)


def to_memories(scheduled_values: ScheduledValues) -> dict[str, Memory]:
    """The memories that plateaus have now, by the exact text of each."""
    standing = _standing(scheduled_values.resolution) if scheduled_values.states else {}
    return {repr(p): Memory(state, p, standing.get(p, Standing())) for p, state in scheduled_values.states.items()}


def saved_memories(saved: Mapping[Any, object]) -> dict[str, Memory]:
    """The memories in a checkpoint. Raises `StateError` for what is none."""
    return {str(text): Memory.from_dict(data) for text, data in saved.items()}


def carried(memories: Mapping[str, Memory], resolution: Resolution) -> tuple[dict[plateau, PlateauState], list[str]]:
    """The states of a plan's plateaus, from memories of a plan that may have been another, and what there is to say."""
    here = _standing(resolution)
    given = {p: found for p, own in here.items() if (found := _memory_of(p, own, memories, len(here)))}
    taken = set(given.values())
    left = [text for text, memory in memories.items() if text not in taken and memory.state.best is not None]
    states = {p: p.carried(memories[text].state, memories[text].of or p) for p, text in given.items()}
    return states, [_left(text, memories[text], here) for text in left]


def _memory_of(p: plateau, standing: Standing, memories: Mapping[str, Memory], count: int) -> str:
    """The text of the memory that a plateau of the plan takes over; "" if there is none."""
    stood = [(rule, t) for rule in standing.rules for t, memory in memories.items() if rule in memory.standing.rules]
    unedited = (t for _, t in stood if t == repr(p))
    by_rule = (t for _, t in stood)
    by_text = (t for t in memories if t == repr(p))
    own = set(standing.parameters)
    by_parameter = (t for t, memory in memories.items() if not own.isdisjoint(memory.standing.parameters))
    alone = (t for t in memories if len(memories) == count == 1)
    return next(chain(unedited, by_rule, by_text, by_parameter, alone), "")


def _left(text: str, memory: Memory, here: Mapping[plateau, object]) -> str:
    where, plateaus_here = listed(memory.standing.rules, 2) or "an unknown rule", listed(map(str, here), 3) or "none"
    return (
        f"the plan has no plateau any more where {text} stood ({where}): what it had reached, "
        f"{memory.state.value:.3g}, is left. The plateaus of this plan: {plateaus_here}"
    )


def _standing(resolution: Resolution) -> dict[plateau, Standing]:
    """Every plateau of a plan, and where it stands."""
    rules: dict[plateau, dict[str, None]] = {}
    parameters: dict[plateau, dict[str, None]] = {}
    for whose, names, schedule in _schedules(resolution):
        for i, p in enumerate(plateaus(schedule)):
            number = f", plateau {i + 1}" if i else ""
            rules.setdefault(p, {}).update(dict.fromkeys(f"{each}{number}" for each in whose))
            parameters.setdefault(p, {}).update(dict.fromkeys(f"{name}{number}" for name in names))
    return {p: Standing(tuple(rules[p]), tuple(parameters[p])) for p in rules}


def _schedules(resolution: Resolution) -> Iterator[tuple[list[str], list[str], Schedule]]:
    """Every schedule with a plateau: the rules and the parameters that it is of, each with the hyperparameter."""
    for group in resolution.groups:
        for key, setting in group.settings.items():
            for schedule in (each for each in setting.schedules if plateaus(each)):
                rules = [resolution.rules[i] for i in group.rules]
                labels = [rule.label for rule in rules if any(holds(x, schedule) for x in rule.values.values())]
                names = [f"{info.name}: {key}" for info in group.parameters]
                yield [f"{label}: {key}" for label in labels or [group.name]], names, schedule
    for name, schedule in resolution.values.items():
        yield [f"values: {name}"], [], schedule
