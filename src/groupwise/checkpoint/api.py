"""`save` and `load`: a whole run, or nothing.

`load` reads and checks everything before it changes anything, and takes back what it has changed if a part refuses
after all. The scheduler comes last, since it writes into the optimizer's groups; the random state just before it, since
nothing after that may draw.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.serialization import MAP_LOCATION

from groupwise._paths import path_of
from groupwise._renamed import renamed
from groupwise.checkpoint import archive
from groupwise.checkpoint.loaded import Loaded
from groupwise.checkpoint.models import Model, ModelPart
from groupwise.checkpoint.optimizers import OptimizerPart
from groupwise.checkpoint.part import Part, Undo
from groupwise.checkpoint.plain import plain
from groupwise.checkpoint.randomness import GeneratorPart, Generators, GlobalPart
from groupwise.checkpoint.refusing import refusing
from groupwise.checkpoint.schedulers import SchedulerPart
from groupwise.checkpoint.stateful import Stateful, StatefulPart
from groupwise.errors import StateError, within
from groupwise.optim.plan_values import Prefer

_RNG = "rng"


def save(
    path: str | os.PathLike[str],
    *,
    model: Model | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Stateful | None = None,
    balancer: Stateful | None = None,
    scaler: Stateful | None = None,
    generator: Generators | None = None,
    extra: Any = None,
) -> None:
    """Write a run to one file, atomically: whoever is killed meanwhile leaves the file that was there.

    Torch's global random state goes along. In a run of several processes, call it on one rank.

    Args:
        path: the file; its directory exists. A symbolic link is followed, and a file that is replaced keeps its
            permissions.
        model: a module, or the mapping of networks that the optimizer was built from.
        optimizer: a `GroupedOptimizer`, or any torch optimizer.
        scheduler, balancer, scaler: anything with `state_dict` and `load_state_dict`.
        generator: your own `torch.Generator`, or several by name.
        extra: plain data of your own: tensors, numbers, text, dicts, lists, tuples.

    Raises:
        StateError: nothing was given, something is not plain data, the directory does not exist, or what stands at
            `path` is no regular file (a directory, a device, a pipe); no file has changed then.
        OSError: the file cannot be written, as on a full disk; the old one is whole.
    """
    with within(str(path)):
        parts = _parts(model, optimizer, scheduler, balancer, scaler, generator)
        if len(parts) == 1 and extra is None:
            raise StateError("nothing to save: give model=, optimizer=, scheduler= or another part of the run")
        captured = {name: plain(part.capture(), name) for name, part in parts.items()}
        archive.write(path_of(path, StateError, "a checkpoint"), archive.Content(captured, plain(extra, "extra")))


@renamed(StateError, {"values": "prefer"})
def load(
    path: str | os.PathLike[str],
    *,
    model: Model | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Stateful | None = None,
    balancer: Stateful | None = None,
    scaler: Stateful | None = None,
    generator: Generators | None = None,
    map_location: MAP_LOCATION = "cpu",
    prefer: Prefer = "unchanged",
) -> Loaded:
    """Restore a run, or those parts of it that are given, from a file that `save` wrote. No code in the file runs.

    Args:
        path, model, optimizer, scheduler, balancer, scaler, generator: as for `save`.
        map_location: where tensors are put while reading, as for `torch.load`; each part moves them to its own device.
        prefer: which values stand in a `GroupedOptimizer`, as for its `resume`.

    Returns:
        What was restored, what nobody asked for, the optimizer's report, and `extra`.

    Raises:
        StateError: there is no such file, it is not a checkpoint of this library as it was written (a single damaged
            bit of what it says is found) or one of a newer version, it lacks a part, or a part does not fit. Nothing
            has changed then.
    """
    with within(str(path)):
        parts = _parts(model, optimizer, scheduler, balancer, scaler, generator, prefer)
        content = archive.read(path_of(path, StateError, "a checkpoint"), map_location)
        _check(parts, content.parts)
        restored = _apply(parts, content.parts)
    own = parts.get("optimizer")
    report = own.report if isinstance(own, OptimizerPart) else None
    unused = tuple(name for name in content.parts if name not in parts)
    return Loaded(restored, unused, report, content.extra)


def _parts(
    model: Model | None,
    optimizer: torch.optim.Optimizer | None,
    scheduler: Stateful | None,
    balancer: Stateful | None,
    scaler: Stateful | None,
    generator: Generators | None,
    prefer: Prefer = "unchanged",
) -> dict[str, Part]:
    """The given parts by name, in the order in which they are restored."""
    found: dict[str, Part | None] = {
        "model": None if model is None else ModelPart(model),
        "optimizer": None if optimizer is None else OptimizerPart(optimizer, prefer),
        "balancer": None if balancer is None else StatefulPart(balancer),
        "scaler": None if scaler is None else StatefulPart(scaler),
        "generator": None if generator is None else GeneratorPart(generator),
        _RNG: GlobalPart(),
        "scheduler": None if scheduler is None else SchedulerPart(scheduler),
    }
    return {name: part for name, part in found.items() if part is not None}


def _check(parts: Mapping[str, Part], saved: Mapping[str, Any]) -> None:
    missing_lengths = [name for name in parts if name not in saved]
    if missing_lengths:
        held = ", ".join(name for name in saved if name != _RNG) or "none"
        raise StateError(f"it has no {' and no '.join(missing_lengths)} (the parts in it: {held})")
    for name, part in parts.items():
        with refusing(name):
            part.check(saved[name])


def _apply(parts: Mapping[str, Part], saved: Mapping[str, Any]) -> tuple[str, ...]:
    """Restore every part, or none; the names of those that were."""
    restored = []
    with _undoing() as undo:
        for name, part in parts.items():
            undo.append(part.snapshot())
            with refusing(name):
                if part.apply(saved[name]):
                    restored.append(name)
    return tuple(restored)


@contextlib.contextmanager
def _undoing() -> Iterator[list[Undo]]:
    """A list of what is to be undone, the last first, if anything is raised inside."""
    undo: list[Undo] = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [back() for back in reversed(undo)])
        yield undo
        stack.pop_all()
