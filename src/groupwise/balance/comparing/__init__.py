"""Methods beside tuned static weights, at equal compute, over seeds: `compare(build, methods, updates=400)`."""

from groupwise.balance.comparing.contest import compare
from groupwise.balance.comparing.job import Build, Job
from groupwise.balance.comparing.result import Comparison, Entry
from groupwise.balance.comparing.training import Run

__all__ = ["Build", "Comparison", "Entry", "Job", "Run", "compare"]
