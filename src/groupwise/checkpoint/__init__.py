"""A run in one file: model, optimizer, scheduler, balancer, scaler, generators and random state, written atomically."""

from groupwise import _pickling
from groupwise.checkpoint.api import load, save
from groupwise.checkpoint.loaded import Loaded

__all__ = ["Loaded", "load", "save"]

_pickling.by_name(__name__, __all__)
