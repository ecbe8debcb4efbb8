"""Names of a package whose modules are imported when they are first asked for (PEP 562).

Stating a plan needs a few values; what a plan means for a model, its file and its difference from another come later,
or never. Classes among such names say in their own module how they are pickled, since the package's face does not see
them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def on_first_use(package: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """A `__getattr__` for a package: each of `names` stands in the module it is mapped to, of the package or, after
    a dot, beside it, as what follows a colon if it has another name there."""

    def found(name: str) -> object:
        if name in names:
            module, _, inner = names[name].partition(":")
            return getattr(importlib.import_module(f".{module}", package), inner or name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return found
