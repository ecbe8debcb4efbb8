"""Some weights that a person states beside others that a method finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from groupwise._pickling import as_public
from groupwise._warning import warn
from groupwise.balance.arguments import TaskValues
from groupwise.balance.by_task import by_task
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
from groupwise.balance.methods.around import Around, among, inside, shape_of
from groupwise.balance.properties import Property
from groupwise.errors import unknown
from groupwise.schedules import Schedule

_KEPT = frozenset(
    {Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.MEMORYLESS, Property.DETERMINISTIC, Property.SEPARATE}
)
_PATIENCE = 10
"""Updates without a task, after which a warning names it."""


@dataclass(frozen=True, repr=False)
class Fixed(Around):
    """The stated weight for the tasks in `weights`, the inner method's for all others, which it sees alone.

    A regulariser such as a KL term, a weight decay as a loss or an adversarial term is no task to be balanced: its
    weight is part of the objective. `Fixed(Uncertainty(), {"kl": 0.01})` adds 0.01 times the gradient of "kl" to the
    update of the others. Parameters that such a task reaches alone see its weight, however `task_only` is set.

    Scale: the inner method's, and the stated part beside it.

    Args:
        weights: a number or a schedule by task, as `Static` takes them.

    A task that none of the first ten updates has had is said in a `GroupwiseWarning`: its name may be misspelt.

    Example:
        >>> Fixed(Equal(reduction="mean"), {"2": 0.01})(torch.tensor([1.0, 2.0, 30.0]))
        tensor([0.5000, 0.5000, 0.0100], dtype=torch.float64)
    """

    weights_: TaskValues

    name: ClassVar[str] = "Fixed"  # for any shape

    def __new__(cls, method: Method | None = None, weights: Mapping[str, float | Schedule] | None = None) -> Fixed:
        """One of the three shapes; without arguments (a copy is being made) the class itself."""
        return object.__new__(_SHAPES.get(shape_of(method), cls))

    def __init__(self, method: Method, weights: Mapping[str, float | Schedule]) -> None:
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "weights_", weights)
        self.__post_init__()

    @property
    def properties(self) -> frozenset[Property]:
        """What a stated weight beside it does not undo."""
        return self.method.properties & _KEPT

    def due(self, context: MethodContext, memory: Memory) -> bool:
        """As the inner one says of its tasks."""
        others = self._others(context)
        return bool(others) and self.method.due(among(context, others), inside(memory))

    def task_specific_weights(self, context: MethodContext, memory: Memory) -> Tensor:
        """[t] the inner one's, and the stated ones."""
        others = self._others(context)
        found = self.method.task_specific_weights(among(context, others), inside(memory)) if others else None
        return self._joined(torch.ones(len(others)).double() if found is None else found, others, context)

    def after_step(self, context: MethodContext, memory: Memory) -> None:
        """Pass on what is of the inner one's tasks."""
        if others := self._others(context):
            self.method.after_step(among(context, others), inside(memory))

    def held_out(self, tasks: Sequence[str]) -> Tensor | None:
        """The inner one's; 0 for the tasks that it does not see."""
        others = [i for i, task in enumerate(tasks) if task not in self.weights_]
        found = self.method.held_out([tasks[i] for i in others])
        if found is None:
            return None
        return torch.zeros(len(tasks), dtype=torch.float64).index_put((torch.tensor(others),), found)

    def learn(self, alignments: Tensor, context: MethodContext, memory: Memory) -> None:
        """Pass on what is of the inner one's tasks."""
        if others := self._others(context):
            self.method.learn(alignments[others], among(context, others), inside(memory))

    def __repr__(self) -> str:
        return f"Fixed({self.method!r}, {self.weights_!r})"

    def _others(self, context: MethodContext) -> list[int]:
        """The places of the inner method's tasks."""
        return [i for i, task in enumerate(context.tasks) if task not in self.weights_]

    def _joined(self, found: Tensor, others: Sequence[int], context: MethodContext) -> Tensor:
        """[t] with the stated weights at their places."""
        weights = torch.zeros(len(context.tasks), dtype=torch.float64)
        weights[list(others)] = found.to(weights)
        stated = [i for i in range(len(context.tasks)) if i not in others]
        when = context.step, context.total_steps, context.steps_per_epoch
        names = tuple(context.tasks[i] for i in stated)
        weights[stated] = by_task(self.weights_).at("the fixed weight", names, *when)
        return weights

    def _note(self, context: MethodContext, memory: Memory) -> None:
        """Count the updates of stated tasks without a loss; warn of them."""
        count = float(memory.of_run(_COUNT, 0.0)) + 1
        memory.keep_run(_COUNT, count)
        for task in self.weights_.keys() & set(context.tasks):
            memory.keep_run(f"{_SEEN} {task}", 1.0)
        unseen = [task for task in self.weights_ if not float(memory.of_run(f"{_SEEN} {task}", 0.0))]
        if unseen and count == _PATIENCE:
            others = [context.tasks[i] for i in self._others(context)]
            warn(
                f"Fixed: none of {_PATIENCE} updates had the task that it states a weight of: "
                f"{unknown('task', unseen[0], others)}"
            )


@final
class _OfLosses(Fixed, LossMethod):
    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] found and stated weights."""
        self._note(context, memory)
        others = self._others(context)
        inner: Callable[..., Tensor] = self.method.weights  # type: ignore[attr-defined]
        found = inner(losses[others], among(context, others), inside(memory)) if others else losses[:0]
        return self._joined(found, others, context)


@final
class _OfGramian(Fixed, GramianMethod):
    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] found and stated weights."""
        self._note(context, memory)
        others = self._others(context)
        inner: Callable[..., Tensor] = self.method.weights  # type: ignore[attr-defined]
        block = gramian[others][:, others]
        found = inner(block, among(context, others), inside(memory)) if others else gramian.new_zeros(0)
        return self._joined(found, others, context)


@final
class _OfJacobian(Fixed, JacobianMethod):
    def due(self, context: MethodContext, memory: Memory) -> bool:
        """Always: an update is made of rows."""
        return True

    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n] the inner update, and the stated sum."""
        self._note(context, memory)
        others = self._others(context)
        stated = self._joined(torch.zeros(len(others)), others, context).to(jacobian) @ jacobian
        if not others:
            return stated
        inner: Callable[..., Tensor] = self.method.update  # type: ignore[attr-defined]
        return stated + inner(jacobian[others], among(context, others), inside(memory))


_SEEN, _COUNT = "seen", "updates"
_SHAPES: dict[Any, type[Fixed]] = {LossMethod: _OfLosses, GramianMethod: _OfGramian, JacobianMethod: _OfJacobian}
for _shape in _SHAPES.values():
    as_public(_shape, "groupwise.balance:Fixed")
