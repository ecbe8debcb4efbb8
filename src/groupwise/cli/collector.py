"""The garbage collector in the process of a command, which is the command's own.

Torch leaves some 170,000 objects behind its import, and none of them is garbage. As the collector is set by default it
goes through all of them once more while a command starts, and again at its end.
"""

from __future__ import annotations

import gc
from typing import Final

_SELDOM: Final = 10_000, 50, 50
"""Objects until the youngest are looked at, and how often that is until the older ones are; by default 700, 10, 10."""


def collect_seldom() -> None:
    """For a process that is a command's: it may be set as the command likes."""
    gc.set_threshold(*_SELDOM)


def leave_out_what_is_imported() -> None:
    """Have no collection go through what there is now, in such a process; in any other this does nothing."""
    if gc.get_threshold() == _SELDOM:
        gc.freeze()
