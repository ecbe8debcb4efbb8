"""An exception at any line of ours, in the middle of a call.

Afterwards all is as before or as after a call that came through; and where it is as before, the call made again comes
to what its twin came to. An optimizer's own step is as torch's: what it has updated it has updated; but groups, hooks,
`requires_grad` and the gradient mode are as before, and training goes on.
"""

import contextlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from tests.campaigns.campaign import Attempt
from tests.campaigns.frozen import differences
from tests.campaigns.injected import Lines, is_injected
from tests.campaigns.outcome import Outcome, foreign, loss, survived
from tests.campaigns.worlds import METHODS, Balancing, Observing, Training, World

WHOLE: Final = (
    "tick", "observe", "load", "load_scheduler", "regroup", "regroup_a_model", "add_param_group", "save", "load_file",
)  # fmt: skip
BALANCING: Final = ("backward", "accumulate", "learn", "after_step", "end_epoch", "forget", "discard", "load_balancer")
STEPS: Final = ("step", "step_of_a_view")
UPDATED: Final = ("weights", "state", "gradients", "hooks", "mode")
KEPT: Final = ("order", "trains", "plan", "report", "hooks", "mode")
"""What a step that is broken off leaves as it was."""


class Case(NamedTuple):
    """A call in a world: how many lines of ours it runs, how everything is before it and after it, and who judges."""

    make: Callable[[], World]
    call: str
    lines: int
    before: dict[str, Any]
    after: dict[str, Any]
    judged: "Judge"
    within: str

    def work(self, world: World) -> Callable[[], object]:
        """The call, with its arguments made ready, and torch's generator where it always is then."""
        made = world.work(self.call)
        torch.manual_seed(5)
        return made


Judge = Callable[["Case", dict[str, Any], World, str], Outcome]


def whole(one: "Case", now: dict[str, Any], _world: World, at: str) -> Outcome:
    """All as before or all as after."""
    before, after = differences(one.before, now), differences(one.after, now)
    if before and after:
        return loss(f"{one.call} at {at}: neither before ({', '.join(before)}) nor after ({', '.join(after)})")
    return survived("as after" if before else "as before")


def goes_on(one: "Case", now: dict[str, Any], world: World, at: str) -> Outcome:
    """An optimizer's step: what goes with it is as before, and the next one comes through."""
    if wrong := [key for key in KEPT if now[key] != one.before[key]]:
        return loss(f"{one.call} at {at}: not as it was: {', '.join(wrong)}")
    world.work("step")()
    return survived("goes on")


def observed(one: "Case", now: dict[str, Any], _world: World, at: str) -> Outcome:
    """A step that is observed: the update is made whole or not at all, and its record says nothing that is not so."""
    wrong = [key for key in UPDATED if now[key] != one.after[key]]
    if wrong and any(now[key] != one.before[key] for key in UPDATED):
        return loss(f"{one.call} at {at}: the update is another one: {', '.join(wrong)}")
    if now["last"] != one.before["last"] and not now["last"] <= one.after["last"]:
        return loss(f"{one.call} at {at}: the record says {sorted(now['last'] - one.after['last'])[:3]}")
    return survived("no update" if wrong else "update made")


def case(make: Callable[[], World], call: str, judged: Judge = whole, within: str = "") -> Case:
    """The case, measured on a twin; the first time is to warm up."""
    for _ in range(2):
        world = make()
        one = Case(make, call, 0, {}, {}, judged, within)
        work = one.work(world)
        before, lines = world.held(), Lines(within=within)
        if error := lines.run(work):
            raise error
    return one._replace(lines=lines.seen, before=before, after=world.held())


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[Attempt]:
    """Each call in each world, broken off somewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield of(cases(folder))


def cases(folder: Path) -> list[Case]:
    """Every call in every world."""
    found = [case(lambda: Training(folder), call) for call in WHOLE]
    found += [case(lambda: Training(folder), call, goes_on) for call in STEPS]
    for name, method in METHODS.items():
        for call in BALANCING if name == "AutoLambda" else BALANCING[:2] + BALANCING[3:]:
            busy = call in ("backward", "accumulate", "discard") and name != "AutoLambda"
            made = [lambda m=method: Balancing(m(), False), lambda m=method: Balancing(m(), True)]
            found += [case(each, call) for each in made[: 1 + busy]]
    found += [case(Observing, call) for call in ("log", "tasks", "micro_batch", "discard_told")]
    return [*found, case(Observing, "observed_step", observed, within="observe/")]


def of(known: list[Case]) -> Attempt:
    """An attempt at one of these. What is as before is broken off again, until a call is let through."""
    worlds: dict[int, World] = {}

    def attempt(draw: random.Random) -> Outcome:
        i = draw.randrange(len(known))
        world = worlds.pop(i, None) or known[i].make()
        found = broken_off(known[i], world, draw.randint(1, known[i].lines))
        if found.said != "as before":
            return found
        if draw.random() < 0.7:
            worlds[i] = world
            return found
        known[i].work(world)()
        wrong = differences(known[i].after, world.held())
        return loss(f"{known[i].call}: made again, another {wrong}") if wrong else survived("made again, as its twin")

    return attempt


def broken_off(one: Case, world: World, place: int) -> Outcome:
    """What comes of an exception at that line of a call."""
    lines, swallowed = Lines(place, one.within), list[Any]()
    work = one.work(world)
    if wrong := differences(one.before, world.held()):
        return loss(f"{one.call}: a call that failed has left another {wrong}")
    with _unraisable(swallowed):
        error = lines.run(work)
    if error is None:
        return _through(one, world, lines)
    if not is_injected(error):
        return foreign(error)
    return one.judged(one, world.held(), world, lines.at)


def _through(one: Case, world: World, lines: Lines) -> Outcome:
    """Nothing came out: the line was not reached, or what it raised was dealt with."""
    wrong = differences(one.after, world.held())
    return (
        loss(f"{one.call} at {lines.at}: nothing was raised, and another {wrong}")
        if wrong
        else survived("came through")
    )


@contextlib.contextmanager
def _unraisable(found: list[Any]) -> Iterator[None]:
    before, sys.unraisablehook = sys.unraisablehook, found.append
    try:
        yield
    finally:
        sys.unraisablehook = before
