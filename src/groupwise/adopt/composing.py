"""From what a program does with each parameter to the rules that say so.

Two ways are tried, and with each class in use as the first rule's:

    by value   a rule for each class, with the value that most of its parameters have; then a rule for each other value
               of each hyperparameter, whatever class and group it is in. Decay of one set and rates of another stay two
               sentences where the program has the groups of their product.
    by group   a rule for each class; then a rule for each other group of the program, with all that it changes.

Rates that fall from level to level are a `layer_decay` (`ladders`). What no optimizer has gets no algorithm, or stays
frozen below a first rule that matches everything. `drafts` gives all of these, the shortest first.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from groupwise.adopt.covers import Candidate, Covers, bits, members_of
from groupwise.adopt.ladders import RateLadder, ladder, rate
from groupwise.adopt.program import Key, Program, Target, held
from groupwise.optim.algorithms import hyperparameters_of
from groupwise.plan import REQUIRED, Rule, scale
from groupwise.plan.algorithm import LEARNING_RATES

T = TypeVar("T")

USUAL: Final = ("entries", "parameters", "fastest")
"""Which value a first rule declares: that of most numbers, of most parameters, or the largest rate."""

_MISSING: Final = object()
_DIGITS = 4  # of a factor that a person may have written
_CLASSES = 4  # that are tried as the first rule's


@dataclass(frozen=True)
class Draft:
    """Rules that may equal the program, and how much there is to read."""

    rules: tuple[Rule, ...]
    cost: float


@dataclass
class _Line:
    """A rule in the making: what it is for, what it matches, and what it declares."""

    must: int
    found: Candidate
    declared: dict[Key, object] = field(default_factory=dict)
    algorithm: type | None = None
    trainable: bool | None = None


def drafts(program: Program) -> list[Draft]:
    """Every set of rules that was thought of, the shortest first."""
    covers = Covers(program.infos)
    algorithms = _sizes(program, lambda target: target.algorithm)
    steps = ladder(program.infos, program.targets, covers.scopes)
    made = [
        _Composer(program, covers, first, everything, rates, usual).draft(by_group)
        for first, _ in algorithms.most_common(_CLASSES)
        for everything in (False, True)
        for rates in ((None,) if steps is None else (steps, None))
        for usual in USUAL
        for by_group in (False, True)
    ]
    return sorted(made, key=lambda draft: draft.cost)


class _Composer:
    """One way to write a program down: the first rule's class, and whether that rule matches everything."""

    def __init__(
        self, program: Program, covers: Covers, first: type, everything: bool, steps: RateLadder | None, usual: str
    ) -> None:
        self.targets = program.targets if steps is None else steps.without(program.targets)
        self.infos, self.covers, self.everything, self.steps = program.infos, covers, everything, steps
        sizes = _sizes(program, lambda target: target.algorithm)
        self.algorithms = [first, *(cls for cls, _ in sizes.most_common() if cls is not first)]
        self.usual = usual
        self.owned = self._of(lambda target: True)
        self.lines: list[_Line] = []

    def draft(self, by_group: bool) -> Draft:
        """The rules, in order."""
        for position, cls in enumerate(self.algorithms):
            self._algorithm(cls, position, by_group)
        if by_group:
            self._groups()
        else:
            self._values()
        labels = self._labels()
        if self.steps is not None:
            decay: dict[Key, object] = {self.steps.key: self.steps.factor}
            self.lines.append(_Line(self.steps.scope.members & self.owned, self.steps.scope, decay))
        self._frozen()
        labelled = _joined(list(zip(self.lines, [*labels, *[None] * len(self.lines)], strict=False)))
        cost = sum(1 + line.found.cost + 0.3 * len(line.declared) for line, _ in labelled)
        return Draft(tuple(_rule(line, label) for line, label in labelled), cost)

    def _of(self, wanted: Callable[[Target], bool]) -> int:
        return sum(1 << i for i, target in enumerate(self.targets) if target is not None and wanted(target))

    def _algorithm(self, cls: type, position: int, by_group: bool) -> None:
        """The rule that names a class, with the values that most of its parameters have."""
        region = self._of(lambda target: target.algorithm is cls)
        later = self._of(lambda target: target.algorithm in self.algorithms[position + 1 :])
        every = position == 0 and self.everything
        found = self.covers.find(self.covers.all if every else region, self.covers.all if every else region | later)
        own = [(target, self._weight(i)) for i in bits(region) if (target := self.targets[i]) is not None]
        line = _Line(region, found, algorithm=cls)
        commonest = _largest((target.key, size) for target, size in own)
        usual = held(next(target for target, _ in own if target.key == commonest))
        for key in dict.fromkeys(key for target, _ in own for key in held(target)):
            values = ((held(target).get(key, _MISSING), size) for target, size in own)
            value = usual.get(key, _MISSING) if by_group else _largest(values)
            if key[1] in LEARNING_RATES and self.usual == "fastest" and not by_group:
                value = held(max((target for target, _ in own), key=lambda target: rate(target, key) or 0.0))[key]
            if value is not _MISSING:
                line.declared[key] = value
        self._declare_defaults(line)
        self.lines.append(line)

    def _weight(self, i: int) -> int:
        return 1 if self.usual == "parameters" else self.infos[i].numel

    def _declare_defaults(self, line: _Line) -> None:
        """Declare what an earlier rule declares for another class: no default takes its place in silence."""
        for key in dict.fromkeys(key for before in self.lines for key in before.declared if key[0] == "values"):
            default = _default(line.algorithm, key)
            if key not in line.declared and default not in (_MISSING, None):
                line.declared[key] = default

    def _standing(self, i: int) -> dict[Key, object]:
        """What the rules so far say of a parameter."""
        target, standing = self.targets[i], dict[Key, object]()
        for line in self.lines:
            if line.found.members >> i & 1 and line.algorithm in (None, target.algorithm if target else None):
                standing |= line.declared
        return standing

    def _changes(self) -> dict[Key, dict[int, object]]:
        """By key the parameters for which it has to be another than stands, with what it has to be."""
        wanted: dict[Key, dict[int, object]] = {}
        for i, target in enumerate(self.targets):
            if target is None:
                continue
            standing, own = self._standing(i), held(target)
            for key in dict.fromkeys([*standing, *own]):
                default = _default(target.algorithm, key)
                value = own.get(key, default)
                if value is not _MISSING and standing.get(key, default) != value:
                    wanted.setdefault(key, {})[i] = value
        return wanted

    def _values(self) -> None:
        """A rule for each value that is not yet as it has to be."""
        for key, by_parameter in self._changes().items():
            sets: dict[object, int] = {}
            for i, value in by_parameter.items():
                sets[value] = sets.get(value, 0) | 1 << i
            left, factors = _union(sets.values()), False
            for value, must in sorted(sets.items(), key=lambda pair: -pair[1].bit_count()):
                left &= ~must
                factor = None if factors and left else self._factor(key, must)
                found = self.covers.find(must, must | (0 if factor else left) | self._indifferent())
                self.lines.append(_Line(must, found, {key: factor or value}))

    def _groups(self) -> None:
        """A rule for each group that is not yet as it has to be."""
        changes: dict[int, dict[Key, object]] = {}
        for key, by_parameter in self._changes().items():
            for i, value in by_parameter.items():
                changes.setdefault(i, {})[key] = value
        sets: dict[object, int] = {}
        for i, of_parameter in changes.items():
            alike = frozenset(of_parameter.items())
            sets[alike] = sets.get(alike, 0) | 1 << i
        for must in sorted(sets.values(), key=lambda members: -members.bit_count()):
            found = self.covers.find(must, must | self._indifferent())
            self.lines.append(_Line(must, found, dict(changes[next(bits(must))])))

    def _indifferent(self) -> int:
        """The parameters of which nothing is said: without an algorithm no value has an effect."""
        return 0 if self.everything else self.covers.all & ~self.owned

    def _factor(self, key: Key, must: int) -> object:
        """A short factor between the scheduled rate that stands and the one that is wanted, where there is one."""
        found = set()
        for i in bits(must):
            target, standing = self.targets[i], self._standing(i).get(key)
            own = target.bases.get(key[1]) if target else None
            known = (t.bases[key[1]] for t in self.targets if t and key[1] in t.bases and t.values[key[1]] == standing)
            other = next(known, None)
            if own is None or other is None or other.unit != own.unit or other.rate == 0:
                return None
            found.add(_short(own.rate / other.rate))
        ratio = found.pop() if len(found) == 1 else None
        return None if ratio in (None, 1.0) or key[1] not in LEARNING_RATES else scale(ratio)

    def _frozen(self) -> None:
        """Keep what no optimizer has from training: all of it below a rule for everything, else what would train."""
        unowned = self.covers.all & ~self.owned
        must = unowned if self.everything else unowned & members_of(self.infos, lambda info: info.requires_grad)
        if must:
            self.lines.append(_Line(must, self.covers.find(must, unowned), trainable=False))

    def _labels(self) -> list[str | None]:
        """What the program calls the groups that each rule is for; None where it does not, or they are many."""
        named: dict[str, int] = {}
        for i, target in enumerate(self.targets):
            if target is not None:
                named[target.name] = named.get(target.name, 0) | 1 << i
        labels: list[str | None] = []
        for position, line in enumerate(self.lines):
            own = line.must & ~_union(later.must for later in self.lines[position + 1 :])
            inside = [name for name, members in named.items() if members & own]
            whole = "" not in inside and 0 < len(inside) <= 3 and _union(named[name] for name in inside) == own
            labels.append(" + ".join(inside) if whole else None)
        return labels


