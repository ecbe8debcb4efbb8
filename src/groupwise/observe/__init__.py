"""Seeing: what the optimizer did, group by group, on any `torch.optim.Optimizer`."""

from groupwise.observe.observer import Observer

__all__ = ["Observer"]
