"""What a failure may happen in: a run, a balancer or an observer in the middle of its work, what can be done there, and
all that must not be half done.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise import Plan, Rule, after, clip_norm, scale
from groupwise.balance import FAMO, RLW, AutoLambda, Balancer, CAGrad, Method, MoCo, Smoothed
from groupwise.observe import Observer
from groupwise.records import Step
from groupwise.schedules import cosine, linear, plateau
from tests.balance.engine.faults import picture
from tests.balance.engine.models import built
from tests.campaigns.frozen import frozen
from tests.checkpoint.runs import Run
from tests.observe.nets import ALL, groups, losses, net


class World(ABC):
    """Something in mid-run."""

    @abstractmethod
    def held(self) -> dict[str, Any]:
        """All that a call may change, as it is now."""

    def work(self, call: str) -> Callable[[], object]:
        """A call with its arguments, which are made ready here."""
        made: Callable[[], Callable[[], object]] = getattr(self, call)
        return made()


PLAN = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=linear(0.0, 0.1), clip=clip_norm(1.0)),
        Rule("*linear.weight", label="heavy", optimizer="Muon", lr=plateau(0.02), weight_decay=0.0),
        Rule("*embed.*", label="table", optimizer="SparseAdam", lr=0.05, weight_decay=0.0, clip=False),
        Rule("*blocks.1.*", label="late", trainable=after("3 steps")),
    ],
    values={"teacher": cosine(0.9, end=1.0)},
)
OTHER = PLAN + [Rule("*head.*", label="head", lr=scale(0.5), trainable=False), Rule("*blocks.0.*", lr=scale(0.5))]


class Training(World):
    """Two networks under a plan of three algorithms, a scheduler, gradients, and a part that thaws at the next tick."""

    def __init__(self, folder: Path) -> None:
        self.run = Run(PLAN, sparse=True, twice=True)
        self.run.train(range(2))
        self.optimizer, self.scheduler, self.folder = self.run.optimizer, self.run.scheduler, folder
        for seed, model in enumerate(self.run.nets.values()):
            words = torch.randint(0, 11, (6, 3), generator=torch.Generator().manual_seed(seed))
            model(words).square().mean().backward()

    def held(self) -> dict[str, Any]:
        o, s = self.optimizer, self.scheduler
        tensors = [p for model in self.run.nets.values() for p in model.parameters()]
        names = {id(p): i for i, p in enumerate(tensors)}
        return {
            "everything": frozen(self.run.everything()),
            "order": frozen([[names.get(id(p), -1) for p in group["params"]] for group in o.param_groups]),
            "gradients": frozen([p.grad for p in tensors]),
            "trains": [p.requires_grad for p in tensors],
            "clock": frozen([s.last_epoch, s._step_count, dict(s.values), s.get_last_lr()]),
            "plan": repr(o.plan),
            "report": repr(o.load_report),
            "hooks": [len(v) for v in vars(o).values() if type(v).__name__ == "OrderedDict"],
            "mode": torch.is_grad_enabled(),
        }

    def step(self) -> Callable[[], object]:
        return self.optimizer.step

    def step_of_a_view(self) -> Callable[[], object]:
        return self.optimizer.only("left").step

    def tick(self) -> Callable[[], object]:
        return self.scheduler.step

    def observe(self) -> Callable[[], object]:
        return lambda: self.scheduler.observe(1.0)

    def load(self) -> Callable[[], object]:
        other = Run(PLAN, sparse=True, twice=True, seed=3)
        other.train(range(1))
        saved = copy.deepcopy(other.optimizer.state_dict())
        return lambda: self.optimizer.load_state_dict(saved)

    def load_scheduler(self) -> Callable[[], object]:
        saved = self.scheduler.state_dict() | {"last_epoch": 4}
        return lambda: self.scheduler.load_state_dict(saved)

    def regroup(self) -> Callable[[], object]:
        return lambda: self.optimizer.regroup(OTHER)

    def regroup_a_model(self) -> Callable[[], object]:
        left = self.run.nets["left"]
        if not hasattr(left, "more"):
            left.more = nn.BatchNorm1d(3)  # draws nothing
        return lambda: self.optimizer.regroup(model=self.run.nets)

    def add_param_group(self) -> Callable[[], object]:
        p = nn.Parameter(torch.zeros(2))
        return lambda: self.optimizer.add_param_group({"params": [p], "algorithm": "AdamW"})

    def save(self) -> Callable[[], object]:
        return lambda: self.run.save(self.folder / "run.pt")

    def load_file(self) -> Callable[[], object]:
        path = self.folder / "other.pt"
        if not path.exists():
            other = Run(PLAN, sparse=True, twice=True, seed=3)
            other.train(range(1))
            other.save(path)
        return lambda: self.run.load(path)


class Balancing(World):
    """A balancer after an update and a micro-batch."""

    def __init__(self, method: Method, accumulates: bool) -> None:
        self.model, self._method = built("Plain"), method
        self.balancer = Balancer(method, parameters=self.model, total_steps=9)
        self.balancer.backward(self.losses())
        self.model.heads["a"].weight.grad = None
        if accumulates:
            self.balancer.accumulate(self.losses())
        self.saved = copy.deepcopy(Balancer(method, parameters=built("Plain")).state_dict())

    def losses(self) -> dict[str, torch.Tensor]:
        return {task: loss + 0.1 for task, loss in self.model.losses().items()}

    def held(self) -> dict[str, Any]:
        found = picture(self.balancer, self.model, self._method)
        return {key: frozen(value) for key, value in found.items() if key != "objects"}

    def backward(self) -> Callable[[], object]:
        given = self.losses()
        return lambda: self.balancer.backward(given)

    def accumulate(self) -> Callable[[], object]:
        given = self.losses()
        return lambda: self.balancer.accumulate(given)

    def learn(self) -> Callable[[], object]:
        given = self.losses()
        return lambda: self.balancer.learn(given)

    def after_step(self) -> Callable[[], object]:
        given = {task: loss.detach() for task, loss in self.losses().items()}
        return lambda: self.balancer.after_step(given)

    def end_epoch(self) -> Callable[[], object]:
        return self.balancer.end_epoch

    def forget(self) -> Callable[[], object]:
        return lambda: self.balancer.forget("b")

    def discard(self) -> Callable[[], object]:
        return self.balancer.discard

    def load_balancer(self) -> Callable[[], object]:
        return lambda: self.balancer.load_state_dict(self.saved)


class Observing(World):
    """An observer that has seen an update, and is told of the next."""

    def __init__(self) -> None:
        self.model = net()
        self.optimizer = torch.optim.SGD(groups(self.model), lr=0.05, momentum=0.9)
        self.observer = Observer(self.optimizer, None, every=ALL)
        for seed in (0, 1):
            self.optimizer.zero_grad()
            told = losses(self.model, seed)
            sum(told.values(), torch.zeros(())).backward()
            self.observer.log(loss=1.0, losses=told)
            if seed == 0:
                self.optimizer.step()
        self.observer.micro_batch(16)

    def held(self) -> dict[str, Any]:
        told, last = self.observer._recorder._loop_given, self.observer.last
        batch = told.batch and (told.batch.samples, told.batch.count, told.batch.even, told.batch.squares)
        return {
            "told": frozen({" ".join(path): value for path, value in told.metrics.numbers.items()}),
            "batch": frozen(batch),
            "step": self.observer.step,
            "weights": frozen(list(self.model.state_dict().values())),
            "gradients": frozen([p.grad for p in self.model.parameters()]),
            "state": frozen([self.optimizer.state.get(p, {}) for p in self.model.parameters()]),
            "last": last and numbers(last),
            "hooks": [len(self.optimizer._optimizer_step_pre_hooks), len(self.optimizer._optimizer_step_post_hooks)],
            "mode": torch.is_grad_enabled(),
        }

    def log(self) -> Callable[[], object]:
        given = losses(self.model, 5)
        return lambda: self.observer.log(loss=2.0, losses=given, scalars={"a": 1.0})

    def tasks(self) -> Callable[[], object]:
        given = losses(self.model, 5)
        return lambda: self.observer.tasks(given, {"left": 1.0, "right": 2.0})

    def micro_batch(self) -> Callable[[], object]:
        return lambda: self.observer.micro_batch(16)

    def discard_told(self) -> Callable[[], object]:
        return self.observer.discard

    def observed_step(self) -> Callable[[], object]:
        return self.optimizer.step


def numbers(record: Step) -> frozenset[tuple[Any, ...]]:
    """What a record says, each number by its place."""
    sections = (record.groups, record.tasks, record.shares, record.values, {"": record.scalars})
    found = ((i, *keys) for i, section in enumerate(sections) for keys in _leaves(section))
    return frozenset([(record.step,), *found])


def _leaves(section: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, str, str]]:
    return ((name, key, repr(value)) for name, inner in section.items() for key, value in inner.items())


METHODS: Mapping[str, Callable[[], Method]] = {
    "FAMO": FAMO,
    "MoCo": MoCo,
    "Smoothed": lambda: Smoothed(CAGrad()),
    "RLW": lambda: RLW(generator=torch.Generator().manual_seed(3)),
    "AutoLambda": AutoLambda,
}
