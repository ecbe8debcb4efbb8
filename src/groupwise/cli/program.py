"""What a factory of a training program returned, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groupwise.cli.factory import kind_of
from groupwise.errors import GroupwiseError, listed, unknown

ORDER = ("model", "optimizers", "schedulers", "losses", "batch")
KEYS = (*ORDER, "step", "example")


def parts_of(spec: str, made: object, otherwise: str = "") -> dict[str, Any]:
    """The parts of the program that are there; `otherwise` is what the factory might have returned as well.

    Raises `GroupwiseError` for anything else.
    """
    if isinstance(made, tuple) and 2 <= len(made) <= len(ORDER):
        return _given(dict(zip(ORDER, made, strict=False)))
    if not isinstance(made, Mapping):
        size = f" of {len(made)}" if isinstance(made, tuple) else ""
        raise GroupwiseError(
            f"{spec}: it gave {kind_of(made)}{size}; it must return a tuple (model, optimizers, schedulers, …)"
            f"{',' if otherwise else ' or'} a mapping with some of {listed(KEYS)}{otherwise}"
        )
    for key in made:
        if key not in KEYS:
            raise GroupwiseError(f"{spec}: {unknown('part', str(key), KEYS)}")
    for key in ORDER[:2]:
        if key not in made:
            raise GroupwiseError(f"{spec}: what it returned has no {key!r} (there is: {listed(map(str, made))})")
    return _given(made)


def _given(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Without the parts that are None, as a tuple has them for what there is not."""
    return {name: part for name, part in parts.items() if part is not None or name in ORDER[:2]}
