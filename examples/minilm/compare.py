"""One AdamW for encoder and head, tuned, against a faster head and layer-wise decay.

    python -m examples.minilm.compare [--seeds 4] [--steps 30] [--write]

The baseline is torch alone.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from examples.comparing import Contestant, Scores, arguments, compare
from examples.minilm.train import STEPS, load, networks, score, train
from examples.program import both_tables, publish
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, layer_decay, scale
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = (1e-4, 3e-4, 1e-3)
HIGHER = (1e-3, 3e-3, 1e-2)
"""Where the rate is that of the head."""
DECAYED = "head, encoder × 0.1, × 0.8 a level"
BY_PLAN: dict[str, tuple[Rule, ...]] = {
    "head alone": (Rule("encoder", trainable=False),),
    "head, encoder × 0.1": (Rule("encoder", lr=scale(0.1)),),
    DECAYED: (Rule("encoder", lr=scale(0.1) * layer_decay(0.8)),),
}

Builder = Callable[[nn.Module, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.Module, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one rate, cosine with warmup."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, warmup = AdamW(trained, lr=rate, weight_decay=0.01), max(1, round(0.1 * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return optimizer, LambdaLR(optimizer, factor)


def plan(rate: float, rules: Sequence[Rule]) -> Plan:
    """The same AdamW, the rules that a row is about, and the word table kept."""
    every = Rule("*", label="head", optimizer="AdamW", lr=cosine(rate, warmup="10%"), weight_decay=0.01)
    return Plan([every, *rules, Rule("encoder.embeddings.word_embeddings", label="words", trainable=False)])


def planned(model: nn.Module, rate: float, steps: int, *, rules: Sequence[Rule]) -> tuple[Optimizer, LRScheduler]:
    """By a plan."""
    optimizer = GroupedOptimizer(model, plan(rate, rules))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(build: Builder, rate: float, seed: int, steps: int, validation: bool, *, record: Path | None = None) -> Scores:
    """Train under one seed and judge on reviews that were not trained on."""
    model = networks(seed)
    optimizer, scheduler = build(model, rate, steps)
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    train(model, optimizer, scheduler, load("search" if validation else "train"), steps, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, load("validation" if validation else "test"))


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    found = [Contestant("one AdamW", RATES, partial(run, plain))]
    for row, rules in BY_PLAN.items():
        found.append(Contestant(row, HIGHER, partial(run, partial(planned, rules=rules))))
    return found


def draw(rate: float, steps: int, folder: Path) -> None:
    """How far each level moves in a training by plan.toml."""
    with tempfile.TemporaryDirectory() as records:
        run(partial(planned, rules=BY_PLAN[DECAYED]), rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, seeds=4, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates)
    publish(both_tables(outcomes, ["department %"]), readme, given.write)
    if given.write:
        draw(outcomes[DECAYED].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
