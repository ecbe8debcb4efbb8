"""Methods beside tuned static weights, at equal compute: the comparison that every method has to stand.

Xin et al. 2022, Kurin et al. 2022 and Royer et al. 2023 found that a plain weighted sum, once tuned, is hard to beat,
and that many a gain was a matter of tuning, of one seed, or of time. So here

    static weights are tuned       over a small grid, on data of their own and over all seeds, and the runs are counted
    compute is equal               a method whose update takes twice the time gets half the updates
    seeds are shared               every contestant starts from the same weights and sees the same batches
    conflict is measured           where the tasks never disagree, there is nothing for a method to settle
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from groupwise._spelling import shown as spelled
from groupwise.balance.balancer import Balancer
from groupwise.balance.comparing import cost
from groupwise.balance.comparing.job import Build
from groupwise.balance.comparing.result import Comparison, Entry, shown
from groupwise.balance.comparing.training import Run, step, train
from groupwise.balance.method import Method
from groupwise.balance.methods.equal import Equal
from groupwise.balance.methods.static import Static
from groupwise.errors import BalanceError, GroupwiseError

EQUAL, TUNED = "equal weights", "static weights, tuned"
_ROUNDS = 15
_POWERS = (0.5, 1.0, 1.5)
_TINY = 1e-12


def _check(build: object, methods: object, seeds: object, updates: object, probe: object) -> None:
    """Raise `BalanceError` for what cannot be compared."""
    if not callable(build):
        raise BalanceError(f"build makes the job of a seed, build(seed, updates), and {spelled(build)} is no function")
    if not isinstance(methods, list) or not all(isinstance(method, Method) for method in methods):
        raise BalanceError(f"methods are several of groupwise.balance, [CAGrad(), …], not {spelled(methods)}")
    if not isinstance(seeds, Sequence) or not all(isinstance(seed, int) for seed in seeds):
        raise BalanceError(f"seeds are whole numbers, (0, 1, 2), not {spelled(seeds)}")
    for name, count in (("updates", updates), ("probe", probe)):
        if not isinstance(count, int):
            raise BalanceError(f"{name} is a whole number, not {spelled(count)}")


def compare(
    build: Build,
    methods: Iterable[Method],
    *,
    updates: int,
    seeds: Sequence[int] = (0, 1, 2),
    static: Iterable[Mapping[str, float]] | None = None,
    probe: int = 10,
) -> Comparison:
    """Train a job with every method, with equal weights, and with static weights that were tuned; print the result.

    Args:
        build: makes the job of a seed (see `Job`).
        methods: what to compare.
        updates: how many updates the static weights get. A method whose update takes r times as long gets 1/r of them.
        seeds: one run each; the differences are paired by seed.
        static: the grid of weights, each tried with every seed beside equal weights, and measured by `Job.tuning`. By
            default the losses of the first batch to the power of -1/2, -1 and -3/2.
        probe: look for conflict before every so many updates, outside of all timing.

    Raises:
        BalanceError: no method, no seed or no update.
    """
    methods = [*methods] if isinstance(methods, Iterable) else methods
    _check(build, methods, seeds, updates, probe)
    named = {shown(method): method for method in methods}
    if not named or not seeds or updates < 1:
        raise BalanceError(f"a comparison needs methods, seeds and updates, not {len(named)}, {len(seeds)}, {updates}")

    def runs(method: Method, afforded: int) -> tuple[Run, ...]:
        return tuple(train(build(seed, afforded), method, afforded, probe) for seed in seeds)

    ratio, memory = _costs(build, named, seeds[0])
    grid = [*static] if static is not None else _grid(build, seeds[0])
    tried = [(method, runs(method, updates)) for method in (Equal(), *map(Static, grid))]
    tuned, best = _best(tried)
    entries = [
        Entry(EQUAL, tried[0][0], updates, 0, 1.0, 1.0, tried[0][1]),
        Entry(TUNED, tuned, updates, len(tried) * len(seeds), 1.0, 1.0, best),
    ]
    for name, method in named.items():
        cheap = ratio.get(name, 1.0)
        afforded = max(1, round(updates / max(cheap, 1.0)))
        entries.append(Entry(name, method, afforded, 0, cheap, memory.get(name, 1.0), runs(method, afforded)))
    return Comparison(tuple(entries), tuple(seeds), EQUAL, TUNED)


def _costs(build: Build, methods: Mapping[str, Method], seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Time and memory of a step of each method, over those of a step with equal weights; one batch, again and again."""
    works = {name: _stepping(build, method, seed) for name, method in {EQUAL: Equal(), **methods}.items()}
    able = {name: work for name, work in works.items() if _runs(work)}
    peaks = {name: cost.peak(work) for name, work in able.items()}
    return cost.ratios(able, EQUAL, _ROUNDS), {name: size / peaks[EQUAL] for name, size in peaks.items()}


def _stepping(build: Build, method: Method, seed: int) -> cost.Work:
    job, balancer = build(seed, 2 * _ROUNDS), Balancer(method)
    batch = next(iter(job.batches))
    return lambda: step(job, balancer, batch)


def _runs(work: cost.Work) -> bool:
    try:
        work()
    except GroupwiseError:
        return False
    return True


def _grid(build: Build, seed: int) -> list[dict[str, float]]:
    """Powers of the losses before the first update, the louder the task the smaller its weight."""
    job = build(seed, 1)
    first = {task: abs(float(loss.detach())) for task, loss in job.losses(next(iter(job.batches))).items()}
    return [{task: max(loss, _TINY) ** -power for task, loss in first.items()} for power in _POWERS]


def _best(tried: Sequence[tuple[Method, tuple[Run, ...]]]) -> tuple[Method, tuple[Run, ...]]:
    """The method whose runs did best on the tuning data, beside those of the first."""
    base = tried[0][1]
    scores = [fmean(map(_score, runs, base)) for _, runs in tried]
    if all(math.isnan(score) for score in scores):
        raise BalanceError(f"no static weights could be trained; with equal ones: {base[0].failed or 'nan errors'}")
    return tried[min(range(len(tried)), key=lambda i: math.inf if math.isnan(scores[i]) else scores[i])]


def _score(run: Run, base: Run) -> float:
    """The mean over errors of their ratio to those of `base`; the plain mean where that failed."""
    ratios = [value / base.tuning[name] if base.tuning.get(name) else value for name, value in run.tuning.items()]
    return fmean(ratios) if ratios else math.nan