def _sizes(program: Program, what: Callable[[Target], T]) -> Counter[T]:
    """How many numbers the parameters hold of which `what` is the same."""
    sizes: Counter[T] = Counter()
    for info, target in zip(program.infos, program.targets, strict=True):
        if target is not None:
            sizes[what(target)] += info.numel
    return sizes


def _largest(sizes: Iterable[tuple[T, int]]) -> T:
    """What has most numbers together."""
    together: Counter[T] = Counter()
    for value, size in sizes:
        together[value] += size
    return together.most_common(1)[0][0]


@functools.cache
def _arguments(cls: type) -> Mapping[str, object]:
    return hyperparameters_of(cls)


def _default(cls: type | None, key: Key) -> object:
    """The default of a class's argument; `_MISSING` for what is none, or has none."""
    default = _arguments(cls).get(key[1], REQUIRED) if cls is not None and key[0] == "values" else REQUIRED
    return _MISSING if default is REQUIRED else tuple(default) if isinstance(default, list) else default


def _short(ratio: float) -> float | None:
    """A factor that few digits write; None where they do not."""
    rounded = float(f"{ratio:.{_DIGITS}g}")
    return rounded if abs(rounded - ratio) <= 1e-12 * abs(ratio) else None


def _union(sets: Iterable[int]) -> int:
    union = 0
    for members in sets:
        union |= members
    return union


