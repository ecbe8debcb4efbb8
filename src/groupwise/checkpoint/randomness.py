"""Random state: the user's own generators, and torch's global ones.

Global state belongs to a process: in a run of several, the file is one rank's, and the others keep their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, final

import torch

from groupwise import _ranks
from groupwise._spelling import shown
from groupwise.checkpoint.part import Part, Undo
from groupwise.errors import StateError, listed

Generators: TypeAlias = torch.Generator | Mapping[str, torch.Generator]


@final
class GeneratorPart(Part):
    """One generator, or several by name."""

    def __init__(self, generators: Generators) -> None:
        named = isinstance(generators, Mapping) and all(isinstance(g, torch.Generator) for g in generators.values())
        if not named and not isinstance(generators, torch.Generator):
            raise StateError(f"generator= is a torch.Generator, or several by name, not {shown(generators)}")
        self._single = isinstance(generators, torch.Generator)
        self._named = {"": generators} if isinstance(generators, torch.Generator) else dict(generators)

    def capture(self) -> Any:
        return {name: generator.get_state() for name, generator in self._named.items()}

    def check(self, saved: Any) -> None:
        if not isinstance(saved, dict) or set(saved) != set(self._named):
            there = listed(map(repr, saved)) if isinstance(saved, dict) else type(saved).__name__
            raise StateError(f"the file has {there}, this run has {listed(map(repr, self._named))}")
        for name, generator in self._named.items():
            _check_like(saved[name], generator.get_state(), f"generator {name!r}")

    def snapshot(self) -> Undo:
        before = self.capture()
        return lambda: self._set(before)

    def apply(self, saved: Any) -> bool:
        self._set(saved)
        return True

    def _set(self, states: Mapping[str, torch.Tensor]) -> None:
        for name, generator in self._named.items():
            generator.set_state(states[name].cpu())


@final
class GlobalPart(Part):
    """Torch's global random state: the CPU's, and that of each CUDA device once CUDA is in use."""

    def capture(self) -> Any:
        used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return {"rank": _rank(), "cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if used else []}

    def check(self, saved: Any) -> None:
        if not isinstance(saved, dict) or not isinstance(saved.get("cuda"), list) or "rank" not in saved:
            raise StateError("is not a random state")
        _check_like(saved.get("cpu"), torch.get_rng_state(), "the CPU's")
        for state, now in zip(saved["cuda"], _cuda_states(), strict=False):
            _check_like(state, now, "a CUDA device's")

    def snapshot(self) -> Undo:
        before = self.capture()

        def undo() -> None:
            self.apply(before)

        return undo

    def apply(self, saved: Any) -> bool:
        if saved["rank"] != _rank():
            return False
        torch.set_rng_state(saved["cpu"].cpu())
        for device, (state, _) in enumerate(zip(saved["cuda"], _cuda_states(), strict=False)):
            torch.cuda.set_rng_state(state.cpu(), device)
        return True


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _rank() -> int:
    world = _ranks.world()
    return 0 if world is None else world.rank


def _check_like(saved: object, now: torch.Tensor, whose: str) -> None:
    if not isinstance(saved, torch.Tensor) or saved.dtype != now.dtype or saved.shape != now.shape:
        raise StateError(f"{whose} random state has another form than that of this machine's generator")
