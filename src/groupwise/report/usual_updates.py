"""What is usual for an algorithm: whether it cares for the size of the gradient, and how far it moves weights a step.

scale_free   the update does not change when every gradient is multiplied by a number (down to its eps)
eps          the size of an entry (of a whole matrix, for Muon) at which its division stops being one
fast         the ratio of update to weights from which steps are large: 3e-2 is thirty times the usual 1e-3
             (Karpathy); Muon's update has the norm lr · sqrt(min(m, n)) whatever the gradient, 1e-2 to 5e-2 in its
             authors' own recipes, so it is large from 0.15 on. LBFGS goes as far as its model of the loss says, so no
             step of it is large
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True)
class Algorithm:
    """A family of algorithms."""

    family: str
    scale_free: bool
    eps: float | None
    fast: float


_ADAM: Final = Algorithm("Adam", scale_free=True, eps=1e-8, fast=0.03)
_SIGN: Final = Algorithm("sign", scale_free=True, eps=None, fast=0.03)
_MUON: Final = Algorithm("Muon", scale_free=True, eps=1e-7, fast=0.15)
_SGD: Final = Algorithm("SGD", scale_free=False, eps=None, fast=0.03)
_NEWTON: Final = Algorithm("LBFGS", scale_free=False, eps=None, fast=math.inf)
_OTHER: Final = Algorithm("other", scale_free=False, eps=None, fast=0.15)

_FAMILIES: Final[Mapping[str, Algorithm]] = {
    **dict.fromkeys(("adam", "adamw", "nadam", "radam", "adamax", "adam8bit", "adamw8bit", "rmsprop", "lamb"), _ADAM),
    **dict.fromkeys(("adagrad", "sparseadam", "adabelief", "soap", "fusedadam", "adafactor"), _ADAM),
    **dict.fromkeys(("lion", "signsgd", "rprop", "tiger"), _SIGN),
    **dict.fromkeys(("sgd", "asgd", "nesterov"), _SGD),
    "muon": _MUON,
    "lbfgs": _NEWTON,
}


def algorithm(name: str) -> Algorithm:
    """The family of an algorithm by its name; a group of several is none that is known."""
    return _FAMILIES.get(name.lower(), _OTHER)
