"""What to say when a plan that began as a preset does not fit a model: what it expected, and what there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from groupwise._spelling import shown
from groupwise.errors import listed
from groupwise.presets.preset import Preset
from groupwise.select import ParameterInfo

_IMPLIED = frozenset({"weight"})
"""Roles that nearly every parameter has, so that they tell no model from another."""


def misfit(preset: Preset, parameters: Sequence[ParameterInfo]) -> str:
    """The sentence that follows the error: the roles that the model has, beside what the preset expects.

    >>> from groupwise.presets import preset
    >>> misfit(preset("bert"), ()).partition(";")[0]
    "the plan began as the preset 'bert', which expects roles norm and bias"
    """
    return (
        f"the plan began as the preset {shown(preset.name)}, which expects {preset.expects.rstrip('.')}; "
        f"this model has {_found(parameters)}. The preset fits {preset.fits.rstrip('.')}. "
        "`groupwise new` lists the others"
    )


def _found(parameters: Sequence[ParameterInfo]) -> str:
    """`roles conv (20 tensors), norm (40), head (2)`, the most frequent first."""
    counts = Counter(role for info in parameters for role in info.roles - _IMPLIED)
    if not counts:
        return "no parameter with a role besides weight"
    ordered = sorted(counts.items(), key=lambda found: (-found[1], found[0]))
    (first, tensors), *rest = ordered
    said = [f"{first} ({tensors:,} {'tensor' if tensors == 1 else 'tensors'})", *(f"{r} ({n:,})" for r, n in rest)]
    return f"roles {listed(said)}"
