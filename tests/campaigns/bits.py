"""A checkpoint whose bytes are not those that were written: refused, having changed nothing, or loaded bit for bit.

Runs in several states: moments of fused AdamW, of Muon, of a sparse table, and a run that was regrouped on a grown
model, each with optimizer, scheduler and balancer.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.balance import DWA, FAMO, Balancer, GradNorm, Method, MoCo
from groupwise.checkpoint import load, save
from groupwise.errors import StateError
from groupwise.schedules import cosine, plateau
from tests.campaigns.campaign import Attempt
from tests.campaigns.frozen import frozen
from tests.campaigns.outcome import Outcome, foreign, loss, survived
from tests.checkpoint.damage import DAMAGES as STRETCHES
from tests.checkpoint.damage import Damage
from tests.checkpoint.runs import Net

ADAM = {"optimizer": "AdamW", "lr": cosine(1e-2), "weight_decay": 0.01}
FUSED = Plan([Rule("*", **ADAM, fused=True)])
MUON = Plan(
    [Rule("*", **ADAM), Rule("*linear.weight", label="heavy", optimizer="Muon", lr=cosine(0.02), weight_decay=0.0)]
)
SPARSE = Plan([Rule("*", **ADAM), Rule("embed.*", optimizer="SparseAdam", lr=plateau(0.05), weight_decay=0.0)])


class Run:
    """A run of two tasks, after some updates."""

    def __init__(self, plan: Plan, method: Method, seed: int, steps: int, grown: bool = False) -> None:
        self.model = Net(sparse=plan is SPARSE, seed=seed)
        self.optimizer = GroupedOptimizer(self.model, plan)
        self.scheduler = PlanScheduler(self.optimizer, total_steps=20)
        self.balancer = Balancer(method, parameters=self.model)
        self.draw = torch.Generator().manual_seed(seed)
        for step in range(steps):
            self.update()
            if grown and step == 0:
                self.model.more = nn.Linear(3, 3)
                self.optimizer.regroup(model=self.model)

    def update(self) -> None:
        words = torch.randint(0, 11, (6, 3), generator=self.draw)
        found = self.model(words)
        found = self.model.more(found) if hasattr(self.model, "more") else found
        self.balancer.backward({"a": found[:, 0].square().mean(), "b": (found[:, 1:] - 1).square().mean()})
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    def parts(self) -> dict[str, Any]:
        names = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return {**names, "balancer": self.balancer, "generator": self.draw}

    def held(self) -> dict[str, Any]:
        """All that is saved, as it is now."""
        states = {name: part.state_dict() for name, part in self.parts().items() if name != "generator"}
        random_states = {"draw": self.draw.get_state(), "random": torch.get_rng_state()}
        return {name: frozen(state) for name, state in {**states, **random_states}.items()}


STATES: dict[str, Callable[[int, int], Run]] = {
    "fused AdamW": lambda seed, steps: Run(FUSED, FAMO(), seed, steps),
    "Muon": lambda seed, steps: Run(MUON, MoCo(), seed, steps),
    "sparse": lambda seed, steps: Run(SPARSE, DWA(), seed, steps),
    "regrouped": lambda seed, steps: Run(FUSED, GradNorm(), seed, steps, grown=True),
}


def few_bits(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """One to eight bits, anywhere."""
    damaged = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def of_the_frame(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Bits of the archive's own records, where a reader is told what the rest of the bytes are."""
    places = [at for at in range(len(data) - 4) if data[at : at + 2] == b"PK"]
    at = min(draw.choice(places) + draw.randrange(64), len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


DAMAGES: tuple[Damage, ...] = (few_bits, few_bits, of_the_frame, *STRETCHES)


class Saved:
    """One state: what its file holds, what another file of the same form holds, and a run to load them into."""

    def __init__(self, folder: Path, make: Callable[[int, int], Run]) -> None:
        self.path = folder / "run.pt"
        run, other = make(0, 3), make(1, 4)
        self.data, self.other = self._written(run), self._written(other)
        self.values = run.held(), other.held()
        self.victim = make(2, 2)
        self.before = self.victim.held()
        self.own = self._written(self.victim)

    def _written(self, run: Run) -> bytes:
        torch.manual_seed(0)
        save(self.path, **run.parts())
        return self.path.read_bytes()

    def loaded(self, damaged: bytes) -> Outcome:
        """What comes of loading these bytes."""
        self.path.write_bytes(damaged)
        torch.manual_seed(5)
        self.before["random"] = frozen(torch.get_rng_state())
        try:
            load(self.path, **self.victim.parts())
        except StateError as error:
            if self.victim.held() != self.before:
                return loss(f"refused, and yet changed: {error}")
            return survived("refused") if str(self.path) in str(error) else foreign(error)
        found = self.victim.held()
        self.path.write_bytes(self.own)
        load(self.path, **self.victim.parts())
        return survived("equal") if found in self.values else loss("garbage")


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[Attempt]:
    """Each state in turn, each time damaged otherwise."""
    states = [Saved(folder, make) for make in STATES.values()]

    def attempt(draw: random.Random) -> Outcome:
        state = draw.choice(states)
        damaged = draw.choice(DAMAGES)(draw, state.data, state.other)
        return state.loaded(damaged)

    yield attempt
