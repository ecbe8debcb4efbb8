"""The laws of balancing methods, as shipped: on every method and variant that has a name, and on some that fail."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, LossMethod, Method, MethodContext
from groupwise.balance.methods import METHODS, CAGrad, GradDrop, LogSum, NashMTL, Uncertainty, UPGrad
from groupwise.balance.properties import PLAIN, Property
from groupwise.errors import GroupwiseError, LawBroken
from groupwise.testing import check, laws_of
from groupwise.testing.calling import NAMES

BY_TASK = {task: 0.5 + 0.25 * i for i, task in enumerate(NAMES)}
REQUIRED: Mapping[str, dict[str, Any]] = {
    "Static": {"weights": BY_TASK},
    "Times": {"losses": LogSum(), "gradients": CAGrad()},
    "Smoothed": {"method": UPGrad()},
    "Periodic": {"method": NashMTL(), "n": 2},
    "Normalized": {"method": NashMTL()},
    "Fixed": {"method": UPGrad(), "weights": {NAMES[1]: 0.25}},
    "Bounded": {"method": NashMTL(), "most": 1.5},
}
VARIANTS: Mapping[str, list[dict[str, Any]]] = {
    "AlignedMTL": [{"variant": "sum"}, {"preference": BY_TASK}],
    "CAGrad": [{"variant": "1+c"}, {"c": 1.0}, {"c": 0.0}, {"preference": BY_TASK}],
    "ConFIG": [{"preference": BY_TASK}],
    "DualProj": [{"preference": BY_TASK}],
    "DWA": [{"window": 2}],
    "Equal": [{"reduction": "mean"}],
    "Bounded": [{"method": Uncertainty(), "least": 0.1}],
    "FAMO": [{"floor": dict.fromkeys(NAMES, -1.0)}],
    "FairGrad": [{"alpha": 0.5}, {"alpha": 2.0}],
    "Fixed": [{"method": LogSum()}, {"method": GradDrop()}],
    "GCS": [{"variant": "weighted"}, {"primary": "a"}],
    "GradDrop": [{"leak": 0.3}, {"variant": "renormalized"}],
    "GradNorm": [{"variant": "relative"}],
    "GradVac": [{"variant": "corrected"}],
    "GradientNormScaling": [{"reference": "a"}],
    "MGDA": [{"variant": "l2"}, {"variant": "loss"}, {"variant": "loss+"}, {"preference": BY_TASK}],
    "MetaBalance": [{"primary": "a"}],
    "MoCo": [{"variant": "normalized"}],
    "NashMTL": [{"max_norm": None}, {"preference": BY_TASK}],
    "Normalized": [{"method": GradDrop()}],
    "PCD": [{"primary": "a"}, {"eps": 1e-8}],
    "PCGrad": [{"variant": "mean"}],
    "RLW": [{"variant": "dirichlet"}],
    "STCH": [{"preference": BY_TASK}, {"ideal": dict.fromkeys(NAMES, 0.1)}],
    "Smoothed": [{"method": Uncertainty()}],
    "UPGrad": [{"preference": BY_TASK}],
    "Uncertainty": [{"variant": "softplus"}],
}


def examples() -> dict[str, Method]:
    """Every method with its defaults, and its variants."""
    found = {}
    for name, cls in METHODS.items():
        for extra in [{}, *VARIANTS.get(name, [])]:
            made: Any = cls
            method = made(**{**REQUIRED.get(name, {}), **extra})
            found[f"{name}({', '.join(f'{key}={value!r:.20}' for key, value in extra.items())})"] = method
    return found


EXAMPLES = examples()
CASES = [pytest.param(law, id=f"{name}: {law}") for name, method in EXAMPLES.items() for law in laws_of(method)]


@pytest.mark.parametrize("law", CASES)
def test_every_method_obeys(law: Callable[[], None]) -> None:
    law()


@dataclass(frozen=True)
class Spoilt(GramianMethod):
    """The sum, which claims everything."""

    class_properties: ClassVar[frozenset[Property]] = frozenset(Property)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return torch.ones(len(gramian), dtype=torch.float64)


UNTRUE = {Property.SCALE_FREE, Property.TASK_SCALE_FREE, Property.NON_CONFLICTING, Property.DUPLICABLE}


@pytest.mark.parametrize("claim", Property)
def test_the_sum_is_caught_at_what_it_claims_wrongly_and_at_nothing_else(claim: Property) -> None:
    law = next(law for law in laws_of(Spoilt()) if str(law) == claim.value)
    if claim in UNTRUE:
        with pytest.raises(LawBroken, match=r"Spoilt\(\) breaks the law that .*: on the "):
            law()
    else:
        law()


@dataclass(frozen=True)
class First(LossMethod):
    """The first task alone; in one way or another wrong."""

    class_properties: ClassVar[frozenset[Property]] = PLAIN

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return (torch.arange(len(losses)) == 0).double()


@dataclass(frozen=True)
class Drawing(First):
    """Draws from torch's own generator."""

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return torch.rand(len(losses), dtype=torch.float64)


