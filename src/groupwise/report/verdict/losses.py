"""What the losses did: each sentence rests on `groupwise.report.trend`, which is silent on noise in 99 of 100 runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from groupwise.report.document import Sentence, Tone
from groupwise.report.numbers import finite, formatted, percent, quoted
from groupwise.report.reading import Reading
from groupwise.report.trend import LONG, Course, course
from groupwise.report.verdict.regularizers import WHY, regularizes

SLIGHTLY: Final = 0.02
"""A smaller fall is called slight, however certain it is."""
SETTLED: Final = 0.15
"""By so much the loss fell at the most where it is said to have stood since the start."""
OUTRUN: Final = 0.1
"""Of two networks that work against each other, the loss of one fell to a tenth …"""
OUTRUN_RISE: Final = 2.0
"""… while another's at least doubled."""


def main(reading: Reading) -> Course | None:
    """The course of the loss that stands for the run: `loss`, or the only one whose name says that it is one."""
    return course(main_values(reading))


def main_values(reading: Reading) -> Sequence[float]:
    """The finite values of that loss."""
    losses = reading.losses
    only = losses.get("loss") or (next(iter(losses.values())) if len(losses) == 1 else None)
    return finite(only.values) if only else ()


def stalled(reading: Reading) -> bool:
    """Whether some loss was recorded long enough, and none of them fell; networks that work against each other
    never stall so.
    """
    found = [it for it in [main(reading), *courses(reading).values()] if it is not None]
    known = [it for it in found if it.records >= LONG or it.direction != "unclear"]
    return bool(known) and not any(_learned(it) for it in found) and not reading.rivals


def courses(reading: Reading) -> Mapping[str, Course]:
    """The course of every task's loss; where there are no tasks, of every loss that was logged by name."""
    series = reading.tasks("loss") or reading.losses
    found = {name: course(losses.values) for name, losses in series.items()}
    return {name: it for name, it in found.items() if it is not None}


def loss(reading: Reading) -> Iterator[Sentence]:
    """What the loss did."""
    found = main(reading)
    if found is None:
        return
    where = f"Medians of the first 5 % and the last 10 % of {found.records:,} records."
    if found.blew_up:
        text = f"It blew up at once, and came down {found}. {where}"
        head = f"The loss ended no lower than its first record: {formatted(found.first)} to {formatted(found.end)}"
        yield Sentence("loss", "look", head, text, "losses")
    elif found.direction == "fell":
        slightly = found.change > -SLIGHTLY
        head = f"The loss fell by {formatted(-100 * found.change)} % only" if slightly else f"The loss fell {found}"
        text = f"It went {found}" if slightly else found.how_much.capitalize()
        yield Sentence("loss", "fine", head, f"{text}. {where}", "losses")
    elif found.direction == "rose":
        yield _rose(reading, found, where)
    else:
        varies = f"a record lies {formatted(found.spread)} from the level of the end, in the middle"
        text = f"It went {found}, which is within its noise: {varies}. {where}"
        yield Sentence(
            "loss",
            "look" if found.flat and not reading.rivals else "note",
            "The loss did not clearly change",
            text,
            "losses",
        )


