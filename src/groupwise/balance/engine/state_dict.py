"""A balancer's state: plain values and tensors, as a `weights_only` load takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from groupwise._spelling import shown
from groupwise.balance.engine.columns import Columns
from groupwise.balance.engine.ranks.marks import digest
from groupwise.balance.engine.state import State
from groupwise.balance.memory import Memory
from groupwise.balance.method import Method
from groupwise.errors import StateError, listed

_KEYS = ("method", "step", "tasks", "memory")
_COLUMNS = "columns"
"""The parameters by whose order rows are remembered; only where they have no names."""


def saved(state: State) -> dict[str, Any]:
    """All that a balancer remembers. Raises `StateError` in the middle of an update."""
    check_complete(state)
    known = {"step": state.step, "tasks": sorted(state.tasks), "memory": state.memory.state_dict()}
    unnamed = state.memory.has_rows and state.setup.places.parameters is None
    columns = {_COLUMNS: list(state.columns.order)} if unnamed else {}
    return {"method": kind(state.method), **known, **columns}


def check_complete(state: State) -> None:
    """Raise `StateError` in the middle of an update, whose gradients are of this process and of these parameters."""
    if state.accumulated or state.held_out is not None:
        call = "accumulate()" if state.accumulated else "learn()"
        raise StateError(
            f"an update is under way ({call} without its backward): save after the backward, or discard() it"
        )


def load(state: State, given: Mapping[str, Any]) -> None:
    """Go on from what `saved` gave. Raises `StateError`, having changed nothing, for anything else."""
    if not isinstance(given, Mapping) or set(given) - {_COLUMNS} != set(_KEYS):
        raise StateError(f"this is not the state of a balancer, which has {listed(_KEYS)}: {shown(given)}")
    if given["method"] != kind(state.method):
        raise StateError(
            f"the state is of the method {given['method']}, and this balancer has {kind(state.method)}: "
            "build it with the same one, or start afresh"
        )
    memory = Memory()
    try:
        memory.load_state_dict(given["memory"])
        step, tasks = int(given["step"]), frozenset(str(task) for task in given["tasks"])
        order = _labels(given.get(_COLUMNS, ()))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise StateError(f"this is not the state of a balancer, or a broken one: {error}") from error
    if step < 0:
        raise StateError(f"this is not the state of a balancer, or a broken one: its step is {step}")
    state.memory, state.step, state.tasks, state.expected = memory, step, tasks, tasks
    state.columns = Columns().after_loading(order)
    state.loaded = digest(given)
    state.discard()


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