def _joined(lines: Sequence[tuple[_Line, str | None]]) -> list[tuple[_Line, str | None]]:
    """Rules that match the same become one, where that changes no order."""
    made: list[tuple[_Line, str | None]] = []
    for line, label in lines:
        twin = next((i for i, (other, _) in enumerate(made) if other.found.match == line.found.match), None)
        if twin is None or line.trainable is not None or line.algorithm is not None:
            made.append((line, label))
            continue
        between = [key for other, _ in made[twin:] for key in other.declared]
        if set(between) & set(line.declared) or any(other.algorithm is not None for other, _ in made[twin + 1 :]):
            made.append((line, label))
        else:
            made[twin][0].declared |= line.declared
    return made


def _shortest_name(cls: type | None) -> type | str | None:
    """A class by the nearest package to the top that has it, as people import it; else itself."""
    if cls is None or cls.__module__.startswith("torch.optim"):
        return cls
    parts = cls.__module__.split(".")
    name = cls.__qualname__
    for module in (".".join(parts[:i]) for i in range(1, len(parts))):
        if module in sys.modules and getattr(sys.modules[module], name, None) is cls:
            return f"{module}:{name}"
    return cls


def _rule(line: _Line, label: str | None) -> Rule:
    """The rule; what the constructor of `Rule` calls otherwise stands in its mappings."""
    values: dict[str, object] = {key: value for (kind, key), value in line.declared.items() if kind == "values"}
    extra: dict[str, object] = {key: value for (kind, key), value in line.declared.items() if kind == "extra"}
    return Rule(
        line.found.match, label=label, optimizer=_shortest_name(line.algorithm), trainable=line.trainable, extra=extra,
        hyperparameters=values,
    )  # fmt: skip
