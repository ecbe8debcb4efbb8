"""Jobs that run: a plan beside its honest competitors, on real data, in seconds."""

from groupwise.demos.comparison import demo

__all__ = ["demo"]
