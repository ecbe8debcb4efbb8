"""Regular expressions whose matching takes time in proportion to the name, whatever the expression is.

Python's `re` tries one way after another, and an expression of twenty characters can have more ways to cover an
ordinary name than there is time: `(([a-z_]+)+)+X`. A plan file comes from anywhere, so a name is followed through all
ways at once (Thompson 1968): the expression becomes a graph of states, a set of states walks along the name, and where
it has been before it takes the step that it took then. Nothing ordinary has to be refused for that; a rule about
nested repetitions would refuse `(\\w+\\.)*weight`.

What a single character or an empty place (`^`, `\\b`) means is asked of `re` itself. Look ahead and look behind are
followed in the same way, from each place once.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterable
from typing import Final, NamedTuple, final

from groupwise.errors import SelectorError
from groupwise.select.expressions import Either, Here, Look, One, Part, Repeat, Row, parsed, width

MOST: Final = 5_000
"""States of the largest one; `x{1000}` has a thousand."""
_REMEMBERED: Final = 10_000


@final
class Automaton:
    """A regular expression. `covers` a name from end to end, or is `found_in` it.

    Raises:
        SelectorError: the text is no regular expression, too large, or not regular.
    """

    def __init__(self, text: str) -> None:
        self._graph = _Graph()
        self._start = self._graph.add(parsed(text), self._graph.end)

    def covers(self, name: str) -> bool:
        """Whether the whole of `name` fits."""
        return _Walk(self._graph, name).ends(self._start, 0, len(name), self._graph.end)

    def found_in(self, name: str) -> bool:
        """Whether a part of `name` fits."""
        walk = _Walk(self._graph, name)
        return any(walk.ends(self._start, place, None, self._graph.end) for place in range(len(name) + 1))


class _State(NamedTuple):
    """What takes one from a state to those after it: a character, a condition of the place, or nothing."""

    character: One | None
    condition: Here | _Looking | None
    after: list[int]


class _Looking(NamedTuple):
    start: int
    end: int
    width: int
    ahead: bool
    wanted: bool


@final
class _Node:
    """A set of states, and the sets that were reached from it before, by what stood there."""

    __slots__ = ("after", "states")

    def __init__(self, states: frozenset[int]) -> None:
        self.states = states
        self.after: dict[str, _Node] = {}


@final
class _Graph:
    """The states of an expression and of what it looks for; built from the end, so that what follows is known."""

    def __init__(self) -> None:
        self.states: list[_State] = []
        self.end = self._new(None, None, ())
        self.looked_behind = 1
        self._nodes: dict[frozenset[int], _Node] = {}

    def node(self, states: frozenset[int]) -> _Node:
        """The node of a set of states."""
        if states not in self._nodes:
            if len(self._nodes) >= _REMEMBERED:
                self._nodes.clear()
            self._nodes[states] = _Node(states)
        return self._nodes[states]

    def add(self, part: Part, after: int) -> int:
        """The state at which `part` begins, if `after` is what follows it."""
        match part:
            case One():
                return self._new(part, None, (after,))
            case Here():
                self.looked_behind = (
                    3  # an empty place depends on the characters before and after it; `$` also on a last line break
                )
                return self._new(None, part, (after,))
            case Look():
                end = self._new(None, None, ())
                looking = _Looking(self.add(part.part, end), end, width(part.part), part.ahead, part.wanted)
                return self._new(None, looking, (after,))
            case Row():
                return functools.reduce(
                    lambda following, inner: self.add(inner, following), reversed(part.parts), after
                )
            case Either():
                return self._new(None, None, [self.add(inner, after) for inner in part.parts])
            case Repeat():
                return self._repeated(part, after)

    def _repeated(self, part: Repeat, after: int) -> int:
        begin = after
        if part.most is None:
            begin = self._new(None, None, (after,))
            self.states[begin].after.append(self.add(part.part, begin))
        for _ in range((part.most or 0) - part.least if part.most is not None else 0):
            begin = self._new(None, None, (self.add(part.part, begin), after))
        for _ in range(part.least):
            before, begin = begin, self.add(part.part, begin)
            if begin == before:  # nothing, however often
                break
        return begin

    def _new(self, character: One | None, condition: Here | _Looking | None, after: Iterable[int]) -> int:
        if len(self.states) >= MOST:
            raise SelectorError(f"a regex has at most {MOST:,} states: repeat less")
        self.states.append(_State(character, condition, list(after)))
        return len(self.states) - 1


@final
class _Walk:
    """A set of states on its way along a name."""

    def __init__(self, graph: _Graph, name: str) -> None:
        self._graph = graph
        self._name = name
        self._looked: dict[tuple[int, int], bool] = {}

    def ends(self, start: int, place: int, last: int | None, end: int) -> bool:
        """Whether what begins at state `start` and `place` comes to its end at `last`, or anywhere if that is None."""
        node, looked_behind = self._spread((start,), place)[0], self._graph.looked_behind
        for at in range(place, len(self._name) if last is None else last):
            if last is None and end in node.states:
                return True
            node = node.after.get(self._name[at : at + looked_behind]) or self._step(node, at)
            if not node.states:
                return False
        return end in node.states

    def _step(self, node: _Node, at: int) -> _Node:
        char = self._name[at]
        taken = (self._graph.states[state] for state in node.states)
        after = [n for state in taken if state.character and _is(state.character, char) for n in state.after]
        found, looked = self._spread(after, at + 1)
        if not looked:
            node.after[self._name[at : at + self._graph.looked_behind]] = found
        return found

    def _spread(self, begun: Iterable[int], place: int) -> tuple[_Node, bool]:
        """The states themselves, and those that one comes to without a character; whether that took a look around."""
        found, new, looked = set[int](), list(begun), False
        while new:
            number = new.pop()
            if number not in found:
                found.add(number)
                state = self._graph.states[number]
                looked = looked or isinstance(state.condition, _Looking)
                if state.character is None and (state.condition is None or self._holds(number, state.condition, place)):
                    new += state.after
        return self._graph.node(frozenset(found)), looked

    def _holds(self, number: int, condition: Here | _Looking, place: int) -> bool:
        if isinstance(condition, Here):
            return bool(_asked(condition.text, condition.flags).match(self._name, place))
        if (number, place) not in self._looked:
            first = place if condition.ahead else place - condition.width
            last = None if condition.ahead else place
            held = first >= 0 and self.ends(condition.start, first, last, condition.end)
            self._looked[number, place] = held is condition.wanted
        return self._looked[number, place]


def _is(one: One, char: str) -> bool:
    return bool(_asked(one.text, one.flags).fullmatch(char))


@functools.lru_cache(maxsize=4096)
def _asked(text: str, flags: int) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(text, flags)
