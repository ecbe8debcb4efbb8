"""Jobs that run: a plan beside its honest competitors, on real data, in half a minute each (`DEMOS`)."""

from groupwise.demos.catalogue import DEMOS, find
from groupwise.demos.comparison import demo

__all__ = ["DEMOS", "demo", "find"]
