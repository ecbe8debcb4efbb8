"""The names that wrappers put into a parameter's dotted name: the compiler's, FSDP's and checkpointing's, and `module`.

A module of one's own may be called `module`, as `DataParallel` calls what it wraps; the others are nobody's.
"""

from __future__ import annotations

from typing import Final

ALWAYS: Final = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names of nothing but wrapped modules."""

NAMES: Final = frozenset({"module", *ALWAYS})
"""All of them."""


def without_wrappers(name: str) -> str:
    """A dotted name without the parts that wrappers add: `module.encoder._orig_mod.weight` is `encoder.weight`."""
    return ".".join(part for part in name.split(".") if part not in NAMES)