def settled(reading: Reading) -> Iterator[Sentence]:
    """A loss that fell by little at the start, and has stood since: so it is where nothing is learnt of the inputs."""
    found, values = main(reading), main_values(reading)
    if found is None or found.direction != "fell" or not -SETTLED < found.change < 0 or reading.rivals:
        return
    rest = course(values[len(values) // 5 :])
    if rest is not None and rest.flat:
        text = (
            f"It fell by {percent(-found.change)} in the first fifth of {found.records:,} records, and has stood at "
            f"{formatted(rest.end)} since. A level like this is what the mean of the targets reaches, or the classes' "
            "shares alone (log K of K classes): if it is that, inputs and labels say nothing of each other."
        )
        yield Sentence(
            "settled", "note", f"The loss has stood at {formatted(rest.end)} since the start", text, "losses"
        )


def _rose(reading: Reading, found: Course, where: str) -> Sentence:
    tasks = courses(reading) if reading.tasks("loss") else {}
    slight = found.change < SLIGHTLY
    text = f"It ended higher than it began, {found.how_much}. {where}"
    if weights_moved(reading) and not any(it.direction == "rose" for it in tasks.values()):
        text = f"The weights of the tasks moved, so this sum is another at each step; no task's own loss rose. {where}"
    elif not slight and not reading.rivals:
        return Sentence("loss", "look", f"The loss rose {found}", text, "losses")
    head = f"The loss rose {found.how_much}" if slight else f"The loss rose {found}"
    return Sentence("loss", "note", head, text, "losses")


def weights_moved(reading: Reading) -> bool:
    """Whether the weights of tasks changed, so that the weighted sum is another at each step."""
    values = [finite(series.values) for series in reading.tasks("weight").values()]
    return any(max(found, default=0.0) > min(found, default=0.0) for found in values)


def turned(reading: Reading) -> Iterator[Sentence]:
    """A loss that fell and rose again."""
    if reading.rivals:
        return
    whole = None if weights_moved(reading) else main(reading)
    parts = {task: it for task, it in courses(reading).items() if it != whole}
    named = {"The loss": whole} | {f"The loss of '{task}'": it for task, it in parts.items()}
    for what, found in named.items():
        if found is not None and found.turned and found.direction != "rose":
            times = formatted(found.end / found.lowest)
            text = (
                f"Its lowest level was {formatted(found.lowest)}; it ended at {formatted(found.end)}, "
                f"{times} times that."
            )
            yield Sentence("turned", "look", f"{what} turned and rose again", text, "losses")


def tasks(reading: Reading) -> Iterator[Sentence]:
    """Which tasks learned, and which did not."""
    found = courses(reading) if reading.tasks("loss") else {}
    learned = [task for task, it in found.items() if it.direction == "fell"]
    if learned:
        text = f"The loss of {_each(found, learned)}."
        yield Sentence("task-learned", "fine", f"The loss of {quoted(learned)} fell", text, "losses")
    rose = [task for task, it in found.items() if it.direction == "rose"]
    if rose:
        meant = all(map(regularizes, rose))
        text = f"The loss of {_each(found, rose)}."
        rivalry = " Losses of networks that work against each other need not fall." if reading.rivals else ""
        why = f" {WHY}" if meant and not rivalry else rivalry
        tone: Tone = "note" if meant or reading.rivals else "look"
        yield Sentence("task-worse", tone, f"{quoted(rose)} {'rose' if meant else 'got worse'}", text + why, "losses")
    flat = [task for task, it in found.items() if it.direction == "unclear"]
    if flat:
        text = f"The loss of {_each(found, flat)}: within its noise."
        still = any(found[task].flat and not regularizes(task) for task in flat)
        tone = "look" if still and not reading.rivals else "note"
        yield Sentence("task-flat", tone, f"{quoted(flat)} did not clearly learn", text, "losses")


def outrun(reading: Reading) -> Iterator[Sentence]:
    """Of networks that work against each other, one that won."""
    found = courses(reading)
    if not reading.rivals or len(found) < 2:
        return
    won = [name for name, it in found.items() if it.direction == "fell" and 0 <= it.end < OUTRUN * it.begin]
    lost = [name for name, it in found.items() if it.direction == "rose" and it.end > OUTRUN_RISE * it.begin > 0]
    if won and lost:
        text = (
            f"The loss of {_each(found, won)}, while that of {_each(found, lost)}: the stronger "
            "network leaves the other "
            "without a usable gradient. A smaller rate or fewer updates for it, or noise on what it sees, hold it back."
        )
        head = (
            f"{quoted(won)} outran {quoted(lost)}: {formatted(found[won[0]].begin)} to {formatted(found[won[0]].end)}"
        )
        yield Sentence("outrun", "look", head, text, "losses")


def _learned(found: Course) -> bool:
    return found.direction == "fell" and found.change < -SLIGHTLY and not found.blew_up


def _each(found: Mapping[str, Course], names: Sequence[str]) -> str:
    shown = [f"'{name}' went {found[name]} ({percent(abs(found[name].change))})" for name in names[:6]]
    return "; of ".join(shown) + (f"; and {len(names) - 6} more" if len(names) > 6 else "")


__all__ = ["courses", "loss", "main", "outrun", "stalled", "tasks", "turned"]
