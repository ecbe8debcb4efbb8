"""What stands beside a course of values in a picture: the groups that take it, in the room there is, and a colour."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from groupwise.cli.exit_status import printable

_APART = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888")  # Tol's bright scheme
_HEAT = ((91, 79, 176), (63, 127, 196), (47, 163, 160), (79, 174, 98), (163, 166, 47), (217, 154, 43), (216, 68, 60))


def label(names: Sequence[str], room: int) -> str:
    """The first names that fit into `room` columns, and how many more there are; a lone long name is cut short."""
    whole = [printable(name) for name in names]
    for shown in range(len(whole), 0, -1):
        text = ", ".join(whole[:shown]) + _more(len(whole) - shown)
        if cell_len(text) <= room:
            return text
    more = _more(len(whole) - 1)
    return f"{set_cell_size(whole[0], max(room - len(more) - 1, 1)).rstrip()}…{more}"


def palette(n: int) -> list[str]:
    """`n` colours: far apart if there are few, else neighbours alike, from blue to red, as depths are."""
    if n <= len(_APART):
        return list(_APART[:n])
    hues = [0.68 * (1 - i / (n - 1)) for i in range(n)]
    return [
        "#{:02x}{:02x}{:02x}".format(*(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.8, 0.82))) for hue in hues
    ]


def heat(share: float) -> str:
    """The colour of a share of a scale, from a cold 0 to a hot 1; each reads on dark and on light ground."""
    place = share * (len(_HEAT) - 1)
    low = min(int(place), len(_HEAT) - 2)
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(_HEAT[low], _HEAT[low + 1], strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _more(n: int) -> str:
    return f" +{n}" if n else ""
