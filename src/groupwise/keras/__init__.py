"""The same plan under Keras 3's `compile` and `fit`, on any of its backends."""

from groupwise.keras.balanced_model import BalancedModel
from groupwise.keras.balancing import DWA, RLW, GeometricMean, Static, Uncertainty
from groupwise.keras.grouped_optimizer import GroupedOptimizer
from groupwise.keras.observer import Observer

__all__ = [
    "DWA",
    "RLW",
    "BalancedModel",
    "GeometricMean",
    "GroupedOptimizer",
    "Observer",
    "Static",
    "Uncertainty",
]