@dataclass(frozen=True)
class Seeded(First):
    """Draws from the memory's generator, and claims not to."""

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return 0.5 + torch.rand(len(losses), generator=memory.generator, dtype=torch.float64)


@dataclass(frozen=True)
class Counting(First):
    """Grows from update to update."""

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        memory.keep_run("calls", memory.of_run("calls", 1.0) + 1)
        return memory.of_run("calls", 1.0) * torch.ones_like(losses) / 2


@dataclass(frozen=True)
class Gossip(First):
    """Looks at every task that it remembers, those that are absent included."""

    class_properties: ClassVar[frozenset[Property]] = frozenset()

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        memory.keep_tasks("loss", context.tasks, losses)
        return torch.full_like(losses, 1 / len(memory.tasks()))


@dataclass(frozen=True)
class Epsilon(First):
    """Divides by a loss plus an absolute epsilon, below which it gives up."""

    class_properties: ClassVar[frozenset[Property]] = PLAIN | {Property.SCALE_FREE}

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return torch.where(losses < 1e-6, torch.nan, 1 / (losses + 1e-4))


@dataclass(frozen=True)
class Against(First):
    """Goes up."""

    class_properties: ClassVar[frozenset[Property]] = frozenset()

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return -torch.ones_like(losses)


@dataclass(frozen=True)
class Two(First):
    """The first two tasks: still where these are opposite, whatever a third one wants."""

    class_properties: ClassVar[frozenset[Property]] = frozenset({Property.STRONGLY_STATIONARY})

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return (torch.arange(len(losses)) < 2).double()


BROKEN: dict[str, tuple[Method, str]] = {
    "order": (First(), "First.* in another order changes nothing: on the two in conflict"),
    "torch's generator": (Drawing(), "the same inputs give the same update"),
    "chance": (Seeded(), "nothing is drawn: .* with another seed"),
    "a past": (Counting(), "depends on no earlier one: on the step 1 of a run"),
    "an absent task": (Gossip(), "a task that is absent has no say"),
    "an epsilon": (Epsilon(), "finite on every scale: .*nan"),
    "a still point": (Two(), "positive weights make the gradients cancel: on the two opposite beside a third"),
    "ascent": (Against(), "one task is left its direction"),
}


@pytest.mark.parametrize(("method", "words"), BROKEN.values(), ids=BROKEN)
def test_a_method_that_breaks_a_law_is_told_which(method: Method, words: str) -> None:
    with pytest.raises(LawBroken, match=words):
        check(method)


def test_what_has_no_laws_is_told_what_has() -> None:
    with pytest.raises(GroupwiseError, match=r"no balancing method, no schedule and no optimizer class.*FromGramian"):
        laws_of(torch.softmax)  # type: ignore[arg-type]


def test_hyperparameters_are_for_classes() -> None:
    with pytest.raises(GroupwiseError, match=r"hyperparameters are for optimizer classes; Spoilt\(\) is a value"):
        laws_of(Spoilt(), {"lr": 1.0})
