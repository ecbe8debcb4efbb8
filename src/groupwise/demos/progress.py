"""The live line of a run: how far it is, the loss, and for several tasks how well each is done on the last batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import fmean

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from groupwise.demos.train import Score, Step

_SMOOTHED_OVER = 20


class Live:
    """One line a run, for a whole comparison; used as a context manager."""

    def __init__(self, console: Console) -> None:
        name, doing = TextColumn("{task.description}"), TextColumn("{task.fields[doing]}")
        self._progress = Progress(name, BarColumn(8), doing, console=console)

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, name: str, steps: int) -> Line:
        """A new line, for a run of `steps` steps."""
        return Line(self._progress, self._progress.add_task(name, total=steps, doing=""))

    def losses(self, name: str, steps: int) -> Callable[[float], None]:
        """A new line that is called with the loss of each of its steps, and shows the mean of the last few."""
        task = self._progress.add_task(name, total=steps, doing="")
        recent: deque[float] = deque(maxlen=_SMOOTHED_OVER)

        def show(loss: float) -> None:
            recent.append(loss)
            self._progress.update(task, advance=1, doing=f"loss {fmean(recent):6.3f}")

        return show


class Line:
    """What one run shows: called with each of its steps."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._recent: deque[Step] = deque(maxlen=_SMOOTHED_OVER)

    def __call__(self, step: Step) -> None:
        self._recent.append(step)
        loss, score = fmean(step.loss for step in self._recent), mean([step.score for step in self._recent])
        self._progress.update(self._task, completed=step.number, doing=f"loss {loss:6.3f}  {described(score)}")


def described(score: Score) -> str:
    """`left 97%  right 98%  sum ±0.8`."""
    return f"left {score.left:4.0%}  right {score.right:4.0%}  sum ±{score.sum_error:.1f}"


def mean(scores: list[Score]) -> Score:
    """The mean of each figure."""
    return Score(
        fmean(score.left for score in scores),
        fmean(score.right for score in scores),
        fmean(score.sum_error for score in scores),
    )
