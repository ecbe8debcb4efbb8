"""The optimizer's state in a file: by position, with a mark of what stands at each.

Keras writes an optimizer's variables by their positions, and only warns where their number differs. Two plans on one
model may well have the same number of them, and a momentum would become a variance. So the file also holds one number
for each variable of the model: a checksum of the group and algorithm that its state belongs to.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import keras

from groupwise._warning import warn
from groupwise.errors import StateError, listed
from groupwise.keras._keras import path_of
from groupwise.keras.engine import Engine
from groupwise.keras.program import Program
from groupwise.keras.saved import fingerprint

MARK = "groups"
_ALONE = "the weights alone are loaded with load_model(…, compile=False)"


def mark(program: Program | None) -> Any:
    """The checksums as an array; empty for an optimizer that is not built."""
    facts = () if program is None else facts_of(program).values()
    return keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(fingerprint(facts), dtype="int32"))


def readable(
    program: Program | None, variables: Sequence[Any], store: Any, refrozen: bool = False, reshaped: bool = False
) -> int:
    """How many variables of the file `store` to read; 0, with a warning, where other variables train than did then.

    Args:
        program: of the built optimizer; None where nothing trains.
        variables: its own.
        refrozen: whether the optimizer knows that layers were frozen or unfrozen since the state was made.
        reshaped: whether variables of other shapes are no error: the weights were loaded without those, as
            `load_weights(…, skip_mismatch=True)` does, and nobody waits for an error of this state.

    Raises:
        StateError: the file holds the state of other groups, or of another class of optimizer.
    """
    if MARK not in set(store.keys()):
        raise StateError(
            "the saved optimizer state does not fit: it is that of another class of optimizer. If that is a "
            f"LossScaleOptimizer, set the dtype policy that it was saved under first; {_ALONE}"
        )
    expected, found = mark(program).tolist(), list(store[MARK])
    saved = len(store.keys()) - 1
    if found and (program is None or refrozen or len(expected) != len(found)):
        warn(
            f"the weights are loaded and the optimizer's state is not: it was saved for {len(found)} variables, and "
            f"{'others' if len(expected) == len(found) else len(expected)} train here, since layers were frozen or "
            "unfrozen in between (layer.trainable). The optimizer begins anew, at update 0"
        )
        return 0
    if found and program is not None and (expected != found or saved != len(variables)):
        said = _difference(program, expected, found) or f"it has {saved} variables, and here are {len(variables)}"
        raise StateError(
            f"the saved optimizer state does not fit: {said}; load it with the plan that it was saved with, or {_ALONE}"
        )
    read = min(saved, len(variables))  # one that was saved before its build has a step count and a factor alone
    if reshaped and (other := _misshapen(variables[:read], [store[str(i)] for i in range(read)])):
        warn(
            f"weights of other shapes were skipped, and so is the optimizer's state: {other}. The optimizer begins "
            "anew, at update 0"
        )
        return 0
    return read


def copied(store: Any) -> dict[str, Any]:
    """What a file holds of an optimizer, as arrays that outlive it."""
    held = {name: keras.ops.convert_to_tensor(store[name]) for name in store.keys()}  # noqa: SIM118  # no mapping
    return {name: keras.ops.convert_to_numpy(keras.ops.copy(value)) for name, value in held.items()}


def assign(variables: Sequence[Any], values: Sequence[Any], what: str) -> None:
    """Assign a copy of a value to each variable. Raises `StateError` where one does not fit, before any is assigned."""
    if len(values) != len(variables):
        raise StateError(
            f"{what} has {len(values)} variables and this optimizer {len(variables)}: they must be those of an "
            "optimizer with the same groups, in the order of its `variables`"
        )
    if other := _misshapen(variables, values):
        raise StateError(f"{what}: {other}")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(keras.ops.copy(keras.ops.convert_to_tensor(value)))  # jax donates the buffers of a step


def restore_fixed(program: Program | None) -> None:
    """After a load: warn where it held other values for the Python numbers of this step, and keep these."""
    engines = () if program is None else program.engines
    if other := [said for engine in engines for said in engine.values.restore_fixed()]:
        warn(
            f"the loaded state holds other values for numbers that are compiled in here: {listed(other, 3)}. Those of "
            "this plan count"
        )


def by_name(program: Program | None) -> dict[str, Any]:
    """The groups' state by names that only an optimizer with the same groups has."""
    if program is None:
        return {}
    groups = zlib.crc32(repr(fingerprint(facts_of(program).values())).encode())
    return {f"groups_{groups:08x}_{i}": variable for i, variable in enumerate(program.state)}


def facts_of(program: Program) -> dict[str, object]:
    """By variable, in the order of the build, what decides the layout of its state."""
    places = {engine: i for i, engine in enumerate(program.engines)}
    owners = {program.names[i]: program.owners.get(i) for i in sorted(program.names)}
    return {name: owner and _layout(owner, places[owner]) for name, owner in owners.items()}


def _layout(owner: Engine, place: int) -> tuple[object, ...]:
    """What decides how many variables a group's state has, and in what order."""
    measured = () if owner.measured is None else (len(owner.measured.state),)
    return (place, owner.group.algorithm, sorted(owner.hyperparameters), *measured)


def _misshapen(variables: Sequence[Any], values: Sequence[Any]) -> str:
    """The first variable whose value has another shape; empty if there is none."""
    for i, (variable, value) in enumerate(zip(variables, values, strict=True)):
        own, given = tuple(variable.shape), tuple(keras.ops.shape(value))
        if own != given:
            return f"variable {i}, {path_of(variable)}, has shape {own} here and {given} there"
    return ""


def _difference(program: Program, expected: Sequence[int], found: Sequence[int]) -> str:
    """Whose group or algorithm is another; empty if all are the same."""
    other = [name for name, a, b in zip(facts_of(program), expected, found, strict=True) if a != b]
    return f"other groups or algorithms for {listed(other)}" if other else ""
