"""The same plan under Keras 3's `compile` and `fit`, on any of its backends."""

from groupwise.keras.auditing import audit, inspect
from groupwise.keras.balanced_model import BalancedModel
from groupwise.keras.balancing import DWA, RLW, Equal, GeometricMean, LogSum, Static, Uncertainty
from groupwise.keras.grouped_optimizer import GroupedOptimizer
from groupwise.keras.observer import Observer

__all__ = [
    "DWA",
    "RLW",
    "BalancedModel",
    "Equal",
    "GeometricMean",
    "GroupedOptimizer",
    "LogSum",
    "Observer",
    "Static",
    "Uncertainty",
    "audit",
    "inspect",
]
