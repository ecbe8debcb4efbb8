"""The cascade once more, naively: one parameter at a time, straight from the laws.

A `Sentence` is a rule in neutral form. Values are pairs of a word and what it is about: `("value", 0.1)`,
`("exact", 0.1)`, `("scale", 0.5)`, `("decay", 0.75)`; a hyperparameter's name is that of a slot.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from groupwise.schedules import Schedule
from tests.plan.trees import Occurrence

Value = tuple[str, Any]

DEFAULTS: dict[str, dict[str, Any]] = {
    "Adaptive": {"lr": 1e-3, "betas[0]": 0.9, "betas[1]": 0.999, "weight_decay": 0.01},
    "Plain": {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0},
    "Sparse": {"lr": 1e-3, "betas[0]": 0.9, "betas[1]": 0.95},
}
PROBLEMS = {
    "coverage": "ha(s|ve) no optimizer",
    "rate": "has no declared lr",
    "dropped": "would silently lose",
    "unknown": "has no hyperparameter|unknown hyperparameter",
    "dead": "has no effect|matches no parameter",
    "one level": "does nothing, for all that the rule matches",
}


@dataclass
class Sentence:
    where: Callable[[Occurrence], bool]
    optimizer: str | None = None
    values: dict[str, Value] = field(default_factory=dict)
    trainable: Any = None
    clip: Any = None
    optional: bool = False


@dataclass
class Verdict:
    """What stands for one parameter, and which sentences had a say in it."""

    algorithm: str | None = None
    slots: dict[str, tuple[Any, list[Any]]] = field(default_factory=dict)
    trainable: Any = None
    clip: int | None = None
    spoke: set[int] = field(default_factory=set)
    last: dict[str, int] = field(default_factory=dict)
    problems: set[str] = field(default_factory=set)

    def at(self, slot: str, step: int) -> float:
        base, factors = self.slots[slot]
        return reduce(lambda x, f: x * (f.at(step) if isinstance(f, Schedule) else f), factors, _at(base, step))


def judge(occurrence: Occurrence, plan: list[Sentence], tops: Mapping[tuple[int, str], int]) -> Verdict:
    """One parameter. `tops` holds the deepest level that each sentence matches, by sentence and network."""
    it = Verdict()
    heard = [i for i, sentence in enumerate(plan) if sentence.where(occurrence)]
    below = {i: tops[i, occurrence.network] - occurrence.depths[0] for i in heard}
    namers = _last(it, "optimizer", [i for i in heard if plan[i].optimizer])
    it.algorithm = plan[namers].optimizer if namers is not None else None
    freezer = _last(it, "trainable", [i for i in heard if plan[i].trainable is not None])
    it.trainable = plan[freezer].trainable if freezer is not None else None
    if isinstance(it.trainable, tuple):
        word, n = it.trainable
        it.trainable = _unfrozen(n, below[freezer]) if word == "down" else (word, n, 1)  # type: ignore[index]
    clipper = _last(it, "clip", [i for i in heard if plan[i].clip is not None])
    it.clip = clipper if clipper is not None and plan[clipper].clip is not False else None
    known = DEFAULTS[it.algorithm] if it.algorithm else {slot: None for i in heard for slot in plan[i].values}
    mine = [i for i in heard if it.algorithm is None or plan[i].optimizer in (None, it.algorithm)]
    for slot in dict.fromkeys(slot for i in mine for slot in plan[i].values):
        if slot in known:
            _settle(it, slot, [(i, plan[i].values[slot]) for i in mine if slot in plan[i].values], known[slot], below)
            continue
        last = [i for i in mine if slot in plan[i].values][-1]
        if plan[last].values[slot] in (("value", 0.0), ("exact", 0.0)):
            it.spoke.add(last)
        else:
            it.problems.add("unknown")
    if it.algorithm is None:
        trains = occurrence.tensor.requires_grad if it.trainable is None else it.trainable is not False
        it.problems |= {"coverage"} if trains else set()
        return it
    for slot, default in known.items():
        drops = [i for i in heard if i not in mine and plan[i].values.get(slot, ("scale",))[0] in ("value", "exact")]
        if slot not in it.last and drops and plan[drops[-1]].values[slot][1] != default:
            it.problems.add("dropped")
    it.problems |= set() if "lr" in it.last else {"rate"}
    return it


def _settle(it: Verdict, slot: str, said: list[tuple[int, Value]], default: Any, below: Mapping[int, int]) -> None:
    stands = max((k for k, (_, value) in enumerate(said) if value[0] in ("value", "exact")), default=None)
    deaf = stands if stands is not None and said[stands][1][0] == "exact" else -1
    multiplying = [(i, value) for k, (i, value) in enumerate(said) if value[0] in ("scale", "decay") and k > deaf]
    factors = [value[1] if value[0] == "scale" else value[1] ** below[i] for i, value in multiplying]
    it.slots[slot] = (default if stands is None else said[stands][1][1], [f for f in factors if f != 1.0])
    it.spoke |= {i for i, _ in multiplying}
    if stands is not None:
        it.last[slot] = said[stands][0]
        it.spoke.add(said[stands][0])


def _last(it: Verdict, name: str, declaring_rules: list[int]) -> int | None:
    if not declaring_rules:
        return None
    it.last[name] = declaring_rules[-1]
    it.spoke.add(declaring_rules[-1])
    return declaring_rules[-1]


def _unfrozen(n: int, below: int) -> Any:
    return ("after", n, below) if below else True


def _at(base: Any, step: int) -> float:
    return base.at(step) if isinstance(base, Schedule) else base


def trains_at(occurrence: Occurrence, verdict: Verdict, step: int) -> bool:
    if verdict.trainable is None:
        return occurrence.tensor.requires_grad
    if isinstance(verdict.trainable, bool):
        return verdict.trainable
    word, n, times = verdict.trainable
    return step >= n * times if word == "after" else step < n


def judge_all(occurrences: list[Occurrence], plan: list[Sentence]) -> tuple[list[Verdict], set[str]]:
    """Every parameter's verdict, and every kind of problem that the plan has on this model."""
    tops: dict[tuple[int, str], int] = {}
    for occurrence in occurrences:
        for i, sentence in enumerate(plan):
            if sentence.where(occurrence):
                tops[i, occurrence.network] = max(tops.get((i, occurrence.network), 0), occurrence.depths[0])
    verdicts = [judge(occurrence, plan, tops) for occurrence in occurrences]
    problems = {problem for verdict in verdicts for problem in verdict.problems}
    alive = {i for verdict in verdicts for i in verdict.spoke}
    if any(i not in alive and not sentence.optional for i, sentence in enumerate(plan)):
        problems.add("dead")
    if any(_is_on_one_level(sentence, occurrences) for sentence in plan):
        problems.add("one level")
    return verdicts, problems


def _is_on_one_level(sentence: Sentence, occurrences: list[Occurrence]) -> bool:
    down = isinstance(sentence.trainable, tuple) and sentence.trainable[0] == "down"
    matched = {(o.network, o.depths[0]) for o in occurrences if sentence.where(o)}
    levels = bool(matched) and len(matched) == len({network for network, _ in matched})
    return levels and not sentence.optional and (down or any(word == "decay" for word, _ in sentence.values.values()))
