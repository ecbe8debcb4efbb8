"""A balancer's state: plain values and tensors, as a `weights_only` load takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from groupwise._spelling import shown
from groupwise.balance.engine.run import Run
from groupwise.balance.memory import Memory
from groupwise.balance.method import Method
from groupwise.errors import StateError, listed

_KEYS = ("method", "step", "tasks", "memory")


def saved(run: Run) -> dict[str, Any]:
    """All that a run remembers. Raises `StateError` in the middle of an update."""
    if run.pending or run.held_out is not None:
        call = "accumulate()" if run.pending else "learn()"
        raise StateError(f"an update is under way ({call} without its backward): save after the backward")
    known = {"step": run.step, "tasks": sorted(run.tasks), "memory": run.memory.state_dict()}
    return {"method": kind(run.method), **known}


def load(run: Run, state: Mapping[str, Any]) -> None:
    """Go on from what `saved` gave. Raises `StateError`, having changed nothing, for anything else."""
    if not isinstance(state, Mapping) or set(state) != set(_KEYS):
        raise StateError(f"this is not the state of a balancer, which has {listed(_KEYS)}: {shown(state)}")
    if state["method"] != kind(run.method):
        raise StateError(
            f"the state is of the method {state['method']}, and this balancer has {kind(run.method)}: "
            "build it with the same one, or start afresh"
        )
    memory = Memory()
    try:
        memory.load_state_dict(state["memory"])
        step, tasks = int(state["step"]), {str(task) for task in state["tasks"]}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise StateError(f"this is not the state of a balancer, or a broken one: {error}") from error
    run.memory, run.step, run.tasks = memory, step, tasks
    run.expected = frozenset(run.tasks)
    run.forget_update()


def kind(method: Method) -> str:
    """The class of a method and of those inside it, `Smoothed(CAGrad)`; its constants may change between runs."""
    inner = [getattr(method, field.name) for field in fields(method)]
    names = [kind(part) for part in inner if isinstance(part, Method)]
    return f"{method.name}({', '.join(names)})" if names else method.name
