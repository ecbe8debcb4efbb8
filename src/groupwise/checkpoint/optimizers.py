"""The optimizer: a `GroupedOptimizer` by name, any other torch optimizer as torch loads it."""

from __future__ import annotations

from typing import Any, final

import torch

from groupwise._spelling import shown
from groupwise.checkpoint.part import Part, Undo
from groupwise.errors import StateError
from groupwise.optim import GroupedOptimizer, LoadReport
from groupwise.optim.plan_values import Prefer


@final
class OptimizerPart(Part):
    """A torch optimizer. `report` is what loading a `GroupedOptimizer` did."""

    def __init__(self, optimizer: torch.optim.Optimizer, prefer: Prefer = "unchanged") -> None:
        if not callable(getattr(optimizer, "state_dict", None)):
            raise StateError(f"optimizer= is an optimizer, not {shown(optimizer)}")
        self._optimizer = optimizer
        self._prefer = prefer
        self.report: LoadReport | None = None

    def capture(self) -> Any:
        return self._optimizer.state_dict()

    def check(self, saved: Any) -> None:
        if not isinstance(saved, dict):
            raise StateError(f"its state is {type(saved).__name__}, not a dict")
        hooked = bool(self._optimizer._optimizer_load_state_dict_pre_hooks)  # they may make it fit
        if isinstance(self._optimizer, GroupedOptimizer) and not hooked:
            self._optimizer.check_loadable(saved, self._prefer)

    def snapshot(self) -> Undo:
        state, groups = self._optimizer.state, self._optimizer.param_groups
        held = dict(state), [*groups]
        report = self._optimizer.load_report if isinstance(self._optimizer, GroupedOptimizer) else None

        def undo() -> None:
            state.clear()
            state.update(held[0])
            groups[:] = held[1]
            self._optimizer.state, self._optimizer.param_groups = state, groups
            if isinstance(self._optimizer, GroupedOptimizer):
                self._optimizer.load_report = report

        return undo

    def apply(self, saved: Any) -> bool:
        if isinstance(self._optimizer, GroupedOptimizer):
            self.report = self._optimizer.resume(saved, self._prefer)
        else:
            self._optimizer.load_state_dict(saved)
        return True
