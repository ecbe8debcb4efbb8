"""The names of one tensor with and without a parametrization, in torch's new and old form.

Spectral norm, or any parametrization of one tensor, keeps `layer.weight` as `layer.parametrizations.weight.original`
(`layer.weight_orig` in the old form, which pruning still has); weight norm splits it into a length and a direction,
`original0` and `original1` (`weight_g` and `weight_v`).
"""

from __future__ import annotations

import re
from typing import Final

_NEW: Final = re.compile(r"(?P<layer>.*\.|)parametrizations\.(?P<tensor>[^.]+)\.original(?P<part>[01]?)")
_OLD: Final = re.compile(r"(?P<layer>.*\.|)(?P<tensor>[^.]+)_(?P<part>orig|g|v)")
_OLD_PART: Final = {"": "_orig", "0": "_g", "1": "_v"}
_NEW_PART: Final = {"orig": "", "g": "0", "v": "1"}


def other_spellings(name: str) -> list[str]:
    """The names that a tensor may have had, or may get, as a parametrization comes, goes or is written anew.

    `mid.weight_g` gives `mid.parametrizations.weight.original0`; nothing says that a tensor of such a name exists.
    """
    if (new := _NEW.fullmatch(name)) is not None:
        plain = new["layer"] + new["tensor"]
        return [*([plain] if not new["part"] else []), plain + _OLD_PART[new["part"]]]
    layer, _, tensor = name.rpartition(".")
    inside = f"{layer}.parametrizations." if layer else "parametrizations."
    others = [f"{inside}{tensor}.original", f"{name}_orig"]
    if (old := _OLD.fullmatch(name)) is not None:
        plain = [old["layer"] + old["tensor"]] if old["part"] == "orig" else []
        others = [*plain, f"{inside}{old['tensor']}.original{_NEW_PART[old['part']]}", *others]
    return others
