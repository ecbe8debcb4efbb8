"""The presets that come with the package: the `.toml` files beside this one."""

from __future__ import annotations

from importlib import resources

from groupwise.errors import PlanError, unknown
from groupwise.presets.preset import Preset

_SUFFIX = ".toml"


def names() -> tuple[str, ...]:
    """The names of all presets, in alphabetical order."""
    files = (file.name for file in resources.files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


def preset(name: str) -> Preset:
    """The preset of that name. Raises `PlanError` where there is none, with the nearest.

    >>> preset("bert").summary
    'An encoder fine-tuned on a task: a small rate, no decay on norms and biases.'
    """
    known = names()
    if name not in known:
        raise PlanError(f"{unknown('preset', name, known)}; `groupwise new` says what each is")
    return Preset(name, (resources.files(__package__) / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))
