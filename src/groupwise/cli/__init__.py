"""The command line: the same plan, seen before a step is taken."""

from groupwise.cli.app import main

__all__ = ["main"]
