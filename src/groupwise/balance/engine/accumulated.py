"""Gradients of micro-batches, by task, until the update that they belong to.

As with `backward`, gradients add up: a task's row is the gradient of the sum of its losses over the micro-batches, and
the losses that the method sees are these sums. Divide losses by their number where a mean is meant.

It is a value: a micro-batch makes a new one, so one that fails leaves the sums as they were.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeAlias, final
from weakref import ref

from torch import Tensor, nn

from groupwise.balance.engine.routes.route import TaskSpecificGradients
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.rows import Rows, block_of
from groupwise.errors import BalanceError

Passes: TypeAlias = Generator[tuple[str, dict[Tensor, Tensor]]]
"""One backward after the other: each task with its gradients."""


@final
@dataclass(frozen=True, eq=False)
class Accumulated:
    """Sums so far.

    Attributes:
        losses: by task, 0-dim.
        rows: gradients by task and tensor; None where each micro-batch was weighted and written at once.
        skipped: tasks that were left out of a micro-batch, and why.
        broken: tasks whose gradient was found not finite without the scaler's scale.
        passes: how many backwards they cost.
        begun: whether there was a micro-batch at all.
    """

    losses: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Mapping[str, dict[ref[Tensor], Tensor]] | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    passes: int = 0
    begun: bool = False
    parameters: frozenset[ref[Tensor]] = frozenset()

    def __bool__(self) -> bool:
        return self.begun

    def written(self, losses: Mapping[str, Tensor], skipped: Mapping[str, str], broken: frozenset[str]) -> Accumulated:
        """With a micro-batch whose gradient is in `.grad` already."""
        return replace(
            self,
            losses=self._summed(losses),
            skipped={**self.skipped, **skipped},
            broken=self.broken | broken,
            passes=self.passes + 1,
            begun=True,
        )

    def with_rows(self, losses: Mapping[str, Tensor], found: Passes, broken: frozenset[str]) -> Accumulated:
        """With the gradients that one backward for each task finds."""
        rows = {task: dict(row) for task, row in (self.rows or {}).items()}
        parameters = set(self.parameters)
        with closing(found):
            for task, gradients in found:
                row = rows.setdefault(task, {})
                for leaf, gradient in gradients.items():
                    row[ref(leaf)] = _added(leaf, row.get(ref(leaf)), gradient)
                parameters.update(ref(leaf) for leaf in gradients if isinstance(leaf, nn.Parameter))
        return replace(
            self,
            losses=self._summed(losses),
            rows=rows,
            broken=self.broken | broken,
            passes=self.passes + len(losses),
            begun=True,
            parameters=frozenset(parameters),
        )

    def by_task(self) -> dict[str, dict[Tensor, Tensor]]:
        """The sums of gradients. Raises `BalanceError` where a parameter that they belong to is gone."""
        gone = sum(there() is None for there in self.parameters)
        if gone:
            raise BalanceError(
                f"{gone} parameters that accumulate() found gradients of are gone (replaced in the model?): "
                "balancer.discard() drops what was accumulated"
            )
        found: dict[str, dict[Tensor, Tensor]] = {}
        for task, row in (self.rows or {}).items():
            pairs = ((there(), gradient) for there, gradient in row.items())
            found[task] = {leaf: gradient for leaf, gradient in pairs if leaf is not None}
        return found

    def shared(self, candidates: frozenset[Tensor] | None) -> list[Tensor]:
        """The tensors that two tasks reach."""
        needed = min(2, len(self.losses))
        reached = self._reach(self.by_task())
        allowed = (leaf for leaf in reached if candidates is None or leaf in candidates)
        return [leaf for leaf in allowed if len(reached[leaf]) >= needed]

    def finalize(self, columns: Collection[Tensor]) -> Rowwise:
        """The sums as rows of these tensors; it is used up."""
        tasks, sums, chosen = [*self.losses], self.by_task(), set(columns)
        for row in (self.rows or {}).values():
            row.clear()  # what is moved into a block below is let go, so that the rows are there once
        own = TaskSpecificGradients(self.losses)
        reach = {**{leaf: set() for leaf in columns}, **self._reach(sums)}
        blocks, shared = [], {}
        for leaf, members in reach.items():
            gradients = {i: sums[tasks[i]].pop(leaf) for i in sorted(members)}
            _require_same(leaf, *gradients.values())
            if leaf in chosen:
                blocks.append(block_of(leaf, gradients, len(tasks)))
                shared[leaf] = members
            else:
                for i, gradient in gradients.items():
                    own.put(i, leaf, gradient)
        words = f"accumulated: {self.passes} backwards, one for each task of each micro-batch, added by task; exact"
        return Rowwise(Rows(len(tasks), blocks), shared, own, words)

    def _reach(self, sums: Mapping[str, Mapping[Tensor, Tensor]]) -> dict[Tensor, set[int]]:
        """Which tasks have a gradient of each tensor."""
        reach: dict[Tensor, set[int]] = {}
        for i, task in enumerate(self.losses):
            for leaf in sums.get(task, ()):
                reach.setdefault(leaf, set()).add(i)
        return reach

    def _summed(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sums = dict(self.losses)
        for task, loss in losses.items():
            value = loss.detach().double()
            sums[task] = sums[task] + value if task in sums else value
        return sums


def _added(leaf: Tensor, sum_so_far: Tensor | None, gradient: Tensor) -> Tensor:
    """A tensor of its own: a backward may hand out memory that it uses again."""
    if sum_so_far is None:
        return gradient.clone()
    _require_same(leaf, sum_so_far)
    if sum_so_far.layout == gradient.layout:
        return sum_so_far + gradient
    return sum_so_far.to_dense() + gradient.to_dense()


def _require_same(leaf: Tensor, *gradients: Tensor) -> None:
    """Raise `BalanceError` for gradients from before the parameter was changed."""
    for gradient in gradients:
        if (gradient.shape, gradient.dtype, gradient.device) != (leaf.shape, leaf.dtype, leaf.device):
            raise BalanceError(
                f"a parameter of shape {list(leaf.shape)} ({leaf.dtype}, {leaf.device}) has changed since accumulate() "
                f"found its gradient of shape {list(gradient.shape)} ({gradient.dtype}, {gradient.device}): "
                "balancer.discard() drops what was accumulated"
            )
