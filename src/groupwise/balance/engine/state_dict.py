"""A balancer's state: plain values and tensors, as a `weights_only` load takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from groupwise._spelling import shown
from groupwise.balance.engine.columns import Columns
from groupwise.balance.engine.ranks.marks import digest
from groupwise.balance.engine.run import Run
from groupwise.balance.memory import Memory
from groupwise.balance.method import Method
from groupwise.errors import StateError, listed

_KEYS = ("method", "step", "tasks", "memory")
_COLUMNS = "columns"
"""The parameters by whose order rows are remembered; only where they have no names."""


def saved(run: Run) -> dict[str, Any]:
    """All that a run remembers. Raises `StateError` in the middle of an update."""
    if run.accumulated or run.held_out is not None:
        call = "accumulate()" if run.accumulated else "learn()"
        raise StateError(
            f"an update is under way ({call} without its backward): save after the backward, or discard() it"
        )
    known = {"step": run.step, "tasks": sorted(run.tasks), "memory": run.memory.state_dict()}
    unnamed = run.memory.has_rows and run.setup.places.parameters is None
    columns = {_COLUMNS: list(run.columns.order)} if unnamed else {}
    return {"method": kind(run.method), **known, **columns}


def load(run: Run, state: Mapping[str, Any]) -> None:
    """Go on from what `saved` gave. Raises `StateError`, having changed nothing, for anything else."""
    if not isinstance(state, Mapping) or set(state) - {_COLUMNS} != set(_KEYS):
        raise StateError(f"this is not the state of a balancer, which has {listed(_KEYS)}: {shown(state)}")
    if state["method"] != kind(run.method):
        raise StateError(
            f"the state is of the method {state['method']}, and this balancer has {kind(run.method)}: "
            "build it with the same one, or start afresh"
        )
    memory = Memory()
    try:
        memory.load_state_dict(state["memory"])
        step, tasks = int(state["step"]), frozenset(str(task) for task in state["tasks"])
        order = _labels(state.get(_COLUMNS, ()))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise StateError(f"this is not the state of a balancer, or a broken one: {error}") from error
    if step < 0:
        raise StateError(f"this is not the state of a balancer, or a broken one: its step is {step}")
    run.memory, run.step, run.tasks, run.expected = memory, step, tasks, tasks
    run.columns = Columns().after_loading(order)
    run.loaded = digest(state)
    run.discard()


def kind(method: Method) -> str:
    """The class of a method and of those inside it, `Smoothed(CAGrad)`; its constants may change between runs."""
    inner = [getattr(method, field.name) for field in fields(method)]
    names = [kind(part) for part in inner if isinstance(part, Method)]
    return f"{method.name}({', '.join(names)})" if names else method.name


def _labels(columns: object) -> tuple[str, ...]:
    labels = tuple(columns) if isinstance(columns, list | tuple) else (columns,)
    for label in labels:
        if not isinstance(label, str) or not label.startswith("#") or not label[1:].partition("|")[0].isdigit():
            raise ValueError(f"{shown(label)} is no column")
    return labels
